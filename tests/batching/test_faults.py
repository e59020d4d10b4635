"""What other sessions and the database do to a batch, and what its callers notice: nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import psycopg.types.json
import pytest

from core.book import ALICE, debit, debit_once, grant, reserve
from core.strategies import BOB
from meterhold_server.batching import transaction
from meterhold_server.batching.failures import FailureReason
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.model import account_id_of
from meterhold_server.core.outcomes import Debited, Granted, Reason, Rejected, Reserved
from meterhold_server.core.posting import Writes
from meterhold_server.storage import connection
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.persist import persist
from meterhold_server.storage.verify import verify
from support.engines import Observer, answers, failure, running
from support.waiting import until

LOWER, HIGHER = sorted((ALICE, BOB), key=account_id_of)


@pytest.fixture
def meet_before_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next two batches load what they need before either writes."""
    both = threading.Barrier(2)

    def held(connected: Connection, writes: Writes) -> None:
        if not met.is_set():
            both.wait(10)
            met.set()
        persist(connected, writes)

    met = threading.Event()
    monkeypatch.setattr(transaction, "persist", held)


class TestTwoProcesses:
    """Two engines meet as two processes do: in the locks of the database."""

    async def test_an_account_that_is_created_after_the_lock_that_it_should_have_had(
        self, database_url: str, observer: Observer
    ) -> None:
        """Its lots are read, though it was not there to be locked: the batch is tried again."""
        async with running(database_url) as engine:
            await engine.submit(grant("gift", 100))
            with psycopg.connect(database_url) as other:
                other.execute("LOCK TABLE lot IN ACCESS EXCLUSIVE MODE")
                new = psycopg.types.json.Jsonb({"account_id": account_id_of(BOB), "account": "new"})
                for table in ("account", "entry", "lot"):
                    other.execute(
                        f"INSERT INTO {table} SELECT (jsonb_populate_record(of, %s)).*"
                        f" FROM {table} AS of".encode(),
                        (new,),
                    )
                charged = engine.submit(debit(30, account=BOB))
                await until(observer.blocked)
            assert isinstance(await charged, Debited)
        assert observer.entries(BOB) == [(1, "GRANT", 100), (2, "DEBIT", -30)]

    async def test_the_same_grant_to_an_account_that_is_new_to_both(
        self, database_url: str, observer: Observer, meet_before_writing: None
    ) -> None:
        async with running(database_url) as one, running(database_url) as other:
            first, second = await asyncio.gather(
                one.submit(grant("gift", 100)), other.submit(grant("gift", 100))
            )
        assert isinstance(first, Granted)
        assert isinstance(second, Granted)
        assert {first.replayed, second.replayed} == {False, True}
        assert first.entry == second.entry
        assert first.balance == second.balance
        assert observer.entries(ALICE) == [(1, "GRANT", 100)]

    async def test_different_grants_to_an_account_that_is_new_to_both(
        self, database_url: str, observer: Observer, meet_before_writing: None
    ) -> None:
        async with running(database_url) as one, running(database_url) as other:
            outcomes = await asyncio.gather(
                one.submit(grant("gift", 100)), other.submit(grant("present", 10))
            )
        granted = [o.balance.granted_micros for o in outcomes if isinstance(o, Granted)]
        assert sorted(granted) in ([100, 110], [10, 110])
        assert {amount for _, _, amount in observer.entries(ALICE)} == {100, 10}

    async def test_one_key_for_two_accounts_is_used_by_one_of_them(
        self, database_url: str, observer: Observer, meet_before_writing: None
    ) -> None:
        async with running(database_url) as one, running(database_url) as other:
            outcomes = await asyncio.gather(
                one.submit(grant("gift", 100)), other.submit(grant("gift", 100, account=BOB))
            )
        (refused,) = (o for o in outcomes if isinstance(o, Rejected))
        assert refused.reason is Reason.IDEMPOTENCY_MISMATCH
        assert refused.details["field"] == "account"
        assert observer.one("SELECT count(*) FROM entry") == 1
        assert observer.one("SELECT count(*) FROM account") == 1

    async def test_holds_never_exceed_what_there_is(
        self, database_url: str, observer: Observer
    ) -> None:
        async with running(database_url) as one, running(database_url) as other:
            await one.submit(grant("gift", 500))
            outcomes = await asyncio.gather(
                *(
                    engine.submit(reserve(f"job-{number}-{name}", 75))
                    for number in range(10)
                    for name, engine in (("here", one), ("there", other))
                )
            )
        assert sum(isinstance(outcome, Reserved) for outcome in outcomes) == 6
        assert verify(database_url).clean

    @pytest.mark.slow
    async def test_many_keys_submitted_to_both_have_one_effect_each(
        self, database_url: str, observer: Observer
    ) -> None:
        keys = [f"key-{number}" for number in range(200)]
        async with running(database_url) as one, running(database_url) as other:
            await one.submit(grant("gift", 1000))
            here, there = await asyncio.gather(
                answers(one, [debit_once(key, 1) for key in keys]),
                answers(other, [debit_once(key, 1) for key in reversed(keys)]),
            )
        for first, second in zip(here, reversed(there), strict=True):
            assert isinstance(first, Debited)
            assert isinstance(second, Debited)
            assert {first.replayed, second.replayed} == {False, True}
            assert first.entry == second.entry
            assert first.balance == second.balance
        assert len(observer.entries(ALICE)) == 1 + len(keys)
        assert verify(database_url).clean


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57014", "23505"])
class TestABatchThatTheDatabaseThrowsBack:
    """A trigger raises what a conflict with another session would raise."""

    @pytest.fixture
    def throw_back(self, observer: Observer, state: str, moment: str, times: int) -> Iterator[None]:
        observer.ask("CREATE SEQUENCE thrown")
        observer.ask("GRANT USAGE ON SEQUENCE thrown TO meterhold_app")
        observer.ask(
            f"""
            CREATE FUNCTION throw() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF nextval('thrown') <= {times} THEN
                    RAISE EXCEPTION 'thrown back' USING ERRCODE = '{state}';
                END IF;
                RETURN NEW;
            END $$
            """
        )
        timing = {
            "the write": "CREATE TRIGGER t BEFORE INSERT ON entry",
            "the commit": "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON entry INITIALLY DEFERRED",
        }[moment]
        observer.ask(f"{timing} FOR EACH ROW EXECUTE FUNCTION throw()")
        yield
        observer.ask("DROP TRIGGER t ON entry")

    @pytest.mark.parametrize("times", [2])
    @pytest.mark.parametrize("moment", ["the write", "the commit"])
    async def test_is_tried_again(
        self, database_url: str, throw_back: None, observer: Observer, batch_sizes: list[int]
    ) -> None:
        async with running(database_url) as engine:
            outcome = await engine.submit(grant("gift", 100))
            assert isinstance(outcome, Granted)
            assert not outcome.replayed
        assert batch_sizes == [1, 1, 1]
        assert observer.entries(ALICE) == [(1, "GRANT", 100)]

    @pytest.mark.parametrize("times", [1_000_000])
    @pytest.mark.parametrize("moment", ["the write"])
    async def test_is_given_up_after_some_tries_as_not_applied(
        self, database_url: str, throw_back: None, observer: Observer, batch_sizes: list[int]
    ) -> None:
        async with running(database_url, LaneLimits(attempts_max=3)) as engine:
            failed = await failure(engine.submit(grant("gift", 100)))
            assert failed.reason is FailureReason.DATABASE_UNAVAILABLE
            assert failed.applied is False
            assert failed.retry_after_seconds
        assert batch_sizes == [1, 1, 1]
        assert observer.entries(ALICE) == []


async def test_a_deadlock_with_another_session_is_survived(
    database_url: str, observer: Observer
) -> None:
    """The other one takes the accounts in the wrong order, and is the more patient."""
    name = observer.one("SELECT current_database()")
    observer.ask(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    observer.wait_for_deadlocks(60)
    async with running(database_url) as engine:
        await answers(engine, [grant("one", 100), grant("two", 100, account=BOB)])
        observer.lock(HIGHER)
        both = [engine.submit(debit(1, account=key)) for key in (LOWER, HIGHER)]
        await until(observer.blocked)
        await asyncio.to_thread(observer.lock, LOWER)
        observer.let_go()
        outcomes = await asyncio.gather(*both)
        assert all(isinstance(outcome, Debited) for outcome in outcomes)
    assert [len(observer.entries(key)) for key in (LOWER, HIGHER)] == [2, 2]


async def test_accounts_are_locked_in_the_order_of_their_ids(
    database_url: str, observer: Observer
) -> None:
    """The one order everywhere: no two batches ever wait for each other in a circle."""
    async with running(database_url) as engine:
        await answers(engine, [grant("one", 100), grant("two", 100, account=BOB)])
        for held, is_free in ((HIGHER, False), (LOWER, True)):
            observer.lock(held)
            both = [engine.submit(debit(1, account=key)) for key in (HIGHER, LOWER)]
            await until(observer.blocked)
            other = account_id_of(LOWER if held == HIGHER else HIGHER)
            free = observer.ask(
                "SELECT 1 FROM account WHERE account_id = %s FOR UPDATE SKIP LOCKED", other
            )
            assert bool(free) is is_free
            observer.let_go()
            await asyncio.gather(*both)


class TestALockedAccount:
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(connection._LANE_SETTINGS, "lock_timeout", "40ms")

    async def test_is_waited_for_in_several_tries(
        self, database_url: str, observer: Observer, batch_sizes: list[int]
    ) -> None:
        async with running(database_url) as engine:
            await engine.submit(grant("gift", 100))
            observer.lock(ALICE)
            waiting = engine.submit(debit(1))
            await until(lambda: len(batch_sizes) > 2)
            observer.let_go()
            assert isinstance(await waiting, Debited)

    async def test_is_given_up_in_the_end_and_holds_up_no_other(
        self, database_url: str, observer: Observer
    ) -> None:
        async with running(database_url, LaneLimits(attempts_max=2)) as engine:
            await answers(engine, [grant("one", 100), grant("two", 100, account=BOB)])
            observer.lock(ALICE)
            operations = [debit(1, account=key) for key in (BOB, ALICE, BOB)]
            before, locked, after = await answers(engine, operations)
            observer.let_go()
            assert isinstance(before, Debited)
            assert isinstance(after, Debited)
            assert getattr(locked, "reason", None) is FailureReason.DATABASE_UNAVAILABLE
            assert getattr(locked, "applied", None) is False
        assert len(observer.entries(ALICE)) == 1
        assert len(observer.entries(BOB)) == 3


class TestABackendThatIsKilled:
    async def test_while_it_waits_for_a_lock(self, database_url: str, observer: Observer) -> None:
        async with running(database_url) as engine:
            await engine.submit(grant("gift", 100))
            observer.lock(ALICE)
            waiting = [engine.submit(debit_once(f"key-{number}", 1)) for number in range(10)]
            await until(observer.blocked)
            (lane,) = observer.lanes()
            observer.ask("SELECT pg_terminate_backend(%s)", lane)
            await until(lambda: lane not in observer.lanes())
            observer.let_go()
            outcomes = await asyncio.gather(*waiting)
            assert all(isinstance(o, Debited) and not o.replayed for o in outcomes)
        assert len(observer.entries(ALICE)) == 11

    async def test_while_it_is_idle(self, database_url: str, observer: Observer) -> None:
        async with running(database_url) as engine:
            await engine.submit(grant("gift", 100))
            for _ in range(3):
                observer.ask("SELECT pg_terminate_backend(%s)", *observer.lanes())
                await until(lambda: not observer.lanes())
                assert isinstance(await engine.submit(debit(1)), Debited)
        assert len(observer.entries(ALICE)) == 4

    async def test_between_the_decision_and_the_commit(
        self, database_url: str, observer: Observer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed: list[int] = []

        def kill_and_persist(connected: Connection, writes: Writes) -> None:
            if not killed:
                killed.append(connected.info.backend_pid)
                with psycopg.connect(database_url) as killer:
                    killer.execute("SELECT pg_terminate_backend(%s, 5000)", killed)
            persist(connected, writes)

        monkeypatch.setattr(transaction, "persist", kill_and_persist)
        async with running(database_url) as engine:
            outcome = await engine.submit(grant("gift", 100))
            assert isinstance(outcome, Granted)
            assert not outcome.replayed
        assert killed
        assert observer.entries(ALICE) == [(1, "GRANT", 100)]


async def test_a_database_that_became_read_only_is_an_unavailable_one(
    database_url: str, observer: Observer, batch_sizes: list[int]
) -> None:
    """As after a failover. Everybody is told soon: it is nobody's poison, so none is looked for."""
    name = observer.one("SELECT current_database()")
    async with running(database_url) as engine:
        await engine.submit(grant("gift", 1000))
        observer.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        observer.ask("SELECT pg_terminate_backend(%s, 5000)", *observer.lanes())
        batch_sizes.clear()
        failed = await answers(engine, [debit_once(f"key-{number}", 1) for number in range(64)])
        assert {getattr(one, "reason", one) for one in failed} == {
            FailureReason.DATABASE_UNAVAILABLE
        }
        assert len(batch_sizes) <= 2 * LaneLimits().attempts_max
        observer.ask("SET default_transaction_read_only = off")
        observer.ask(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        for lane in observer.lanes():
            observer.ask("SELECT pg_terminate_backend(%s, 5000)", lane)
        outcome = await engine.submit(debit_once("key-0", 1))
        assert isinstance(outcome, Debited)
        assert not outcome.replayed
    assert len(observer.entries(ALICE)) == 2
