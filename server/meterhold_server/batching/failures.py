"""Why an operation got no outcome. Unlike a refusal, a failure says nothing about the account."""

from __future__ import annotations

from enum import StrEnum


class FailureReason(StrEnum):
    OVERLOADED = "OVERLOADED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    DATABASE_UNAVAILABLE = "DATABASE_UNAVAILABLE"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    INTERNAL = "INTERNAL"


class Failure(Exception):
    """An operation got no outcome.

    `applied` is False if nothing was written and nothing will be; None if that is not known, and
    the same key will tell. `retry_after_seconds` says when it makes sense to try again, if it does.
    `error_id` is in the log beside the cause of an INTERNAL one.
    """

    def __init__(
        self,
        reason: FailureReason,
        message: str,
        *,
        applied: bool | None = False,
        retry_after_seconds: float | None = None,
        error_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.applied = applied
        self.retry_after_seconds = retry_after_seconds
        self.error_id = error_id


def overloaded(waiting: int, wait_seconds: float) -> Failure:
    return Failure(
        FailureReason.OVERLOADED,
        f"{waiting} operations wait already, about {wait_seconds:.1f} s of work; retry later",
        retry_after_seconds=max(0.05, min(wait_seconds / 2, 5.0)),
    )


def shutting_down() -> Failure:
    return Failure(
        FailureReason.SHUTTING_DOWN,
        "this server is draining; retry on another one",
        retry_after_seconds=0.5,
    )


def database_unavailable() -> Failure:
    return Failure(
        FailureReason.DATABASE_UNAVAILABLE,
        "the database cannot be reached; nothing was written; retry",
        retry_after_seconds=1.0,
    )


def outcome_unknown() -> Failure:
    return Failure(
        FailureReason.OUTCOME_UNKNOWN,
        "the connection was lost around COMMIT and the database could not say what became of it; "
        "send the same request with the same key again",
        applied=None,
        retry_after_seconds=1.0,
    )


def deadline_passed() -> Failure:
    return Failure(
        FailureReason.DEADLINE_PASSED,
        "the deadline passed before the work was begun; nothing was written",
    )


def verification_too_long() -> Failure:
    return Failure(
        FailureReason.DEADLINE_PASSED,
        "the account has more to check than a call may take time for; nothing was written; run "
        "`meterhold-server verify --account` instead",
    )


def contended() -> Failure:
    return Failure(
        FailureReason.DATABASE_UNAVAILABLE,
        "others kept the account locked; nothing was written; retry",
        retry_after_seconds=0.5,
    )


def read_too_long() -> Failure:
    return Failure(
        FailureReason.DEADLINE_PASSED,
        "the read took longer than the database lets one take; ask for less, such as one account "
        "or a shorter range of time",
    )


def internal(error_id: str) -> Failure:
    return Failure(
        FailureReason.INTERNAL, "a bug in the server; nothing was written", error_id=error_id
    )
