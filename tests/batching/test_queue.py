"""Waiting: how many may, how long, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
import time

import pytest

from core.book import ALICE, debit, debit_once, grant
from meterhold_server.batching.engine import Engine
from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.outcomes import Debited, Granted, Outcome
from support.engines import Observer, failure, running
from support.proxy import Proxy
from support.waiting import until


async def occupied(engine: Engine, observer: Observer) -> asyncio.Future[Outcome]:
    """A debit that waits in the database, until `let_go`: the lane takes nothing else."""
    await engine.submit(grant("gift", 1000))
    observer.lock(ALICE)
    first = engine.submit(debit(1))
    await until(observer.blocked)
    return first


async def test_a_full_queue_refuses_at_once(database_url: str, observer: Observer) -> None:
    async with running(database_url, LaneLimits(queue_operations_max=3)) as engine:
        first = await occupied(engine, observer)
        waiting = [engine.submit(debit(1)) for _ in range(3)]
        with pytest.raises(Failure) as refused:
            engine.submit(debit(1))
        assert refused.value.reason is FailureReason.OVERLOADED
        assert refused.value.applied is False
        assert refused.value.retry_after_seconds
        observer.let_go()
        await asyncio.gather(first, *waiting)
        assert isinstance(await engine.submit(debit(1)), Debited), "there is room again"
    assert len(observer.entries(ALICE)) == 1 + 1 + 3 + 1


async def test_a_queue_that_would_take_too_long_refuses_at_once(
    database_url: str, observer: Observer
) -> None:
    """The lane estimates the wait from how long operations took lately."""
    async with running(database_url, LaneLimits(queue_wait_seconds_max=0.0)) as engine:
        first = await occupied(engine, observer)
        second = engine.submit(debit(1))
        with pytest.raises(Failure) as refused:
            engine.submit(debit(1))
        assert refused.value.reason is FailureReason.OVERLOADED
        assert refused.value.retry_after_seconds
        observer.let_go()
        await asyncio.gather(first, second)


async def test_an_operation_whose_deadline_passed_in_the_queue_is_not_begun(
    database_url: str, observer: Observer
) -> None:
    async with running(database_url) as engine:
        first = await occupied(engine, observer)
        late = engine.submit(debit_once("late", 1), time.monotonic())
        timely = engine.submit(debit_once("timely", 1), time.monotonic() + 60)
        observer.let_go()
        failed = await failure(late)
        assert failed.reason is FailureReason.DEADLINE_PASSED
        assert failed.applied is False
        await asyncio.gather(first, timely)
    assert observer.ask("SELECT key FROM claim WHERE kind = 'DEBIT_ONCE'") == [("timely",)]


async def test_an_operation_whose_deadline_passed_while_the_database_was_away_is_not_begun(
    proxy: Proxy, observer: Observer, batch_sizes: list[int]
) -> None:
    async with running(proxy.url) as engine:
        proxy.refuse()
        deadline = time.monotonic() + 0.3
        late = engine.submit(grant("late", 1), deadline)
        await until(lambda: time.monotonic() > deadline)
        proxy.accept()
        assert (await failure(late)).reason is FailureReason.DEADLINE_PASSED
    assert batch_sizes == []
    assert observer.one("SELECT count(*) FROM entry") == 0


async def test_an_operation_nobody_waits_for_any_more_is_not_begun(
    database_url: str, observer: Observer, batch_sizes: list[int]
) -> None:
    async with running(database_url) as engine:
        first = await occupied(engine, observer)
        left, stayed = engine.submit(debit_once("left", 1)), engine.submit(debit_once("stayed", 1))
        left.cancel()
        observer.let_go()
        await asyncio.gather(first, stayed)
    assert batch_sizes == [1, 1, 1]
    assert observer.ask("SELECT key FROM claim WHERE kind = 'DEBIT_ONCE'") == [("stayed",)]


async def test_an_operation_once_in_a_batch_is_carried_out_though_its_caller_left(
    database_url: str, observer: Observer
) -> None:
    async with running(database_url) as engine:
        first = await occupied(engine, observer)
        first.cancel()
        observer.let_go()
        await engine.submit(debit(2))
    assert observer.entries(ALICE) == [(1, "GRANT", 1000), (2, "DEBIT", -1), (3, "DEBIT", -2)]


async def test_close_carries_out_what_waits_and_takes_no_more(
    database_url: str, observer: Observer
) -> None:
    async with running(database_url) as engine:
        first = await occupied(engine, observer)
        waiting = [engine.submit(debit(1)) for _ in range(20)]
        closing = asyncio.create_task(engine.close())
        for _ in range(3):  # the task, and then the task of its lane, begin
            await asyncio.sleep(0)
        with pytest.raises(Failure) as refused:
            engine.submit(debit(1))
        assert refused.value.reason is FailureReason.SHUTTING_DOWN
        assert refused.value.applied is False
        assert refused.value.retry_after_seconds
        assert not closing.done()
        observer.let_go()
        await closing
        outcomes = await asyncio.gather(first, *waiting)
        assert all(isinstance(outcome, Debited) for outcome in outcomes)
    assert len(observer.entries(ALICE)) == 1 + 21


async def test_close_twice_is_close(database_url: str) -> None:
    async with running(database_url) as engine:
        await engine.close()


class TestWithoutADatabase:
    async def test_callers_are_told_and_it_recovers_by_itself(
        self, proxy: Proxy, observer: Observer
    ) -> None:
        async with running(proxy.url, LaneLimits(database_wait_seconds=0.1)) as engine:
            await engine.submit(grant("gift", 1000))
            proxy.refuse()
            for _ in range(3):
                failed = await failure(engine.submit(debit_once("key", 1)))
                assert failed.reason is FailureReason.DATABASE_UNAVAILABLE
                assert failed.applied is False
                assert failed.retry_after_seconds
            proxy.accept()
            outcome = await engine.submit(debit_once("key", 1))
            assert isinstance(outcome, Debited)
            assert not outcome.replayed
        assert len(observer.entries(ALICE)) == 2

    async def test_a_short_absence_is_waited_out(self, proxy: Proxy) -> None:
        async with running(proxy.url) as engine:
            proxy.refuse()
            waiting = engine.submit(grant("gift", 1000))
            await until(lambda: proxy.refused > 1)
            proxy.accept()
            assert isinstance(await waiting, Granted)

    async def test_in_a_long_absence_nobody_waits(self, proxy: Proxy) -> None:
        """Each batch looks once whether the database is back, and no longer."""
        async with running(proxy.url, LaneLimits(database_wait_seconds=0.05)) as engine:
            proxy.refuse()
            await failure(engine.submit(grant("gift", 1000)))
            refused = proxy.refused
            await failure(engine.submit(grant("gift", 1000)))
            assert proxy.refused == refused + 1

    async def test_close_does_not_wait_for_it(self, proxy: Proxy) -> None:
        async with running(proxy.url, LaneLimits(database_wait_seconds=600)) as engine:
            proxy.refuse()
            waiting = [engine.submit(grant(f"gift-{number}", 1)) for number in range(3)]
            await until(lambda: proxy.refused)
        for future in waiting:
            assert (await failure(future)).reason is FailureReason.DATABASE_UNAVAILABLE
