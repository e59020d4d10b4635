"""What the client makes again by itself, above the transport, and what it says in the end."""

from __future__ import annotations

import itertools
import random
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import meterhold
from client.scripted_server import Abort, Hang, ScriptedServer, error_info, retry_info
from meterhold import AsyncClient, Client
from meterhold._replay import Attempts
from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import metering_service_pb2 as metering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from client.conftest import AnyClient

Code = grpc.StatusCode
NO_TRANSPORT_RETRY = (("grpc-retry-pushback-ms", "-1"),)
UNKNOWN = Abort(
    Code.UNAVAILABLE, "unknown", (error_info("OUTCOME_UNKNOWN", "UNKNOWN"),), NO_TRANSPORT_RETRY
)
OVERLOADED = Abort(Code.UNAVAILABLE, "overloaded", (error_info("OVERLOADED"),), NO_TRANSPORT_RETRY)
INSUFFICIENT = Abort(Code.FAILED_PRECONDITION, "too little", (error_info("INSUFFICIENT_CREDITS"),))
MISMATCH = Abort(Code.ALREADY_EXISTS, "mismatch", (error_info("IDEMPOTENCY_MISMATCH"),))
NOT_FOUND = Abort(Code.NOT_FOUND, "no entry", (error_info("ENTRY_NOT_FOUND"),))
DEBITED = metering.DebitOnceResponse(replayed=True)


def _bare(code: Code) -> Abort:
    return Abort(code, trailing_metadata=NO_TRANSPORT_RETRY)


@pytest.fixture
async def hasty(
    request: pytest.FixtureRequest, client: AnyClient, server: ScriptedServer
) -> AsyncIterator[AnyClient]:
    """A client that gives each attempt but 0.2 s."""
    kind = type(client)
    if request.node.callspec.params["client"] == "sync":
        with Client(server.target, attempt_timeout_seconds=0.2) as sync_client:
            yield kind(sync_client)
    else:
        async with AsyncClient(server.target, attempt_timeout_seconds=0.2) as async_client:
            yield kind(async_client)


async def _debit_once(client: AnyClient, **kwargs: Any) -> Any:
    return await client.call("debit_once", "alice", 5, idempotency_key="k", **kwargs)


@pytest.mark.parametrize(
    "failure",
    [
        UNKNOWN,
        Hang(),
        Abort(Code.INTERNAL, "bug", (error_info("INTERNAL", "UNKNOWN"),)),
        *map(_bare, (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.UNKNOWN)),
        *map(_bare, (Code.INTERNAL, Code.ABORTED)),
    ],
    ids=str,
)
async def test_unknown_outcome_is_replayed_with_the_same_key(
    hasty: AnyClient, server: ScriptedServer, failure: Abort | Hang
) -> None:
    server.answer(failure, failure, DEBITED)
    assert (await _debit_once(hasty)).replayed
    assert len(server.calls) == 3
    assert {call.request.idempotency_key for call in server.calls} == {"k"}


@pytest.mark.parametrize(
    ("method", "args", "kwargs", "field"),
    [
        ("debit", ("alice", 5), {}, "request_id"),
        ("extend", ("alice",), {"reservation_id": "r", "add_amount_micros": 5}, "extend_id"),
        ("settle", ("alice", 5), {"reservation_id": "r", "keep_open": True}, "capture_id"),
    ],
)
async def test_key_made_up_by_the_client_is_replayed_and_told(
    client: AnyClient,
    server: ScriptedServer,
    method: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    field: str,
) -> None:
    server.last = UNKNOWN
    with pytest.raises(meterhold.OutcomeUnknown) as raised:
        await client.call(method, *args, **kwargs, timeout_seconds=0.3)
    keys = {getattr(call.request, field) for call in server.calls}
    assert len(server.calls) > 1
    assert keys == {raised.value.key}
    assert raised.value.call == method.capitalize()


@pytest.mark.parametrize(
    ("method", "args", "key"),
    [
        ("revoke_grant", ("order-7",), "order-7"),
        ("reinstate_grant", ("order-7",), "order-7"),
        ("configure_account", ("alice",), ""),
        ("configure_defaults", (), ""),
        ("rebuild_balance", ("alice",), ""),
    ],
)
async def test_what_is_the_same_when_done_again_is_replayed(
    client: AnyClient, server: ScriptedServer, method: str, args: tuple[str, ...], key: str
) -> None:
    server.last = UNKNOWN
    with pytest.raises(meterhold.OutcomeUnknown) as raised:
        await client.call(method, *args, timeout_seconds=0.3)
    assert raised.value.key == key
    first, *others = [call.request for call in server.calls]
    assert others
    assert all(request == first for request in others)


async def test_revocation_that_lands_late_beats_the_refusal_before_it(
    hasty: AnyClient, server: ScriptedServer
) -> None:
    missing = Abort(Code.NOT_FOUND, "no grant", (error_info("GRANT_NOT_FOUND"),))
    server.answer(UNKNOWN, missing, metering.RevokeGrantResponse(grant_revoked_micros=5))
    assert (await hasty.call("revoke_grant", "order-7")).grant_revoked_micros == 5


async def test_long_read_is_not_cut_short(hasty: AnyClient, server: ScriptedServer) -> None:
    server.answer(UNKNOWN, admin.VerifyBalanceResponse(entry_count=5))
    found = await hasty.call("verify_balance", "alice", timeout_seconds=5.0)
    assert found.entry_count == 5
    remaining = [call.seconds_remaining for call in server.calls]
    assert remaining == pytest.approx([5, 5], abs=1)


async def test_call_without_a_key_is_made_once(client: AnyClient, server: ScriptedServer) -> None:
    server.last = UNKNOWN
    with pytest.raises(meterhold.OutcomeUnknown) as raised:
        await client.call("debit", "alice", 5, request_id=None)
    assert raised.value.key == ""
    assert [call.request.request_id for call in server.calls] == [""]


@pytest.mark.parametrize("code", [Code.RESOURCE_EXHAUSTED, Code.DATA_LOSS])
async def test_what_would_fail_again_is_not_replayed(
    client: AnyClient, server: ScriptedServer, code: Code
) -> None:
    server.last = _bare(code)
    with pytest.raises(meterhold.OutcomeUnknown):
        await _debit_once(client)
    assert len(server.calls) == 1


@pytest.mark.parametrize("refusal", [OVERLOADED, INSUFFICIENT, MISMATCH], ids=lambda a: a.message)
async def test_definite_answer_is_not_replayed(
    client: AnyClient, server: ScriptedServer, refusal: Abort
) -> None:
    server.last = refusal
    with pytest.raises(meterhold.MeterholdError) as raised:
        await _debit_once(client)
    assert raised.value.applied == "NO"
    assert len(server.calls) == 1


async def test_attempt_that_the_server_dropped_in_time_is_made_again(
    client: AnyClient, server: ScriptedServer
) -> None:
    dropped = Abort(Code.DEADLINE_EXCEEDED, "late", (error_info("DEADLINE_PASSED"),))
    server.answer(dropped, DEBITED)
    assert (await _debit_once(client)).replayed


async def test_failure_after_an_unknown_attempt_does_not_say_no(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(UNKNOWN)
    server.last = OVERLOADED
    with pytest.raises(meterhold.OutcomeUnknown):
        await _debit_once(client, timeout_seconds=0.5)
    assert len(server.calls) > 1


async def test_refusal_after_an_unknown_attempt_is_confirmed_once_that_one_is_over(
    hasty: AnyClient, server: ScriptedServer
) -> None:
    server.answer(UNKNOWN, INSUFFICIENT)
    server.last = INSUFFICIENT
    started = time.monotonic()
    with pytest.raises(meterhold.InsufficientCredits):
        await _debit_once(hasty)
    assert time.monotonic() - started > 0.4
    assert len(server.calls) == 3


async def test_unknown_attempt_that_lands_late_beats_the_refusal_before_it(
    hasty: AnyClient, server: ScriptedServer
) -> None:
    server.answer(UNKNOWN, INSUFFICIENT, DEBITED)
    assert (await _debit_once(hasty)).replayed


async def test_refusal_for_ever_needs_no_confirmation(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(UNKNOWN, MISMATCH)
    with pytest.raises(meterhold.IdempotencyMismatch):
        await _debit_once(client)
    assert len(server.calls) == 2


async def test_refused_read_needs_no_confirmation(
    client: AnyClient, server: ScriptedServer
) -> None:
    server.answer(UNKNOWN, NOT_FOUND)
    with pytest.raises(meterhold.EntryNotFound):
        await client.call("get_entry", "alice", seq=7)
    assert len(server.calls) == 2


async def test_asked_delay_beyond_the_deadline_ends_the_call(
    client: AnyClient, server: ScriptedServer
) -> None:
    details = (error_info("OUTCOME_UNKNOWN", "UNKNOWN"), retry_info(60_000))
    server.answer(Abort(Code.UNAVAILABLE, "later", details, NO_TRANSPORT_RETRY))
    with pytest.raises(meterhold.OutcomeUnknown) as raised:
        await _debit_once(client)
    assert raised.value.retry_delay_seconds == 60
    assert len(server.calls) == 1


def test_closing_ends_the_pause_before_a_replay(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(server.target)

    def close_meanwhile(attempts: Attempts, failure: meterhold.MeterholdError) -> float:
        client.close()
        return 3600.0

    monkeypatch.setattr(Attempts, "pause_seconds", close_meanwhile)
    server.last = UNKNOWN
    with pytest.raises(meterhold.OutcomeUnknown):
        client.debit("alice", 5)


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.seconds)


UNKNOWN_FAILURE = meterhold.OutcomeUnknown("lost", code="UNAVAILABLE")


def test_each_attempt_has_its_share_and_the_last_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    attempts = Attempts("key", 10.0, 3.0)
    shares = []
    for _ in range(4):
        shares.append(attempts.begin())
        clock.seconds += shares[-1]
    assert shares == pytest.approx([3.0, 3.0, 3.0, 1.0])
    with pytest.raises(meterhold.OutcomeUnknown):
        attempts.pause_seconds(UNKNOWN_FAILURE)


def test_call_without_a_key_has_all_the_time_for_its_only_attempt() -> None:
    assert Attempts("", 10.0, 3.0).begin() == pytest.approx(10.0)


def test_pauses_grow_to_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    monkeypatch.setattr(random, "uniform", lambda _, bound: bound)
    attempts = Attempts(None, 1000.0, 3.0)
    pauses = []
    for _ in range(7):
        attempts.begin()
        pauses.append(attempts.pause_seconds(UNKNOWN_FAILURE))
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_refusal_is_confirmed_when_the_deadline_of_every_unknown_attempt_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    refusal = meterhold.InsufficientCredits("too little", applied="NO")
    attempts = Attempts("key", 10.0, 3.0)
    for failure in (UNKNOWN_FAILURE, UNKNOWN_FAILURE):
        attempts.begin()
        clock.seconds += 0.5
        attempts.pause_seconds(failure)
    attempts.begin()
    pause = attempts.pause_seconds(refusal)
    # The second is half a second old. It may travel for 3 s, and then has 3 s to be begun.
    assert pause == pytest.approx(5.5, abs=0.1)
    clock.seconds += pause
    attempts.begin()
    with pytest.raises(meterhold.InsufficientCredits):
        attempts.pause_seconds(refusal)


@pytest.mark.parametrize("seed", range(50))
def test_what_is_raised_is_true_of_all_attempts(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever comes in whatever order: NO is said only if no attempt may still be applied."""
    clock, choose = Clock(monkeypatch), random.Random(seed)
    attempts = Attempts("key", 10.0, 3.0)
    unknown_until = 0.0
    for _ in itertools.count():
        begun = clock.seconds
        deadline = begun + attempts.begin()
        clock.seconds += choose.uniform(0, 3)
        kind: type[meterhold.MeterholdError] = choose.choice(
            [meterhold.OutcomeUnknown, meterhold.Unavailable, meterhold.InsufficientCredits]
        )
        if kind is meterhold.OutcomeUnknown:
            unknown_until = max(unknown_until, deadline + 3.0)
        applied: Any = "UNKNOWN" if kind is meterhold.OutcomeUnknown else "NO"
        try:
            clock.seconds += attempts.pause_seconds(kind("failed", applied=applied))
        except meterhold.MeterholdError as raised:
            if raised.applied == "NO":
                assert not unknown_until or begun >= unknown_until
            return
