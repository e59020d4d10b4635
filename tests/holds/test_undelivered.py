"""What becomes of a charge that cannot be delivered: journal, memory, and what the caller learns.

A server that is away is one whose process of this test has not been started yet, or has ended.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import meterhold
from client.scripted_server import Abort, ScriptedServer, error_info
from meterhold import AsyncClient, Client, _delivery
from meterhold.v1 import ledger_service_pb2 as ledger
from meterhold.v1 import metering_service_pb2 as metering
from meterhold.v1 import types_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

RESERVED = metering.ReserveResponse(held_micros=100, created=True)
SETTLED = metering.SettleResponse()
RELEASED = metering.ReleaseResponse(changed=True)
NO_RETRY = (("grpc-retry-pushback-ms", "-1"),)
AWAY = Abort(grpc.StatusCode.UNAVAILABLE, "away", (error_info("DATABASE_UNAVAILABLE"),), NO_RETRY)
DENIED = Abort(
    grpc.StatusCode.UNAUTHENTICATED, "revoked", (error_info("CREDENTIAL_INVALID"),), NO_RETRY
)
LIMITED = Abort(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "too many", (error_info("RATE_LIMITED"),), NO_RETRY
)
UNKNOWN = Abort(
    grpc.StatusCode.UNAVAILABLE, "?", (error_info("OUTCOME_UNKNOWN", "UNKNOWN"),), NO_RETRY
)


def _refused(reason: str) -> Abort:
    return Abort(grpc.StatusCode.FAILED_PRECONDITION, reason, (error_info(reason),))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_delivery, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(_delivery, "PAUSE_SECONDS_MAX", 0.1)


class Twin:
    """Either client, and its holds, awaited."""

    def __init__(self, client: Client | AsyncClient) -> None:
        self.client = client

    @asynccontextmanager
    async def hold(self, **options: Any) -> AsyncIterator[Any]:
        if isinstance(self.client, AsyncClient):
            async with self.client.hold("alice", 100, **options) as hold:
                yield hold
        else:
            with self.client.hold("alice", 100, **options) as sync_hold:
                yield sync_hold

    async def capture(self, hold: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(self.client, AsyncClient):
            await hold.capture(*args, **kwargs)
        else:
            hold.capture(*args, **kwargs)

    async def deliver(self) -> meterhold.Delivery:
        if isinstance(self.client, AsyncClient):
            return await self.client.deliver_journal()
        return self.client.deliver_journal()

    async def close(self) -> None:
        if isinstance(self.client, AsyncClient):
            await self.client.aclose()
        else:
            await asyncio.to_thread(self.client.close)


@pytest.fixture(params=["sync", "async"])
async def opened(request: pytest.FixtureRequest, server: ScriptedServer) -> AsyncIterator[Any]:
    """Opens clients of the server; they are closed at the end."""
    twins = []

    def open_client(**options: Any) -> Twin:
        kind: Any = Client if request.param == "sync" else AsyncClient
        twins.append(Twin(kind(server.target, timeout_seconds=0.3, **options)))
        return twins[-1]

    yield open_client
    for twin in twins:
        await twin.close()


async def _delivered(server: ScriptedServer, count: int) -> list[Any]:
    """Wait until the server has had so many calls."""
    while len(server.calls) < count:
        await asyncio.to_thread(server.called.wait)
        server.called.clear()
    return [call.request for call in server.calls]


@pytest.mark.parametrize(
    "failure", [AWAY, DENIED, LIMITED], ids=["unavailable", "denied", "limited"]
)
async def test_journal_keeps_a_settle_and_delivers_it_when_the_server_is_back(
    opened: Callable[..., Twin],
    server: ScriptedServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    failure: Abort,
) -> None:
    twin = opened(journal=tmp_path / "journal")
    server.answer(RESERVED, failure, failure, failure, SETTLED)
    server.last = _refused("SENT_TWICE")
    with caplog.at_level(logging.WARNING, "meterhold"):
        async with twin.hold() as hold:
            hold.charge(42)
    assert hold.result is None
    assert "settle 42 micros" in caplog.text
    settles = (await _delivered(server, 5))[1:]
    assert {settle.SerializeToString() for settle in settles} == {settles[0].SerializeToString()}
    assert (settles[0].amount_micros, settles[0].keep_open) == (42, False)
    assert await twin.deliver() == (0, 0, 0)
    assert len(server.calls) == 5


async def test_journal_outlives_its_client(
    opened: Callable[..., Twin], server: ScriptedServer, tmp_path: Path
) -> None:
    first = opened(journal=tmp_path / "journal")
    server.answer(RESERVED)
    server.last = AWAY
    usage = meterhold.Usage(model="large", output_tokens=7)
    async with first.hold(labels={"run": "r"}, metadata={"n": 2**40, "deep": {"x": [1]}}) as hold:
        hold.charge(42, usage=usage)
    await first.close()
    sent = server.calls[1].request
    server.calls.clear()
    server.last = SETTLED
    opened(journal=tmp_path / "journal")
    (settle,) = await _delivered(server, 1)
    assert settle == sent
    assert settle.usage.model == "large"


async def test_without_a_journal_the_block_raises_and_memory_goes_on(
    opened: Callable[..., Twin], server: ScriptedServer
) -> None:
    twin = opened()
    server.answer(RESERVED, AWAY, SETTLED)
    with pytest.raises(meterhold.Unavailable):
        async with twin.hold() as hold:
            hold.charge(42)
    assert [request.amount_micros for request in (await _delivered(server, 3))[1:]] == [42, 42]


async def test_what_memory_cannot_deliver_is_logged_in_the_end(
    opened: Callable[..., Twin], server: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    twin = opened()
    server.answer(RESERVED)
    server.last = AWAY
    with pytest.raises(meterhold.Unavailable):
        async with twin.hold(reservation_id="job") as hold:
            hold.charge(42)
    await twin.close()
    assert "lost: settle 42 micros of reservation 'job' of account 'alice'" in caplog.text


async def test_failed_settle_does_not_hide_what_ended_the_block(
    opened: Callable[..., Twin], server: ScriptedServer
) -> None:
    twin = opened()
    server.answer(RESERVED, UNKNOWN)
    server.last = UNKNOWN

    async def job() -> None:
        async with twin.hold() as hold:
            hold.charge(42)
            raise KeyError("job")

    with pytest.raises(KeyError) as raised:
        await job()
    (note,) = raised.value.__notes__
    assert "settle 42 micros" in note
    assert "OutcomeUnknown" in note


async def test_refused_settle_is_raised_and_not_kept(
    opened: Callable[..., Twin], server: ScriptedServer, tmp_path: Path
) -> None:
    twin = opened(journal=tmp_path / "journal")
    server.answer(RESERVED, _refused("RESERVATION_RELEASED"))
    with pytest.raises(meterhold.ReservationReleased):
        async with twin.hold() as hold:
            hold.charge(42)
    assert await twin.deliver() == (0, 0, 0)


async def test_settle_that_is_refused_when_delivered_stays_for_a_person(
    opened: Callable[..., Twin],
    server: ScriptedServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "journal"
    twin = opened(journal=path)
    server.answer(RESERVED, AWAY)
    server.last = _refused("RESERVATION_EXPIRED")
    async with twin.hold() as hold:
        hold.charge(42)
    while (await twin.deliver()).refused == 0:
        pass
    assert "refused for good" in caplog.text
    with sqlite3.connect(path) as database:
        ((settles, refusal),) = database.execute("SELECT settles, refusal FROM undelivered")
    database.close()
    assert '"amountMicros": "42"' in settles
    assert refusal.startswith("RESERVATION_EXPIRED")


@pytest.mark.parametrize("failure", [AWAY, UNKNOWN], ids=["unavailable", "unknown"])
async def test_release_that_cannot_be_delivered_is_kept_as_a_settle_of_nothing(
    opened: Callable[..., Twin], server: ScriptedServer, failure: Abort
) -> None:
    """Nobody owes anything, so the block does not raise; the hold must not be charged either."""
    twin = opened()
    server.answer(RESERVED)
    server.last = failure
    async with twin.hold():
        pass
    server.last = SETTLED
    while (await _delivered(server, 3))[-1].DESCRIPTOR.name != "SettleRequest":
        server.calls.pop()
    assert server.calls[-1].request.amount_micros == 0


@pytest.mark.parametrize(
    "reason", ["RESERVATION_RELEASED", "RESERVATION_SETTLED", "IDEMPOTENCY_MISMATCH"]
)
async def test_hold_that_has_ended_otherwise_needs_no_release(
    opened: Callable[..., Twin], server: ScriptedServer, tmp_path: Path, reason: str
) -> None:
    twin = opened(journal=tmp_path / "journal")
    server.answer(RESERVED, AWAY)
    server.last = _refused(reason)
    async with twin.hold():
        pass
    await _delivered(server, 3)
    while await twin.deliver() != (0, 0, 0):
        pass


async def test_reserve_of_which_nobody_knows_is_given_up(
    opened: Callable[..., Twin], server: ScriptedServer
) -> None:
    twin = opened()
    server.last = UNKNOWN
    with pytest.raises(meterhold.OutcomeUnknown) as raised:
        async with twin.hold():
            pytest.fail("the block ran")
    server.last = SETTLED
    seen = len(server.calls)
    last = (await _delivered(server, seen + 1))[-1]
    assert (last.DESCRIPTOR.name, last.reservation_id) == ("SettleRequest", raised.value.key)
    assert last.amount_micros == 0


@pytest.mark.parametrize("ours", [True, False])
async def test_given_id_is_given_up_only_if_its_hold_is_ours(
    opened: Callable[..., Twin], server: ScriptedServer, ours: bool
) -> None:
    """Another run of the job may have made it, and be at work."""
    twin = opened()
    server.last = UNKNOWN
    with pytest.raises(meterhold.OutcomeUnknown):
        async with twin.hold(reservation_id="job"):
            pytest.fail("the block ran")
    made_by = server.calls[0].request.metadata["meterhold_hold"]
    found = ledger.GetReservationResponse()
    found.reservation.metadata["meterhold_hold"] = made_by if ours else "another"
    asked = len(server.calls)
    server.answer(found, SETTLED)
    await _delivered(server, asked + 1 + ours)
    while (await twin.deliver()).pending:
        pass
    ends = [call for call in server.calls if call.method == "Settle"]
    assert len(ends) == ours


async def test_refused_reserve_leaves_nothing_to_give_up(
    opened: Callable[..., Twin], server: ScriptedServer
) -> None:
    twin = opened()
    server.last = _refused("INSUFFICIENT_CREDITS")
    with pytest.raises(meterhold.InsufficientCredits):
        async with twin.hold():
            pytest.fail("the block ran")
    assert await twin.deliver() == (0, 0, 0)


async def test_capture_of_which_nobody_knows_is_made_when_the_block_ends(
    opened: Callable[..., Twin], server: ScriptedServer
) -> None:
    twin = opened()
    server.answer(RESERVED, AWAY, SETTLED, SETTLED)
    async with twin.hold() as hold:
        with pytest.raises(meterhold.Unavailable):
            await twin.capture(hold, 30)
        hold.charge(12)
    captures, again, final = [call.request for call in server.calls[1:]]
    assert captures == again
    assert (again.amount_micros, again.keep_open) == (30, True)
    assert (final.amount_micros, final.keep_open) == (12, False)


async def test_capture_that_is_refused_in_the_end_goes_into_the_settle(
    opened: Callable[..., Twin], server: ScriptedServer
) -> None:
    twin = opened()
    server.answer(RESERVED, AWAY, _refused("RESERVATION_EXPIRED"), SETTLED)
    async with twin.hold() as hold:
        with pytest.raises(meterhold.Unavailable):
            await twin.capture(hold, 30)
        hold.charge(12)
    assert server.calls[-1].request.amount_micros == 42


@pytest.mark.parametrize("on_error", ["settle", "release"])
async def test_capture_that_turns_out_not_to_be_covered_is_dropped(
    opened: Callable[..., Twin],
    server: ScriptedServer,
    on_error: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    twin = opened()
    refused = _refused("INSUFFICIENT_CREDITS")
    server.answer(RESERVED, AWAY, refused, SETTLED if on_error == "settle" else RELEASED)

    async def job() -> None:
        async with twin.hold(overage=meterhold.Overage.REJECT, on_error=on_error) as hold:
            with pytest.raises(meterhold.Unavailable):
                await twin.capture(hold, 30)
            raise KeyError("job")

    with pytest.raises(KeyError):
        await job()
    assert "refused: settle 30 micros" in caplog.text
    last = server.calls[-1]
    assert last.method == ("Settle" if on_error == "settle" else "Release")
    assert last.method == "Release" or last.request.amount_micros == 0


async def test_refused_capture_is_not_made_again(
    opened: Callable[..., Twin], server: ScriptedServer
) -> None:
    twin = opened()
    server.answer(RESERVED, _refused("INSUFFICIENT_CREDITS"), RELEASED)
    async with twin.hold() as hold:
        with pytest.raises(meterhold.InsufficientCredits):
            await twin.capture(hold, 30)
    assert server.calls[-1].method == "Release"


async def test_captures_wait_in_the_journal_before_their_settle(
    opened: Callable[..., Twin], server: ScriptedServer, tmp_path: Path
) -> None:
    twin = opened(journal=tmp_path / "journal")
    server.answer(RESERVED, AWAY, AWAY, SETTLED, SETTLED)
    async with twin.hold() as hold:
        with pytest.raises(meterhold.Unavailable):
            await twin.capture(hold, 30, capture_id="step-1")
        hold.charge(12)
    capture, final = (await _delivered(server, 5))[3:]
    assert (capture.capture_id, final.capture_id) == ("step-1", "")


async def test_cancelled_block_is_charged_before_the_task_ends(server: ScriptedServer) -> None:
    server.answer(RESERVED, SETTLED)
    entered = asyncio.Event()
    async with AsyncClient(server.target) as client:

        async def job() -> None:
            async with client.hold("alice", 100) as hold:
                hold.charge(42)
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(job())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.calls[-1].request.amount_micros == 42


async def test_block_cancelled_again_and_again_is_charged_before_the_client_closes(
    server: ScriptedServer,
) -> None:
    server.answer(RESERVED, UNKNOWN, SETTLED)
    entered = asyncio.Event()
    async with AsyncClient(server.target) as client:

        async def job() -> None:
            async with client.hold("alice", 100) as hold:
                hold.charge(42)
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(job())
        await entered.wait()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
    assert [call.request.amount_micros for call in server.calls[1:]] == [42, 42]


async def test_hold_cancelled_while_it_reserves_is_given_up(server: ScriptedServer) -> None:
    server.answer(UNKNOWN, RESERVED, SETTLED)
    async with AsyncClient(server.target) as client:
        hold = client.hold("alice", 100)
        task = asyncio.create_task(hold.__aenter__())
        await asyncio.to_thread(server.called.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        requests = await _delivered(server, 3)
    assert [type(request).__name__ for request in requests] == [
        "ReserveRequest",
        "ReserveRequest",
        "SettleRequest",
    ]
    assert requests[-1].amount_micros == 0


async def test_end_of_the_event_loop_keeps_the_settle_in_the_journal(
    server: ScriptedServer, tmp_path: Path
) -> None:
    """`asyncio.run` cancels every task that is left, the settling one included."""
    server.answer(RESERVED)
    server.last = UNKNOWN
    journal = tmp_path / "journal"

    def run() -> None:
        async def abandoned() -> None:
            client = AsyncClient(server.target, journal=journal)

            async def job() -> None:
                async with client.hold("alice", 100) as hold:
                    hold.charge(42)

            task = asyncio.create_task(job())
            await _delivered(server, 2)
            task.cancel()

        asyncio.run(abandoned())

    await asyncio.to_thread(run)
    server.calls.clear()
    server.last = SETTLED
    async with AsyncClient(server.target, journal=journal):
        (settle,) = await _delivered(server, 1)
    assert settle.amount_micros == 42


@contextmanager
def _interrupt(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C comes while the next call is under way."""

    call = client._calls.call

    def interrupted(*arguments: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return call(*arguments)  # The courier goes on: only the main thread is interrupted.

    with monkeypatch.context() as patched:
        patched.setattr(client._calls, "call", interrupted)
        yield


def test_interrupted_settle_is_kept(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    server.answer(RESERVED)
    server.last = SETTLED
    with Client(server.target, journal=journal) as client:
        hold = client.hold("alice", 100)
        hold.__enter__()
        hold.charge(42)
        with _interrupt(client, monkeypatch), pytest.raises(KeyboardInterrupt):
            hold.__exit__(None, None, None)
        while client.deliver_journal().pending:
            pass
    assert server.calls[-1].request.amount_micros == 42


def test_journal_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        Client(journal=tmp_path / "no" / "such" / "folder")


def test_release_that_comes_after_a_charged_expiry_gives_it_back(server: ScriptedServer) -> None:
    late = metering.ReleaseResponse(changed=False)
    late.reservation.state = types_pb2.RESERVATION_STATE_EXPIRED
    late.reservation.expiry_charged_micros = 100
    server.answer(RESERVED, late, SETTLED)
    with Client(server.target) as client, client.hold("alice", 100) as hold:
        pass
    assert isinstance(hold.result, meterhold.SettleResult)
    assert server.calls[-1].request.amount_micros == 0


def test_heartbeats_stop_when_the_hold_is_gone(server: ScriptedServer) -> None:
    """And the block goes on: its charge may still be taken, late."""
    server.answer(RESERVED, AWAY, _refused("RESERVATION_EXPIRED"), SETTLED)
    with (
        Client(server.target) as client,
        client.hold("alice", 100, ttl=timedelta(seconds=0.3)) as hold,
    ):
        while len(server.calls) < 3:
            server.called.wait()
            server.called.clear()
        hold.charge(42)
    assert [call.method for call in server.calls] == ["Reserve", "Extend", "Extend", "Settle"]
