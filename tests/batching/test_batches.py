"""Which operations share a transaction, and what their callers see of it."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from core.book import ALICE, debit, debit_once, grant, reserve, settle
from core.strategies import BOB
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import Operation, Rebuild
from meterhold_server.core.outcomes import Debited, Granted, Settled
from meterhold_server.storage.verify import verify
from support.engines import Observer, answers, record_batches, running
from support.waiting import until


async def test_a_lone_request_never_waits_for_company(
    database_url: str, batch_sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_to_sleep(seconds: float) -> None:
        raise AssertionError(f"the lane paused for {seconds} s")

    async with running(database_url) as engine:
        await engine.submit(grant("gift", 100))
        monkeypatch.setattr(time, "sleep", refuse_to_sleep)
        for _ in range(10):
            await engine.submit(debit(1))
    assert batch_sizes == [1] * 11


@pytest.mark.parametrize(
    ("calls", "pauses_seconds"), [(7, []), (8, [0.0048]), (20, [0.008]), (49, [])]
)
async def test_after_a_batch_of_some_calls_it_pauses(
    database_url: str,
    observer: Observer,
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
    pauses_seconds: list[float],
) -> None:
    paused: list[float] = []
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 100))
        monkeypatch.setattr("meterhold_server.batching.lane.time.sleep", paused.append)
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        waiting = [engine.submit(debit(1)) for _ in range(calls)]
        observer.let_go()
        await asyncio.gather(first, *waiting)
        await engine.submit_many([debit(1) for _ in range(20)])
    assert paused == pytest.approx(pauses_seconds)


async def test_what_waits_meanwhile_is_committed_together(
    database_url: str, observer: Observer, batch_sizes: list[int]
) -> None:
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 100))
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        waiting = [engine.submit(debit(1)) for _ in range(50)]
        observer.let_go()
        await asyncio.gather(first, *waiting)
    assert batch_sizes == [1, 1, 50]
    transactions = observer.ask(
        "SELECT count(*), count(DISTINCT create_time) FROM entry"
        " GROUP BY xmin::text ORDER BY min(seq)"
    )
    assert transactions == [(1, 1), (1, 1), (50, 1)]


async def test_a_batch_has_a_largest_size(
    database_url: str, observer: Observer, batch_sizes: list[int]
) -> None:
    async with running(database_url, LaneLimits(batch_operations_max=4)) as engine:
        await engine.submit(grant("gift", 100))
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        waiting = [engine.submit(debit(1)) for _ in range(10)]
        observer.let_go()
        await asyncio.gather(first, *waiting)
    assert batch_sizes == [1, 1, 4, 4, 2]


async def test_a_rebuild_is_carried_out_alone(
    database_url: str, observer: Observer, batch_sizes: list[int]
) -> None:
    """It sees all that was decided before it, and what comes after sees what it did."""
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 100))
        observer.ask("UPDATE account SET spent_micros = 1, granted_micros = 101")
        observer.lock(ALICE)
        first = engine.submit(debit(1))
        await until(observer.blocked)
        waiting: list[Operation] = [
            debit(1),
            debit(1),
            Rebuild(ALICE),
            debit(1),
            Rebuild(ALICE),
            Rebuild(ALICE),
        ]
        futures = [engine.submit(operation) for operation in waiting]
        observer.let_go()
        await asyncio.gather(first, *futures)
    assert batch_sizes == [1, 1, 2, 1, 1, 1, 1]
    assert verify(database_url).violations == ()
    assert observer.one("SELECT spent_micros FROM account") == 4


@pytest.mark.parametrize("lanes", [1, 3])
async def test_operations_of_an_account_keep_their_order(
    database_url: str, observer: Observer, lanes: int
) -> None:
    accounts = [AccountKey("live", f"account-{number}", "credits") for number in range(8)]
    async with running(database_url, LaneLimits(batch_operations_max=7), lanes=lanes) as engine:
        await answers(engine, [grant(f"gift-{key.account}", 1000, account=key) for key in accounts])
        await answers(
            engine,
            [
                debit(1 + position, account=key, request_id=f"{position}")
                for position in range(30)
                for key in accounts
            ],
        )
    for key in accounts:
        amounts = [amount for _, _, amount in observer.entries(key)[1:]]
        assert amounts == [-1 - position for position in range(30)]
    assert verify(database_url).clean


async def test_what_comes_together_uses_the_lane_that_has_least_to_do(
    database_url: str, observer: Observer
) -> None:
    async with running(database_url, lanes=2) as engine:
        await engine.submit_many([grant("gift", 100), grant("present", 100, account=BOB)])
        observer.lock(ALICE)
        blocked = engine.submit_many([debit(1)])
        await until(observer.blocked)
        beside = await engine.submit_many([debit(1, account=BOB) for _ in range(3)])
        assert all(isinstance(outcome, Debited) for outcome in beside)
        assert len(observer.lanes()) == 2
        assert not blocked.done()
        observer.let_go()
        await blocked


async def test_what_takes_several_transactions_uses_the_last_lane_alone(
    database_url: str, observer: Observer
) -> None:
    async with running(database_url, LaneLimits(batch_operations_max=2), lanes=2) as engine:
        await engine.submit(grant("gift", 100))
        observer.lock(ALICE)
        blocked = [engine.submit_many([debit(1)] * 5) for _ in range(2)]
        await until(observer.blocked)
        [beside] = await engine.submit_many([grant("present", 100, account=BOB)])
        assert isinstance(beside, Granted)
        assert not any(each.done() for each in blocked)
        observer.let_go()
        await asyncio.gather(*blocked)


async def test_what_is_submitted_in_an_order_is_carried_out_in_it(
    database_url: str, observer: Observer
) -> None:
    """However many lanes there are: the reserve comes before the settle, though it is held up."""
    async with running(database_url, lanes=2) as engine:
        await engine.submit_many([grant("gift", 100), grant("present", 100, account=BOB)])
        for order in (1, 2):
            observer.lock(ALICE)
            held_up = engine.submit_many([debit(1), reserve(f"job-{order}", 50)], order=order)
            await until(observer.blocked)
            behind = engine.submit_many(
                [settle(f"job-{order}", 10), debit(1, account=BOB)], order=order
            )
            observer.let_go()
            await held_up
            assert [type(outcome) for outcome in await behind] == [Settled, Debited]


async def test_what_comes_one_by_one_makes_few_transactions(
    database_url: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = [AccountKey("live", f"account-{number}", "credits") for number in range(16)]
    async with running(database_url, lanes=3) as engine:
        batches = record_batches(monkeypatch)
        grants = [grant(f"gift-{key.account}", 100, account=key) for key in accounts]
        await answers(engine, grants)
        assert len(observer.lanes()) == 1
    assert len(batches) < len(accounts) / 2
    assert sum(batches) == len(accounts)


async def test_an_answer_comes_after_its_commit(database_url: str, observer: Observer) -> None:
    async with running(database_url) as engine:
        for number in range(20):
            await engine.submit(grant(f"gift-{number}", 1))
            assert observer.one("SELECT count(*) FROM entry") == number + 1


async def test_its_time_is_read_once_it_has_its_accounts(
    database_url: str, observer: Observer
) -> None:
    """What waited for a lock happened after what it waited for."""
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 100))
        observer.lock(ALICE)
        waiting = engine.submit(debit(1))
        await until(observer.blocked)
        released = observer.one("SELECT clock_timestamp()")
        observer.let_go()
        outcome = await waiting
        assert isinstance(outcome, Debited)
        assert outcome.entry.create_time > released


async def test_a_batch_that_writes_nothing_is_answered_all_the_same(
    database_url: str, observer: Observer
) -> None:
    async with running(database_url) as engine:
        granted = await engine.submit(grant("gift", 100))
        replayed = await engine.submit(grant("gift", 100))
        assert isinstance(granted, Granted)
        assert isinstance(replayed, Granted)
        assert replayed.entry == granted.entry
        assert replayed.replayed
        await engine.submit(debit(1, account=BOB))
    assert observer.one("SELECT count(*) FROM account") == 1


@pytest.mark.parametrize("rounds", [10])
async def test_an_engine_leaves_nothing_behind(
    database_url: str, observer: Observer, rounds: int
) -> None:
    for number in range(rounds):
        async with running(database_url, lanes=2) as engine:
            waiting = [engine.submit(debit_once(f"{number}-{n}", 1)) for n in range(number)]
        assert all(future.done() for future in waiting), "what waits is carried out first"
        assert not [thread for thread in threading.enumerate() if "lane" in thread.name]
    await until(lambda: not observer.lanes())
