"""A COMMIT whose answer is lost looks the same whether it was done or not.

The lane finds out and answers accordingly; and where it cannot, it says that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.book import ALICE, debit_once, grant, release, reserve, settle
from meterhold_server.batching.failures import FailureReason
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.outcomes import Debited, Granted, Released, Settled
from meterhold_server.storage import connection, migrate
from meterhold_server.storage.verify import verify
from support.database import DatabaseServer
from support.engines import Observer, answers, failure, running
from support.proxy import Cut, Proxy
from support.waiting import until

CUTS = (Cut.BEFORE, Cut.AFTER, Cut.DURING)
REPEATS = 20


@pytest.mark.slow
@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.name.lower())
async def test_a_cut_commit_has_exactly_one_effect(
    proxy: Proxy, observer: Observer, batch_sizes: list[int], cut: Cut, database_url: str
) -> None:
    async with running(proxy.url) as engine:
        await engine.submit(grant("gift", 1000))
        batch_sizes.clear()
        for number in range(REPEATS):
            proxy.cut_commits(cut)
            outcome = await engine.submit(debit_once(f"key-{number}", 10))
            assert proxy.cut.is_set()
            assert isinstance(outcome, Debited)
            assert not outcome.replayed
            assert outcome.entry.seq == 2 + number
            assert outcome.balance.spent_micros == 10 * (number + 1)
    assert observer.entries(ALICE)[1:] == [(2 + n, "DEBIT", -10) for n in range(REPEATS)]
    if cut is Cut.BEFORE:
        assert len(batch_sizes) == 2 * REPEATS, "what was rolled back is tried again"
    if cut is Cut.AFTER:
        assert len(batch_sizes) == REPEATS, "what was committed is not tried again"
    assert verify(database_url).clean


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.name.lower())
async def test_who_ended_a_hold_is_told_so(proxy: Proxy, database_url: str, cut: Cut) -> None:
    """Though no entry and no key says who it was."""
    async with running(proxy.url) as engine:
        await engine.submit(grant("gift", 1000))
        for number in range(5):
            await engine.submit(reserve(f"a{number}", 10))
            await engine.submit(reserve(f"b{number}", 10))
            proxy.cut_commits(cut)
            released = await engine.submit(release(f"a{number}"))
            assert proxy.cut.is_set()
            assert isinstance(released, Released)
            assert released.changed
            proxy.cut_commits(cut)
            settled = await engine.submit(settle(f"b{number}", 0))
            assert proxy.cut.is_set()
            assert isinstance(settled, Settled)
            assert not settled.replayed
    assert verify(database_url).clean


async def test_several_cuts_in_a_row(proxy: Proxy, observer: Observer) -> None:
    async with running(proxy.url) as engine:
        proxy.cut_commits(Cut.BEFORE, Cut.BEFORE, Cut.AFTER)
        assert isinstance(await engine.submit(grant("gift", 1000)), Granted)
    assert observer.entries(ALICE) == [(1, "GRANT", 1000)]


async def test_all_of_a_batch_get_what_became_of_it(proxy: Proxy, observer: Observer) -> None:
    async with running(proxy.url) as engine:
        await engine.submit(grant("gift", 1000))
        for cut in CUTS:
            proxy.cut_commits(cut)
            keys = [f"{cut.name}-{number}" for number in range(20)]
            outcomes = await answers(engine, [debit_once(key, 1) for key in keys])
            assert all(isinstance(outcome, Debited) for outcome in outcomes)
            assert proxy.cut.is_set()
    assert len(observer.entries(ALICE)) == 1 + 20 * len(CUTS)


@pytest.mark.parametrize("cut", [Cut.BEFORE, Cut.AFTER], ids=lambda cut: cut.name.lower())
async def test_it_is_unknown_while_the_database_cannot_tell_and_the_key_tells_later(
    proxy: Proxy, observer: Observer, cut: Cut
) -> None:
    limits = LaneLimits(database_wait_seconds=0.1)
    async with running(proxy.url, limits) as engine:
        await engine.submit(grant("gift", 1000))
        proxy.cut_commits(cut, then_refuse=True)
        failed = await failure(engine.submit(debit_once("key", 10)))
        assert failed.reason is FailureReason.OUTCOME_UNKNOWN
        assert failed.applied is None
        assert failed.retry_after_seconds
        assert proxy.refused > 1, "it was asked again and again"
        proxy.accept()
        outcome = await engine.submit(debit_once("key", 10))
        assert isinstance(outcome, Debited)
        assert outcome.replayed is (cut is Cut.AFTER)
        assert outcome.balance.spent_micros == 10
    assert observer.entries(ALICE) == [(1, "GRANT", 1000), (2, "DEBIT", -10)]


async def test_a_stuck_connection_is_severed_and_the_batch_tried_again(
    proxy: Proxy, observer: Observer, watched_closely: None
) -> None:
    """The line takes everything and answers nothing; the lane has to give up by itself."""
    async with running(proxy.url, LaneLimits(transaction_seconds_max=0.1)) as engine:
        await engine.submit(grant("gift", 1000))
        proxy.freeze()
        waiting = engine.submit(debit_once("key", 10))
        await until(lambda: proxy.accepted > 1)
        proxy.thaw()
        outcome = await waiting
        assert isinstance(outcome, Debited)
        assert not outcome.replayed
    assert observer.entries(ALICE) == [(1, "GRANT", 1000), (2, "DEBIT", -10)]


async def test_a_commit_that_is_never_answered_is_severed_and_looked_up(
    proxy: Proxy, observer: Observer, batch_sizes: list[int], watched_closely: None
) -> None:
    async with running(proxy.url, LaneLimits(transaction_seconds_max=0.1)) as engine:
        await engine.submit(grant("gift", 1000))
        proxy.cut_commits(Cut.SILENT)
        outcome = await engine.submit(debit_once("key", 10))
        assert isinstance(outcome, Debited)
        assert not outcome.replayed
    assert batch_sizes == [1, 1]
    assert observer.entries(ALICE) == [(1, "GRANT", 1000), (2, "DEBIT", -10)]


@pytest.mark.slow
async def test_a_connection_that_falls_silent_while_it_is_opened_is_given_up(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane has no session yet that the watchdog could sever."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 1)
    async with running(proxy.url, LaneLimits(database_wait_seconds=0.1)) as engine:
        proxy.freeze_after_login()
        waiting = engine.submit(grant("gift", 1000))
        await until(lambda: proxy.accepted > 1)
        proxy.thaw()
        assert isinstance(await waiting, Granted)


@pytest.fixture(scope="module")
def durable_url() -> Iterator[str]:
    with DatabaseServer(durable=True) as server:
        url = server.create_database()
        migrate.upgrade(url)
        yield url


@pytest.fixture
def primary(durable_url: str) -> Iterator[Observer]:
    """A primary that waits for a synchronous standby, which is not there."""
    observer = Observer(durable_url)
    observer.ask("ALTER SYSTEM SET synchronous_standby_names = 'ghost'")
    observer.ask("SELECT pg_reload_conf()")
    yield observer
    observer.ask("ALTER SYSTEM RESET synchronous_standby_names")
    observer.ask("SELECT pg_reload_conf()")
    observer.close()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_commit_that_no_standby_has_is_not_answered_as_if_all_were_well(
    durable_url: str, primary: Observer, end: str, watched_closely: None
) -> None:
    """The primary has committed and says so, but a failover would lose it."""
    limits = LaneLimits(database_wait_seconds=0.2, transaction_seconds_max=0.5)
    async with running(durable_url, limits) as engine:
        waiting = engine.submit(grant(f"gift-{end}", 1000))
        await until(lambda: primary.waiting_for("SyncRep"))
        (lane,) = primary.waiting_for("SyncRep")
        primary.ask(f"SELECT {end}(%s)", lane)
        failed = await failure(waiting)
        assert failed.reason is FailureReason.OUTCOME_UNKNOWN
        assert failed.applied is None


@pytest.mark.slow
async def test_a_commit_that_no_standby_has_stays_unknown_when_it_is_looked_up(
    durable_url: str, primary: Observer, watched_closely: None
) -> None:
    """The look-up waits for the standby as well, and that wait is broken off too."""
    limits = LaneLimits(database_wait_seconds=0.2, transaction_seconds_max=0.5)
    async with running(durable_url, limits) as engine:
        waiting = engine.submit(grant("gift-looked-up", 1000))
        await until(lambda: primary.waiting_for("SyncRep"))
        (lane,) = primary.waiting_for("SyncRep")
        primary.ask("SELECT pg_terminate_backend(%s, 5000)", lane)
        await until(lambda: primary.waiting_for("SyncRep"))
        for other in primary.waiting_for("SyncRep"):
            primary.ask("SELECT pg_cancel_backend(%s)", other)
        failed = await failure(waiting)
        assert failed.reason is FailureReason.OUTCOME_UNKNOWN
