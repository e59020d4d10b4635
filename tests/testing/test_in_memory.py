"""The service in memory has the rules of the real one, and a clock that the test moves."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from threading import Barrier
from typing import Any

import grpc
import grpc.aio
import pytest

import meterhold
from meterhold import EntryKind, LotCategory, OnExpiry, Overage, ReservationState
from meterhold.testing import InMemory
from meterhold.testing._channel import Channel
from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import admin_service_pb2_grpc, metering_service_pb2_grpc
from meterhold.v1 import metering_service_pb2 as metering

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def memory() -> InMemory:
    return InMemory()


@pytest.fixture
def client(memory: InMemory) -> meterhold.Client:
    """Of a ledger in which alice has 500."""
    client = memory.client()
    client.grant_once("alice", 500, idempotency_key="order")
    return client


def available(client: meterhold.Client) -> int:
    return client.balance("alice").available_micros


def ledger(client: meterhold.Client) -> list[tuple[EntryKind, int]]:
    """What was written for alice since the grant of 500."""
    entries = list(client.list_entries("alice", oldest_first=True))
    return [(entry.kind, entry.amount_micros) for entry in entries[1:]]


def test_what_is_not_used_returns(client: meterhold.Client) -> None:
    held = client.reserve("alice", 75, reservation_id="job")
    assert (held.held_micros, held.created, held.balance.available_micros) == (75, True, 425)
    done = client.settle("alice", 60, reservation_id="job")
    assert (done.charged_micros, done.released_micros) == (60, 15)
    assert available(client) == 440


def test_time_stands_still_until_it_is_moved(memory: InMemory, client: meterhold.Client) -> None:
    held = client.reserve("alice", 75, reservation_id="job", ttl=MINUTE)
    assert held.expire_time == memory.now + MINUTE
    memory.advance(MINUTE - timedelta(microseconds=1))
    assert available(client) == 425
    memory.advance(timedelta(microseconds=1))
    assert available(client) == 500
    job = client.get_reservation("alice", reservation_id="job")
    assert (job.state, job.end_time) == (ReservationState.EXPIRED, held.expire_time)


@pytest.mark.parametrize(
    ("on_expiry", "written"),
    [(OnExpiry.RELEASE, []), (OnExpiry.CHARGE, [(EntryKind.EXPIRY_CHARGE, -75)])],
)
def test_an_expiry_frees_or_charges_the_hold(
    memory: InMemory,
    client: meterhold.Client,
    on_expiry: OnExpiry,
    written: list[tuple[EntryKind, int]],
) -> None:
    client.reserve("alice", 75, reservation_id="job", ttl=MINUTE, on_expiry=on_expiry)
    memory.advance(20 * MINUTE)
    assert ledger(client) == written


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (75, []),
        (50, [(EntryKind.REFUND, 25)]),
        (90, [(EntryKind.CAPTURE, -15)]),
    ],
)
def test_a_late_settle_trues_up_what_the_expiry_charged(
    memory: InMemory,
    client: meterhold.Client,
    amount: int,
    written: list[tuple[EntryKind, int]],
) -> None:
    client.reserve("alice", 75, reservation_id="job", on_expiry=OnExpiry.CHARGE)
    memory.advance(20 * MINUTE)
    assert client.settle("alice", amount, reservation_id="job").late
    assert ledger(client) == [(EntryKind.EXPIRY_CHARGE, -75), *written]
    assert available(client) == 500 - amount


def test_a_settle_comes_too_late_after_the_grace_time(
    memory: InMemory, client: meterhold.Client
) -> None:
    held = client.reserve("alice", 75, reservation_id="job", ttl=MINUTE)
    memory.advance(MINUTE + DAY)
    with pytest.raises(meterhold.ReservationExpired) as refused:
        client.settle("alice", 60, reservation_id="job")
    assert refused.value.end_time == held.expire_time


def test_lots_are_spent_in_their_order(memory: InMemory, client: meterhold.Client) -> None:
    """Priority, then the earlier expiry, then promotional before paid, then the oldest."""
    now = memory.now
    lots: dict[str, dict[str, Any]] = {
        "last": {"priority": 60, "expire_time": now + MINUTE},
        "soon": {"expire_time": now + DAY},
        "gift": {"category": LotCategory.PROMOTIONAL},
        "first": {"priority": 0},
        "later": {"expire_time": now + 2 * DAY},
    }
    for key, fields in lots.items():
        client.grant_once("alice", 1, idempotency_key=key, **fields)
    spendable = client.balance("alice", include_lots=True).lots
    order = ["first", "soon", "later", "gift", "order", "last"]
    assert [lot.idempotency_key for lot in spendable] == order
    client.debit("alice", 4)
    left = client.balance("alice", include_lots=True).lots
    assert [lot.idempotency_key for lot in left] == ["order", "last"]


def test_a_lot_expires(memory: InMemory, client: meterhold.Client) -> None:
    client.grant_once("alice", 100, idempotency_key="gift", expire_time=memory.now + DAY)
    client.debit("alice", 30)
    memory.advance(DAY)
    assert available(client) == 500
    assert ledger(client)[-1] == (EntryKind.EXPIRY, -70)


def test_a_retry_gets_the_first_answer(memory: InMemory, client: meterhold.Client) -> None:
    first = client.debit_once("alice", 60, idempotency_key="invoice")
    client.debit("alice", 1)
    again = client.debit_once("alice", 60, idempotency_key="invoice")
    assert again.replayed
    assert (again.entry, again.balance) == (first.entry, first.balance)
    with pytest.raises(meterhold.IdempotencyMismatch) as refused:
        client.debit_once("alice", 61, idempotency_key="invoice")
    assert (refused.value.field, refused.value.original) == ("amount_micros", "60")


def test_debt_is_repaid_by_the_next_grant(client: meterhold.Client) -> None:
    client.debit("alice", 600, overage=Overage.OVERDRAFT)
    assert available(client) == -100
    assert client.grant_once("alice", 150, idempotency_key="more").debt_repaid_micros == 100
    assert available(client) == 50


def test_fields_are_checked_all_at_once(client: meterhold.Client) -> None:
    with pytest.raises(meterhold.InvalidRequest) as refused:
        client.reserve("", 0, reservation_id="job")
    assert [field for field, _ in refused.value.field_violations] == ["account", "amount_micros"]


def test_min_seq_is_not_waited_for(client: meterhold.Client) -> None:
    """Nothing arrives while a call is carried out."""
    assert client.balance("alice", min_seq=1).ledger_seq == 1
    with pytest.raises(meterhold.Unavailable) as refused:
        client.balance("alice", min_seq=2)
    assert refused.value.reason == "LEDGER_BEHIND"
    assert refused.value.metadata["ledgerSeq"] == "1"


def test_pages_are_fetched_as_they_are_needed(client: meterhold.Client) -> None:
    for number in range(5):
        client.reserve("alice", 1, reservation_id=f"job-{number}")
        client.settle("alice", 1, reservation_id=f"job-{number}")
    for list_of in (client.list_entries, client.list_reservations, client.list_lots):
        assert list(list_of("alice", page_size=2)) == list(list_of("alice"))
    assert [entry.seq for entry in client.list_entries("alice", page_size=4)] == [6, 5, 4, 3, 2, 1]


def test_of_threads_at_once_only_what_is_covered_gets_through(
    memory: InMemory, client: meterhold.Client
) -> None:
    barrier = Barrier(20)

    def reserve(number: int) -> bool:
        barrier.wait()
        try:
            return client.reserve("alice", 75, reservation_id=f"job-{number}").created
        except meterhold.InsufficientCredits:
            return False

    with ThreadPoolExecutor(20) as threads:
        admitted = sum(threads.map(reserve, range(20)))
    assert admitted == 6
    assert available(client) == 50
    memory.verify()


async def test_of_tasks_at_once_only_what_is_covered_gets_through(
    memory: InMemory, client: meterhold.Client
) -> None:
    """Each task looks before it leaps; the others leap meanwhile, as they do in real life."""

    async def reserve(number: int) -> bool:
        async with memory.async_client() as twin:
            assert (await twin.balance("alice")).available_micros == 500
            await twin.reserve("alice", 75, reservation_id=f"job-{number}")
        return True

    outcomes = await asyncio.gather(*map(reserve, range(20)), return_exceptions=True)
    assert outcomes.count(True) == 6
    assert [type(o) for o in outcomes if o is not True] == [meterhold.InsufficientCredits] * 14
    assert available(client) == 50


def test_event_loops_come_and_go(memory: InMemory, client: meterhold.Client) -> None:
    twin = memory.async_client()
    asyncio.run(twin.debit("alice", 1))
    asyncio.run(twin.debit("alice", 1))
    assert available(client) == 498


def test_two_of_them_share_nothing(client: meterhold.Client) -> None:
    assert available(InMemory().client()) == 0


def test_the_clock_starts_where_it_is_told() -> None:
    there = datetime(2030, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    memory = InMemory(now=there)
    assert memory.now == there
    assert memory.now.tzinfo is UTC
    memory.client().grant_once("alice", 1, idempotency_key="order")
    assert memory.client().get_entry("alice", seq=1).create_time == there


def test_the_clock_is_that_of_the_day_unless_told() -> None:
    before = datetime.now(UTC)
    memory = InMemory()
    assert before <= memory.now <= datetime.now(UTC)
    assert memory.now == memory.now


def test_a_clock_may_run_by_itself() -> None:
    times = [datetime(2030, 1, 1, tzinfo=UTC)]
    memory = InMemory(now=lambda: times[-1])
    client = memory.client()
    client.grant_once("alice", 500, idempotency_key="order")
    client.reserve("alice", 75, reservation_id="job", ttl=2 * MINUTE)
    times.append(times[-1] + MINUTE)
    assert available(client) == 425
    memory.advance(MINUTE)
    assert available(client) == 500


@pytest.mark.parametrize("now", [datetime(2030, 1, 1), lambda: datetime(2030, 1, 1)])
def test_a_time_without_a_zone_is_refused(now: Any) -> None:
    with pytest.raises(ValueError, match=r"now must be an aware datetime; .* has no time zone"):
        InMemory(now=now)


def test_time_does_not_go_back(memory: InMemory) -> None:
    with pytest.raises(ValueError, match=r"time cannot go back by 0:01:00"):
        memory.advance(-MINUTE)


def test_verify_lists_what_is_wrong(memory: InMemory, client: meterhold.Client) -> None:
    memory.verify()
    service: Any = memory._service
    (account,) = service._engine.state.accounts.values()
    account.spent_micros += 1
    with pytest.raises(AssertionError, match=r"account 'alice' \(credits\): remaining 499 ≠"):
        memory.verify()


def test_a_bug_is_told_as_the_server_tells_it(
    memory: InMemory, client: meterhold.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("meterhold_server.testing.engine.decide", fail)
    with pytest.raises(meterhold.ServerError) as failed:
        client.debit("alice", 1, request_id=None)
    assert failed.value.error_id


def test_the_wire_is_that_of_the_server(memory: InMemory) -> None:
    """What no client of ours sends is checked as well, and told with its request id."""
    channel: Any = Channel(memory._answer)
    stub = metering_service_pb2_grpc.MeteringServiceStub(channel)
    large = metering.DebitRequest(account="a" * 70_000)
    with pytest.raises(grpc.aio.AioRpcError, match="at most 65536 are allowed") as refused:
        stub.Debit(large, metadata=(("x-request-id", "mine"),))
    assert ("x-request-id", "mine") in list(refused.value.trailing_metadata() or ())


def test_its_books_can_be_verified_and_need_no_rebuild(
    memory: InMemory, client: meterhold.Client
) -> None:
    client.debit("alice", 30)
    channel: Any = Channel(memory._answer)
    stub = admin_service_pb2_grpc.AdminServiceStub(channel)
    found = stub.VerifyBalance(admin.VerifyBalanceRequest(account="alice"))
    assert (list(found.differences), found.entry_count) == ([], 2)
    assert found.balance.available_micros == 470
    rebuilt = stub.RebuildBalance(admin.RebuildBalanceRequest(account="alice"))
    assert rebuilt == admin.RebuildBalanceResponse(balance=found.balance)
    unknown = stub.VerifyBalance(admin.VerifyBalanceRequest(account="bob"))
    assert (list(unknown.differences), unknown.entry_count) == ([], 0)


def test_a_deadline_that_has_passed_is_told(memory: InMemory) -> None:
    channel: Any = Channel(memory._answer)
    stub = metering_service_pb2_grpc.MeteringServiceStub(channel)
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        stub.Balance(metering.BalanceRequest(account="alice"), timeout=0)
