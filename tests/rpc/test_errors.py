"""What each error looks like on the wire: the golden files are part of the contract.

METERHOLD_TEST_GOLDEN=write writes them anew, to be read in the diff.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc.aio
import psycopg
import pytest
import structlog.testing
from google.protobuf.message import Message

from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import error_reason_pb2, types_pb2
from meterhold.v1 import ledger_service_pb2 as ledger
from meterhold.v1 import metering_service_pb2 as metering
from meterhold_server.batching import failures
from meterhold_server.batching.failures import Failure
from meterhold_server.core.outcomes import Reason, Rejected
from meterhold_server.rpc import metering as metering_servicer
from meterhold_server.rpc.errors import CODES, Refusal
from rpc.answers import METHODS, Told, call, refusal
from rpc.scripted_engine import scripted

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "errors"
WRITES: Final = os.environ.get("METERHOLD_TEST_GOLDEN") == "write"
REASONS: Final = {
    name.removeprefix("ERROR_REASON_")
    for name in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - it is no mapping
    if name != "ERROR_REASON_UNSPECIFIED"
}
ACCOUNT: Final = "alice"
RESERVE: Final = metering.ReserveRequest(account=ACCOUNT, reservation_id="job", amount_micros=60)
SETTLE: Final = metering.SettleRequest(account=ACCOUNT, reservation_id="job", amount_micros=60)
RELEASE: Final = metering.ReleaseRequest(account=ACCOUNT, reservation_id="job")
GRANT: Final = metering.GrantOnceRequest(
    account=ACCOUNT, idempotency_key="order", amount_micros=100
)

FUNDS: Final = {"available_micros": 5, "required_micros": 60, "reservable_micros": 5}
ENDED: Final = {"reservation_id": "job", "end_time": "2026-11-21T10:00:00+00:00"}

Step = tuple[str, Message]
"""A method and a request for it."""

REFUSALS: Final[dict[str, list[Step]]] = {
    "INVALID_FIELD": [
        ("Debit", metering.DebitRequest(account="a\0b", overage=types_pb2.OVERAGE_CAP)),
    ],
    "AMOUNT_OUT_OF_RANGE": [
        ("Debit", metering.DebitRequest(account=ACCOUNT, amount_micros=10**15 + 1)),
    ],
    "INSUFFICIENT_CREDITS": [
        ("GrantOnce", GRANT),
        ("Reserve", RESERVE),
        ("Reserve", metering.ReserveRequest(
            account=ACCOUNT, reservation_id="next", amount_micros=50, min_available_micros=70
        )),
    ],
    "ACCOUNT_FROZEN": [
        ("ConfigureAccount", admin.ConfigureAccountRequest(account=ACCOUNT, frozen=True)),
        ("GrantOnce", GRANT),
    ],
    "REFUND_EXCEEDS_CHARGE": [
        ("GrantOnce", GRANT),
        ("Debit", metering.DebitRequest(account=ACCOUNT, amount_micros=60)),
        ("RefundCharge", metering.RefundChargeRequest(
            account=ACCOUNT, idempotency_key="back", entry_seq=2, amount_micros=61
        )),
    ],
    "GRANT_NOT_FOUND": [("RevokeGrant", metering.RevokeGrantRequest(grant_key="order"))],
    "GRANT_REVOKED": [
        ("RevokeGrant", metering.RevokeGrantRequest(grant_key="order", allow_tombstone=True)),
        ("GrantOnce", GRANT),
    ],
    "SOURCE_MISMATCH": [
        ("GrantOnce", metering.GrantOnceRequest(
            account=ACCOUNT, idempotency_key="order", amount_micros=100,
            source=types_pb2.Source(provider="shop", store_id="shop-1"),
        )),
        ("RevokeGrant", metering.RevokeGrantRequest(
            grant_key="order", expected_source=types_pb2.ExpectedSource(store_id="shop-2")
        )),
    ],
    "RESERVATION_SETTLED": [
        ("GrantOnce", GRANT),
        ("Reserve", RESERVE),
        ("Settle", SETTLE),
        ("Extend", metering.ExtendRequest(
            account=ACCOUNT, reservation_id="job", on_expiry=types_pb2.ON_EXPIRY_CHARGE
        )),
    ],
    "RESERVATION_RELEASED": [
        ("GrantOnce", GRANT), ("Reserve", RESERVE), ("Release", RELEASE), ("Settle", SETTLE),
    ],
    "RESERVATION_NOT_FOUND": [("Release", RELEASE)],
    "ENTRY_NOT_FOUND": [("GetEntry", ledger.GetEntryRequest(account=ACCOUNT, debit_key="no"))],
    "IDEMPOTENCY_MISMATCH": [
        ("GrantOnce", GRANT),
        ("GrantOnce", metering.GrantOnceRequest(
            account=ACCOUNT, idempotency_key="order", amount_micros=101
        )),
    ],
}  # fmt: skip
"""The calls that lead to a refusal: the last one gets it."""

FAILURES: Final[dict[str, Failure]] = {
    "OVERLOADED": failures.overloaded(4096, 2.5),
    "SHUTTING_DOWN": failures.shutting_down(),
    "DATABASE_UNAVAILABLE": failures.database_unavailable(),
    "OUTCOME_UNKNOWN": failures.outcome_unknown(),
    "DEADLINE_PASSED": failures.deadline_passed(),
    "INTERNAL": failures.internal("5f0c5f0c5f0c5f0c"),
}

AT_THE_DOOR: Final[dict[str, dict[str, Any]]] = {
    "CREDENTIAL_INVALID": {"problem": "the credential is unknown or revoked"},
    "SCOPE_MISSING": {"scope": "meter", "credential_id": "mfzwizlnmfzwizln"},
    "RATE_LIMITED": {"operations_per_second_max": 50, "credential_id": "mfzwizlnmfzwizln"},
}
"""Refusals of callers, whatever they ask for: the details of each."""

ELSEWHERE: Final = {"BALANCE_OUT_OF_RANGE", "RESERVATION_EXPIRED", "LEDGER_BEHIND"}
"""Reasons whose test has more to it than calls."""

WITHIN: Final = {"CHAIN_REFUSED"}
"""Reasons that no call has, only an operation in a Batch: see test_batch."""


def test_one_table_has_a_code_for_every_reason() -> None:
    assert set(CODES) == REASONS


def test_every_reason_has_its_golden_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == REASONS - WITHIN
    assert set(REFUSALS) | set(FAILURES) | set(AT_THE_DOOR) | ELSEWHERE == REASONS - WITHIN


@pytest.mark.parametrize("reason", REFUSALS)
async def test_a_refusal(channel: grpc.aio.Channel, reason: str) -> None:
    *before, (method, request) = REFUSALS[reason]
    await _carry_out(channel, before)
    told = await refusal(channel, METHODS[method], request)
    _check_golden(reason, told)


@pytest.mark.parametrize("reason", AT_THE_DOOR)
async def test_a_refusal_of_the_caller(reason: str) -> None:
    refused = Refusal(reason, AT_THE_DOOR[reason], 0.5 if reason == "RATE_LIMITED" else None)
    async with scripted(refusal=refused) as channel:
        _check_golden(reason, await refusal(channel, METHODS["Reserve"], RESERVE))


async def test_balance_out_of_range(channel: grpc.aio.Channel, database_url: str) -> None:
    await _carry_out(channel, [("GrantOnce", GRANT)])
    nearly = 9 * 10**18 - 100
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE account SET granted_micros = %s, lots_available_micros = %s", [nearly, nearly]
        )
    request = metering.GrantOnceRequest(account=ACCOUNT, idempotency_key="x", amount_micros=101)
    _check_golden("BALANCE_OUT_OF_RANGE", await refusal(channel, METHODS["GrantOnce"], request))


async def test_reservation_expired(channel: grpc.aio.Channel, database_url: str) -> None:
    await _carry_out(channel, [("GrantOnce", GRANT), ("Reserve", RESERVE)])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE reservation SET expire_time = now() - interval '1 day',"
            " create_time = now() - interval '2 days'"
        )
        connection.execute("UPDATE account SET next_expire_time = now() - interval '1 day'")
    _check_golden("RESERVATION_EXPIRED", await refusal(channel, METHODS["Settle"], SETTLE))


async def test_ledger_behind(channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering_servicer, "MIN_SEQ_WAIT_SECONDS", 0.05)
    await _carry_out(channel, [("GrantOnce", GRANT)])
    request = metering.BalanceRequest(account=ACCOUNT, min_seq=2)
    _check_golden("LEDGER_BEHIND", await refusal(channel, METHODS["Balance"], request))


@pytest.mark.parametrize("reason", FAILURES)
async def test_a_failure(reason: str) -> None:
    async with scripted(FAILURES[reason]) as channel:
        _check_golden(reason, await refusal(channel, METHODS["Reserve"], RESERVE))


@pytest.mark.parametrize("reason", FAILURES)
async def test_a_failure_says_nothing_of_the_attempts_before_it(reason: str) -> None:
    """One that was sent before may have got through: only its key can tell."""
    async with scripted(FAILURES[reason], FAILURES[reason], retrying=True) as channel:
        told = await refusal(channel, METHODS["Reserve"], RESERVE)
    assert (told.reason, told.applied) == (reason, "UNKNOWN")


@pytest.mark.parametrize(
    ("reason", "details", "applied"),
    [
        (Reason.ACCOUNT_FROZEN, {}, "UNKNOWN"),
        (Reason.INSUFFICIENT_CREDITS, FUNDS, "UNKNOWN"),
        (Reason.REFUND_EXCEEDS_CHARGE, {"refundable_micros": 5}, "UNKNOWN"),
        (Reason.BALANCE_OUT_OF_RANGE, {"field": "held_micros", "limit_micros": 9}, "UNKNOWN"),
        (Reason.RESERVATION_NOT_FOUND, {"reservation_id": "job"}, "UNKNOWN"),
        (Reason.GRANT_NOT_FOUND, {"grant_key": "order"}, "UNKNOWN"),
        (Reason.GRANT_REVOKED, {"grant_key": "order"}, "UNKNOWN"),
        (Reason.SOURCE_MISMATCH, {"field": "unit", "original": "credits"}, "NO"),
        (Reason.RESERVATION_SETTLED, ENDED, "NO"),
        (Reason.RESERVATION_RELEASED, ENDED, "NO"),
        (Reason.RESERVATION_EXPIRED, ENDED, "NO"),
        (Reason.IDEMPOTENCY_MISMATCH, {"field": "unit", "original": "credits"}, "NO"),
    ],
)
async def test_a_refusal_is_definite_if_an_attempt_before_it_would_meet_it_too(
    reason: Reason, details: dict[str, Any], applied: str
) -> None:
    refused = Rejected(reason, details)
    async with scripted(failures.outcome_unknown(), refused, retrying=True) as channel:
        told = await refusal(channel, METHODS["Settle"], SETTLE)
    assert (told.reason, told.applied) == (reason, applied)


async def test_a_debit_without_a_key_is_not_taken_on_twice() -> None:
    """The scripted engine has one answer, and would fail at a second request."""
    async with scripted(failures.outcome_unknown(), retrying=True) as channel:
        request = metering.DebitRequest(account=ACCOUNT, amount_micros=5)
        told = await refusal(channel, METHODS["Debit"], request)
    assert (told.reason, told.applied) == ("OUTCOME_UNKNOWN", "UNKNOWN")


@pytest.mark.parametrize("given", ["job-7/attempt 2", "x" * 128])
async def test_the_caller_s_id_of_the_request_comes_back(
    channel: grpc.aio.Channel, given: str
) -> None:
    told = await refusal(channel, METHODS["Release"], RELEASE, (("x-request-id", given),))
    assert told.request_id == told.trailing["x-request-id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129])
async def test_a_request_without_a_sane_id_gets_one(
    channel: grpc.aio.Channel, given: str | None
) -> None:
    metadata = () if given is None else (("x-request-id", given),)
    told = [await refusal(channel, METHODS["Release"], RELEASE, metadata) for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{16}", one.request_id) for one in told)
    assert told[0].request_id != told[1].request_id


async def test_a_bug_is_not_explained_to_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error id is what leads from the caller to the log, where everything is."""

    async def broken(*_: object) -> None:
        raise LookupError("the password is swordfish")

    monkeypatch.setattr(metering_servicer.MeteringServicer, "Release", broken)
    with structlog.testing.capture_logs() as logs:
        async with scripted() as channel:
            told = await refusal(channel, METHODS["Release"], RELEASE)
    assert (told.code, told.reason, told.applied) == ("INTERNAL", "INTERNAL", "UNKNOWN")
    assert "swordfish" not in repr(told)
    assert "LookupError" not in repr(told)
    assert "nothing was written" not in told.message
    (logged,) = [event for event in logs if event["event"] == "call_failed"]
    assert logged["error_id"] == told.info.metadata["errorId"]
    assert str(logged["exc_info"]) == "the password is swordfish"


async def test_a_call_of_a_method_that_does_not_exist(channel: grpc.aio.Channel) -> None:
    send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/meterhold.v1.MeteringService/Steal"
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await send(b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel


async def _carry_out(channel: grpc.aio.Channel, steps: list[Step]) -> None:
    for method, request in steps:
        assert isinstance(await call(channel, METHODS[method], request), bytes)


def _check_golden(reason: str, told: Told) -> None:
    assert told.code == CODES[reason].name
    assert told.reason == reason
    assert told.trailing == {"x-request-id": told.request_id}
    found = {
        "code": told.code,
        "message": _masked(told.message),
        "reason": told.reason,
        "domain": told.info.domain,
        "metadata": {key: _masked(value) for key, value in sorted(told.info.metadata.items())},
        "violations": [list(violation) for violation in told.violations],
        "retrySeconds": told.retry_seconds,
    }
    path = GOLDEN / f"{reason}.json"
    if WRITES:
        path.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(path.read_text())


def _masked(text: str) -> str:
    """Without what is different each time: times."""
    return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?\+00:00", "<time>", text)
