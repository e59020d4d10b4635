"""Reasons, codes and transport failures → exceptions."""

from __future__ import annotations

import asyncio
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2

import meterhold
from client.scripted_server import Abort, Hang, ScriptedServer, error_info, retry_info
from meterhold import AsyncClient, Client, _errors
from meterhold.v1 import error_reason_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from client.conftest import AnyClient

Code = grpc.StatusCode
NO_RETRY = (("grpc-retry-pushback-ms", "-1"),)
ENDED = {"reservationId": "job-7", "endTime": "2026-11-21T10:00:00+00:00"}
END_TIME = datetime(2026, 11, 21, 10, tzinfo=UTC)

# code, reason, metadata beside `applied`, expected class, expected attributes
REASONS: list[tuple[Code, str, dict[str, str], type[Exception], dict[str, Any]]] = [
    (Code.INVALID_ARGUMENT, "INVALID_FIELD", {"fields": "a"}, meterhold.InvalidRequest, {}),
    (Code.OUT_OF_RANGE, "AMOUNT_OUT_OF_RANGE", {"fields": "a"}, meterhold.InvalidRequest, {}),
    (
        Code.OUT_OF_RANGE,
        "BALANCE_OUT_OF_RANGE",
        {"field": "granted_micros", "limitMicros": "9000000000000000000"},
        meterhold.BalanceOutOfRange,
        {"field": "granted_micros", "limit_micros": 9 * 10**18},
    ),
    (
        Code.FAILED_PRECONDITION,
        "INSUFFICIENT_CREDITS",
        {"availableMicros": "-5", "requiredMicros": "75", "reservableMicros": "0"},
        meterhold.InsufficientCredits,
        {"available_micros": -5, "required_micros": 75, "reservable_micros": 0},
    ),
    (Code.FAILED_PRECONDITION, "ACCOUNT_FROZEN", {}, meterhold.AccountFrozen, {}),
    (
        Code.FAILED_PRECONDITION,
        "REFUND_EXCEEDS_CHARGE",
        {"refundableMicros": "10"},
        meterhold.RefundExceedsCharge,
        {"refundable_micros": 10},
    ),
    (
        Code.FAILED_PRECONDITION,
        "RESERVATION_SETTLED",
        ENDED,
        meterhold.ReservationSettled,
        {"reservation_id": "job-7", "end_time": END_TIME},
    ),
    (
        Code.FAILED_PRECONDITION,
        "RESERVATION_RELEASED",
        ENDED,
        meterhold.ReservationReleased,
        {"reservation_id": "job-7", "end_time": END_TIME},
    ),
    (
        Code.FAILED_PRECONDITION,
        "RESERVATION_EXPIRED",
        ENDED,
        meterhold.ReservationExpired,
        {"reservation_id": "job-7", "end_time": END_TIME},
    ),
    (
        Code.NOT_FOUND,
        "RESERVATION_NOT_FOUND",
        {"reservationId": "job-7"},
        meterhold.ReservationNotFound,
        {"reservation_id": "job-7"},
    ),
    (Code.NOT_FOUND, "ENTRY_NOT_FOUND", {"seq": "12"}, meterhold.EntryNotFound, {}),
    (
        Code.NOT_FOUND,
        "GRANT_NOT_FOUND",
        {"grantKey": "order-7"},
        meterhold.GrantNotFound,
        {"grant_key": "order-7"},
    ),
    (
        Code.FAILED_PRECONDITION,
        "GRANT_REVOKED",
        {"grantKey": "order-7"},
        meterhold.GrantRevoked,
        {"grant_key": "order-7"},
    ),
    (
        Code.FAILED_PRECONDITION,
        "CHAIN_REFUSED",
        {"index": "7"},
        meterhold.ChainRefused,
        {"index": 7},
    ),
    (
        Code.FAILED_PRECONDITION,
        "SOURCE_MISMATCH",
        {"field": "expected_source.store_id", "original": "shop-1"},
        meterhold.SourceMismatch,
        {"field": "expected_source.store_id", "original": "shop-1"},
    ),
    (
        Code.ALREADY_EXISTS,
        "IDEMPOTENCY_MISMATCH",
        {"field": "amount_micros", "original": "75000000"},
        meterhold.IdempotencyMismatch,
        {"field": "amount_micros", "original": "75000000"},
    ),
    (Code.UNAUTHENTICATED, "CREDENTIAL_INVALID", {}, meterhold.CredentialInvalid, {}),
    (
        Code.PERMISSION_DENIED,
        "SCOPE_MISSING",
        {"scope": "grant", "credentialId": "mfzwizlnmfzwizln"},
        meterhold.ScopeMissing,
        {"scope": "grant"},
    ),
    (
        Code.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        {"operationsPerSecondMax": "50"},
        meterhold.RateLimited,
        {"operations_per_second_max": 50},
    ),
    (Code.UNAVAILABLE, "OVERLOADED", {}, meterhold.Unavailable, {}),
    (Code.UNAVAILABLE, "SHUTTING_DOWN", {}, meterhold.Unavailable, {}),
    (Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", {}, meterhold.Unavailable, {}),
    (Code.UNAVAILABLE, "LEDGER_BEHIND", {"minSeq": "12"}, meterhold.Unavailable, {}),
    (Code.DEADLINE_EXCEEDED, "DEADLINE_PASSED", {}, meterhold.Unavailable, {}),
    (Code.INTERNAL, "INTERNAL", {"errorId": "5f0c"}, meterhold.ServerError, {"error_id": "5f0c"}),
    # Reasons of a newer server.
    (Code.FAILED_PRECONDITION, "NO_SUCH", {}, meterhold.Rejected, {}),
    (Code.RESOURCE_EXHAUSTED, "NO_SUCH", {}, meterhold.Rejected, {}),
    (Code.INVALID_ARGUMENT, "NO_SUCH", {}, meterhold.InvalidRequest, {}),
    (Code.NOT_FOUND, "NO_SUCH", {}, meterhold.NotFound, {}),
    (Code.UNAUTHENTICATED, "NO_SUCH", {}, meterhold.AccessDenied, {}),
    (Code.PERMISSION_DENIED, "NO_SUCH", {}, meterhold.AccessDenied, {}),
    (Code.UNAVAILABLE, "NO_SUCH", {}, meterhold.Unavailable, {}),
    (Code.INTERNAL, "NO_SUCH", {}, meterhold.ServerError, {}),
]


def _abort(code: Code, *details: Message) -> Abort:
    return Abort(code, "the message", details, NO_RETRY)


async def _error(client: AnyClient) -> meterhold.MeterholdError:
    """What a call raises that is made only once, as it has no key."""
    with pytest.raises(meterhold.MeterholdError) as raised:
        await client.call("debit", "alice", 5, request_id=None)
    assert isinstance(raised.value.__cause__, grpc.RpcError)
    return raised.value


@pytest.mark.parametrize(("code", "reason", "metadata", "error_class", "attributes"), REASONS)
async def test_reason_has_its_exception(
    client: AnyClient,
    server: ScriptedServer,
    code: Code,
    reason: str,
    metadata: dict[str, str],
    error_class: type[Exception],
    attributes: dict[str, Any],
) -> None:
    server.answer(_abort(code, error_info(reason, **metadata)))
    error = await _error(client)
    assert type(error) is error_class
    assert (error.reason, error.code, error.applied) == (reason, code.name, "NO")
    assert str(error) == error.message == "the message"
    assert error.metadata == {"applied": "NO", **metadata}
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert error.field_violations == []
    assert error.retry_delay_seconds is None


async def test_outcome_unknown(client: AnyClient, server: ScriptedServer) -> None:
    server.answer(_abort(Code.UNAVAILABLE, error_info("OUTCOME_UNKNOWN", "UNKNOWN")))
    error = await _error(client)
    assert type(error) is meterhold.OutcomeUnknown
    assert (error.reason, error.applied) == ("OUTCOME_UNKNOWN", "UNKNOWN")


async def test_field_violations_and_retry_delay(client: AnyClient, server: ScriptedServer) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    bad_request = error_details_pb2.BadRequest(
        field_violations=[
            violation(field="account", description="is empty"),
            violation(field="amount_micros", description="is negative"),
        ]
    )
    info = error_info("INVALID_FIELD", fields="account,amount_micros")
    server.answer(_abort(Code.INVALID_ARGUMENT, bad_request, info, retry_info(250)))
    error = await _error(client)
    assert error.field_violations == [
        ("account", "is empty"),
        ("amount_micros", "is negative"),
    ]
    assert error.retry_delay_seconds == 0.25


@pytest.mark.parametrize(
    ("code", "reason", "error_class"),
    [
        (Code.UNAVAILABLE, "DATABASE_UNAVAILABLE", meterhold.OutcomeUnknown),
        (Code.UNAVAILABLE, "NO_SUCH", meterhold.OutcomeUnknown),
        (Code.FAILED_PRECONDITION, "NO_SUCH", meterhold.OutcomeUnknown),
        (Code.INTERNAL, "INTERNAL", meterhold.ServerError),
    ],
)
async def test_what_may_have_happened_is_never_a_refusal(
    client: AnyClient,
    server: ScriptedServer,
    code: Code,
    reason: str,
    error_class: type[Exception],
) -> None:
    server.answer(_abort(code, error_info(reason, "UNKNOWN")))
    error = await _error(client)
    assert type(error) is error_class
    assert error.applied == "UNKNOWN"


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_error_of_the_transport(
    client: AnyClient, server: ScriptedServer, code: Code
) -> None:
    server.answer(_abort(code))
    error = await _error(client)
    refused = {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.UNAUTHENTICATED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
    }
    if code in refused:
        assert (type(error), error.applied) == (meterhold.Rejected, "NO")
    else:
        assert (type(error), error.applied) == (meterhold.OutcomeUnknown, "UNKNOWN")
    assert (error.reason, error.code, error.metadata) == ("", code.name, {})


async def test_details_of_someone_else_are_not_ours(
    client: AnyClient, server: ScriptedServer
) -> None:
    foreign = error_details_pb2.ErrorInfo(
        reason="OVERLOADED", domain="proxy.example", metadata={"applied": "NO"}
    )
    server.answer(_abort(Code.UNAVAILABLE, foreign))
    assert type(await _error(client)) is meterhold.OutcomeUnknown


async def test_details_that_cannot_be_read_are_ignored(
    client: AnyClient, server: ScriptedServer
) -> None:
    garbage = (("grpc-status-details-bin", b"\xff\xff"), *NO_RETRY)
    server.answer(Abort(Code.UNAVAILABLE, trailing_metadata=garbage))
    assert type(await _error(client)) is meterhold.OutcomeUnknown


async def test_passed_deadline_leaves_the_outcome_unknown(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(Hang())
    with pytest.raises(meterhold.OutcomeUnknown) as raised:
        await client.call("debit", "alice", 5, timeout_seconds=0.1)
    assert raised.value.code == "DEADLINE_EXCEEDED"


async def test_pages_raise_like_calls(client: AnyClient, server: ScriptedServer) -> None:
    server.answer(_abort(Code.UNAVAILABLE, error_info("SHUTTING_DOWN")))
    with pytest.raises(meterhold.Unavailable):
        await anext(client.items("list_entries", "alice"))


def test_failure_to_connect_leaves_the_outcome_unknown() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with (
            Client(f"127.0.0.1:{taken.getsockname()[1]}") as client,
            pytest.raises(meterhold.OutcomeUnknown) as raised,
        ):
            client.debit("alice", 5, request_id=None)
    assert raised.value.code == "UNAVAILABLE"


async def test_cancelled_task_stays_cancelled(server: ScriptedServer) -> None:
    server.answer(Hang())
    async with AsyncClient(server.target) as client:
        task = asyncio.create_task(client.debit("alice", 5))
        await asyncio.to_thread(server.called.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()


def test_closing_ends_calls_of_other_threads(server: ScriptedServer) -> None:
    server.answer(Hang())
    client = Client(server.target)
    with ThreadPoolExecutor() as threads:
        call = threads.submit(client.debit, "alice", 5)
        server.called.wait()
        client.close()
        with pytest.raises(meterhold.OutcomeUnknown):
            call.result()


async def test_closing_ends_calls_of_other_tasks(server: ScriptedServer) -> None:
    server.answer(Hang())
    client = AsyncClient(server.target)
    task = asyncio.create_task(client.debit("alice", 5))
    await asyncio.to_thread(server.called.wait)
    await client.aclose()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_every_reason_is_in_the_table() -> None:
    values = error_reason_pb2.ErrorReason.DESCRIPTOR.values
    names = {value.name.removeprefix("ERROR_REASON_") for value in values}
    assert set(_errors.BY_REASON) == names - {"UNSPECIFIED"}


def test_exception_survives_pickling() -> None:
    error = meterhold.InsufficientCredits(
        "too little",
        reason="INSUFFICIENT_CREDITS",
        code="FAILED_PRECONDITION",
        applied="NO",
        metadata={"availableMicros": "5"},
    )
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is meterhold.InsufficientCredits
    assert vars(copy) == vars(error)
    assert (str(copy), copy.available_micros) == ("too little", 5)
