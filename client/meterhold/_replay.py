"""When a call is made again, with the same key, after an attempt whose outcome nobody knows.

The transport repeats by itself what found the server unavailable (see `_channel.SERVICE_CONFIG`).
This is the layer above it, for what the transport must not judge: a deadline that passed, a
connection that broke, an answer that says `applied=UNKNOWN`. The same key makes it safe, and the
answer to the replay is the truth about all attempts.
"""

from __future__ import annotations

import random
import time

from meterhold import _errors
from meterhold._errors import MeterholdError, Rejected
from meterhold.v1 import admin_service_pb2, ledger_service_pb2

FIRST_PAUSE_SECONDS = 0.05
PAUSE_SECONDS_MAX = 1.0

# These refusals stand for ever: an earlier attempt that is still on its way would meet the same.
_FINAL = (
    _errors.InvalidRequest,
    _errors.IdempotencyMismatch,
    _errors.ReservationSettled,
    _errors.ReservationReleased,
    _errors.ReservationExpired,
)

# Without a reason these are no accident of the moment: an answer that is too large stays so.
_LASTING_CODES = frozenset({"RESOURCE_EXHAUSTED", "DATA_LOSS"})

# They read all entries of an account, or all accounts: attempts that are cut short get nowhere.
_LONG_REQUESTS: frozenset[type] = frozenset(
    {
        ledger_service_pb2.GetStatsRequest,
        ledger_service_pb2.SpendReportRequest,
        admin_service_pb2.VerifyBalanceRequest,
        admin_service_pb2.RebuildBalanceRequest,
    }
)


def attempt_seconds(request: object, call_seconds: float, usual_seconds: float) -> float:
    """Answer how long one attempt may take of a call that has `call_seconds` in all."""
    return call_seconds if type(request) in _LONG_REQUESTS else usual_seconds


class Attempts:
    """The attempts of one call, until it is answered or its time is over. Not for threads to share.

    `begin` before each attempt; after one that failed `pause_seconds` answers how long to wait
    before the next, or raises what the caller is to get.
    """

    def __init__(
        self, key: str | None, timeout_seconds: float, attempt_timeout_seconds: float
    ) -> None:
        """`key` is what makes the call safe to repeat: None if it needs none, empty for no key."""
        self.number = 0
        self._attempt_timeout_seconds = attempt_timeout_seconds
        self._replayable = key != ""
        self._needs_no_key = key is None
        self._deadline = time.monotonic() + timeout_seconds
        self._attempt_begun = 0.0
        self.deadline = 0.0
        """When the attempt that is under way is over for its caller, on the monotonic clock."""
        self._may_begin_until = 0.0
        self._pause_seconds = FIRST_PAUSE_SECONDS
        self.unknown: MeterholdError | None = None
        self._unknown_until = 0.0

    def begin(self) -> float:
        """Answer how many seconds the next attempt may take."""
        self.number += 1
        now = time.monotonic()
        left = self._deadline - now
        # The only attempt of a call without a key gets all the time there is.
        seconds = min(left, self._attempt_timeout_seconds) if self._replayable else left
        seconds = max(seconds, 0.001)
        self._attempt_begun = now
        self.deadline = self._may_begin_until = now + seconds
        return seconds

    def sent_until(self, deadline: float) -> None:
        """Say that the attempt went with others, so that the server may begin it until then."""
        self._may_begin_until = max(self._may_begin_until, deadline)

    def pause_seconds(self, failure: MeterholdError) -> float:
        """Answer how long to wait before the call is made again. Raises if it is not."""
        if failure.applied == "UNKNOWN":
            self.unknown = failure
            over = self._may_begin_until + self._attempt_timeout_seconds
            self._unknown_until = max(self._unknown_until, over)
        if not self._replayable or not self._may_help(failure):
            raise failure
        if isinstance(failure, Rejected):
            pause = self._pause_before_confirmation(failure)
        else:
            pause = max(self._backoff_seconds(), failure.retry_delay_seconds or 0.0)
        if time.monotonic() + pause >= self._deadline:
            raise self.unknown or failure
        return pause

    def _may_help(self, failure: MeterholdError) -> bool:
        """Whether the call should be made again at all."""
        if self.unknown is None:
            # The server dropped the attempt because its time was over; the call may have some left.
            return failure.reason == "DEADLINE_PASSED"
        return bool(failure.reason) or failure.code not in _LASTING_CODES

    def _pause_before_confirmation(self, refusal: Rejected) -> float:
        """How long until a refusal says something of the earlier attempts, too.

        One of them may still be on its way to the server, which drops it when its deadline has
        passed. The server counts that from the arrival of a request, and one that takes longer to
        arrive than an attempt may last is taken for lost. A refusal that begins after all that is
        the truth about all of them.
        """
        confirmed = self._needs_no_key or self._attempt_begun >= self._unknown_until
        if confirmed or isinstance(refusal, _FINAL):
            raise refusal
        return max(0.0, self._unknown_until - time.monotonic())

    def _backoff_seconds(self) -> float:
        pause = random.uniform(0, self._pause_seconds)
        self._pause_seconds = min(self._pause_seconds * 2, PAUSE_SECONDS_MAX)
        return pause
