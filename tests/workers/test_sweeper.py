"""The sweeper: what nobody touches expires too, once, never early, and soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from core.book import ALICE, grant, reserve
from meterhold_server.batching.engine import Engine
from meterhold_server.batching.failures import overloaded
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.batching.reader import Reader
from meterhold_server.core.model import (
    AccountKey,
    AllowancePeriod,
    AllowanceTerms,
    OnExpiry,
)
from meterhold_server.core.operations import Configure, Operation
from meterhold_server.core.outcomes import Granted, Reserved
from meterhold_server.storage import statements
from meterhold_server.storage.due import DueAccount, due_accounts
from meterhold_server.storage.exchange import Connection, Statement
from meterhold_server.storage.verify import verify
from meterhold_server.workers.sweeper import Sweep, Sweeper
from support.engines import Observer, answers, running
from support.waiting import until

HOUR = timedelta(hours=1)
SOON = timedelta(milliseconds=1)
FILL = LaneLimits(queue_operations_max=50_000, queue_wait_seconds_max=600)


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    connected = Observer(database_url)
    yield connected
    connected.close()


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[Reader]:
    opened = Reader(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[Engine]:
    async with running(database_url, FILL) as started:
        yield started


@pytest.fixture
def sweeper(engine: Engine, reader: Reader) -> Sweeper:
    return Sweeper(engine, reader)


@pytest.fixture
def an_hour_ago(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The ledger's clock is an hour slow, until it is set right by calling this.

    What was to expire in the meantime is due at once then: no test has to wait for it.
    """
    right = statements.CLOCK
    slow = Statement(
        b"slow clock",
        right.sql.replace(b"clock_timestamp()", b"clock_timestamp() - interval '1 hour'"),
    )
    assert slow.sql != right.sql
    monkeypatch.setattr(statements, "CLOCK", slow)
    return lambda: monkeypatch.setattr(statements, "CLOCK", right)


def named(count: int) -> list[AccountKey]:
    return [AccountKey("live", f"account-{number}", "credits") for number in range(count)]


async def fill(engine: Engine, operations: list[Operation]) -> None:
    outcomes = await answers(engine, operations)
    assert all(isinstance(outcome, Granted | Reserved) for outcome in outcomes)


def holds(accounts: list[AccountKey], each: int, ttl: timedelta) -> list[Operation]:
    return [
        reserve(f"job-{number}", 1, account=key, ttl=ttl)
        for number in range(each)
        for key in accounts
    ]


def grants(accounts: list[AccountKey], amount: int) -> list[Operation]:
    return [grant(f"gift-{key.account}", amount, account=key) for key in accounts]


async def test_it_expires_what_is_due_and_nothing_else(
    engine: Engine, sweeper: Sweeper, observer: Observer, an_hour_ago: Callable[[], None]
) -> None:
    accounts = named(20)
    await fill(engine, grants(accounts, 100))
    await fill(engine, holds(accounts[:10], 1, SOON) + holds(accounts[10:], 1, 2 * HOUR))
    an_hour_ago()
    swept = await sweeper.run_once()
    assert swept._replace(lag_seconds=0) == Sweep(accounts=10, holds_released=10)
    assert 3590 < swept.lag_seconds < 3700
    assert observer.ask("SELECT state, count(*) FROM reservation GROUP BY 1 ORDER BY 1") == [
        ("ACTIVE", 10),
        ("EXPIRED", 10),
    ]
    assert await sweeper.run_once() == Sweep(), "there is nothing more to do"


async def test_it_says_what_it_did(
    engine: Engine, sweeper: Sweeper, observer: Observer, an_hour_ago: Callable[[], None]
) -> None:
    account = named(1)[0]
    in_half_an_hour = observer.one("SELECT clock_timestamp() - interval '30 minutes'")
    await fill(
        engine,
        [
            grant("stays", 100, account=account),
            grant("goes", 10, account=account, expire_time=in_half_an_hour),
            reserve("released", 1, account=account, ttl=SOON),
        ],
    )
    # In one batch: the next operation on the account would let what is due expire by itself.
    await fill(
        engine,
        [
            reserve("charged", 2, account=account, ttl=HOUR / 4, on_expiry=OnExpiry.CHARGE),
            reserve("charged too", 3, account=account, ttl=HOUR / 4, on_expiry=OnExpiry.CHARGE),
            reserve("released too", 4, account=account, ttl=HOUR / 4),
        ],
    )
    an_hour_ago()
    swept = await sweeper.run_once()
    assert swept._replace(lag_seconds=0) == Sweep(
        accounts=1, holds_released=1, holds_charged=2, lots_expired=1
    )
    kinds = [(kind, amount) for _, kind, amount in observer.entries(account)]
    assert kinds[2:] == [("EXPIRY_CHARGE", -2), ("EXPIRY_CHARGE", -3), ("EXPIRY", -5)]


async def test_it_refills_allowances_and_lets_grants_land(
    engine: Engine, sweeper: Sweeper, observer: Observer, an_hour_ago: Callable[[], None]
) -> None:
    account = named(1)[0]
    in_half_an_hour = observer.one("SELECT clock_timestamp() - interval '30 minutes'")
    yesterday = in_half_an_hour - timedelta(days=1)
    daily = AllowanceTerms(100, AllowancePeriod.DAILY, yesterday)
    await answers(engine, [Configure(account, allowance=daily)])
    await fill(engine, [grant("later", 7, account=account, effective_time=in_half_an_hour)])
    an_hour_ago()
    swept = await sweeper.run_once()
    assert swept._replace(lag_seconds=0) == Sweep(
        accounts=1, lots_expired=1, allowances_refilled=1, grants_landed=1
    )
    kinds = [(kind, amount) for _, kind, amount in observer.entries(account)]
    assert kinds == [("ALLOWANCE", 100), ("EXPIRY", -100), ("ALLOWANCE", 100), ("GRANT", 7)]
    assert await sweeper.run_once() == Sweep(), "the next period is far away"


async def test_never_early(engine: Engine, sweeper: Sweeper, observer: Observer) -> None:
    """Holds for a moment, for longer and for an hour, swept all the while."""
    accounts = named(30)
    await fill(engine, grants(accounts, 100))
    spans = [timedelta(milliseconds=number) for number in (1, 50, 100, 150, 200)]
    operations = [
        operation
        for number, key in enumerate(accounts)
        for operation in holds([key], 1, spans[number % 5] if number < 25 else HOUR)
    ]
    filling = asyncio.create_task(fill(engine, operations))
    swept = 0
    while swept < 25:
        swept += (await sweeper.run_once()).holds_released
    await filling
    assert observer.one("SELECT count(*) FROM reservation WHERE state = 'ACTIVE'") == 5
    # The transaction that expired a hold began its last statement after the hold's time.
    assert observer.one("SELECT count(*) FROM reservation WHERE end_time <> expire_time") == 0
    assert observer.one("SELECT count(*) FROM reservation WHERE expire_time > now()") == 5


@pytest.mark.slow
async def test_any_number_of_them_expire_each_hold_once(
    database_url: str, engine: Engine, observer: Observer, an_hour_ago: Callable[[], None]
) -> None:
    accounts = named(100)
    await fill(engine, grants(accounts, 100))
    await fill(
        engine,
        [
            reserve(f"job-{number}", 1, account=key, ttl=HOUR / 2, on_expiry=on_expiry)
            for number, on_expiry in enumerate([OnExpiry.RELEASE, OnExpiry.CHARGE] * 2)
            for key in accounts
        ],
    )
    an_hour_ago()
    async with AsyncExitStack() as stack:
        sweepers = [
            Sweeper(
                await stack.enter_async_context(running(database_url)),
                await stack.enter_async_context(open_reader(database_url)),
                batch_accounts_max=17,
            )
            for _ in range(4)
        ]
        sweeps = await asyncio.gather(*(one.run_once() for one in sweepers))
    assert sum(sweep.holds_released for sweep in sweeps) == 200
    assert sum(sweep.holds_charged for sweep in sweeps) == 200
    assert observer.one("SELECT count(*) FROM entry WHERE kind = 'EXPIRY_CHARGE'") == 200
    assert observer.one("SELECT count(*) FROM reservation WHERE state = 'EXPIRED'") == 400
    assert verify(database_url).violations == ()


@pytest.mark.slow
@pytest.mark.parametrize(("accounts", "each"), [(2000, 5), (1, 10_000)], ids=["many", "one"])
async def test_ten_thousand_due_holds_are_swept_soon(
    database_url: str,
    engine: Engine,
    sweeper: Sweeper,
    an_hour_ago: Callable[[], None],
    record_property: Callable[[str, object], None],
    accounts: int,
    each: int,
) -> None:
    """How soon is for a benchmark to say; this bound only notices what grew out of proportion."""
    keys = named(accounts)
    await fill(engine, grants(keys, 10_000))
    await fill(engine, holds(keys, each, HOUR / 2))
    an_hour_ago()
    started = time.perf_counter()
    swept = await sweeper.run_once()
    seconds = time.perf_counter() - started
    record_property("seconds", round(seconds, 3))
    assert swept.holds_released == 10_000
    assert seconds < 5
    assert verify(database_url).violations == ()


class TestInTheBackground:
    async def test_it_sweeps_until_stopped(
        self, engine: Engine, reader: Reader, observer: Observer
    ) -> None:
        await fill(engine, grants([ALICE], 100))
        sweeping = Sweeper(engine, reader, interval_seconds=0.001)
        sweeping.start()
        for number in range(3):
            await fill(engine, [reserve(f"job-{number}", 1, ttl=SOON)])
            await until(lambda: not held(observer))
        await sweeping.stop()
        await fill(engine, [reserve("last", 1, ttl=SOON)])
        assert held(observer) == 1

    async def test_starting_and_stopping_in_haste_harms_nothing(
        self, database_url: str, engine: Engine, reader: Reader, observer: Observer
    ) -> None:
        accounts = named(50)
        await fill(engine, grants(accounts, 100))
        await fill(engine, holds(accounts, 2, SOON))
        for number in range(30):
            sweeping = Sweeper(engine, reader, interval_seconds=0, batch_accounts_max=7)
            sweeping.start()
            for _ in range(number):
                await asyncio.sleep(0)
            await sweeping.stop()
        await sweeping.stop()
        await Sweeper(engine, reader).run_once()
        assert held(observer) == 0
        assert verify(database_url).violations == ()

    async def test_it_goes_on_after_a_failure(
        self,
        engine: Engine,
        reader: Reader,
        observer: Observer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A database away, a full queue, or a bug: the next run may do better."""
        failures: list[Exception] = [overloaded(1, 1.0), RuntimeError("a bug"), OSError("away")]

        def fail(connection: Connection, limit: int) -> list[DueAccount]:
            if failures:
                raise failures.pop()
            return due_accounts(connection, limit)

        monkeypatch.setattr("meterhold_server.workers.sweeper.due_accounts", fail)
        await fill(engine, grants([ALICE], 100))
        await fill(engine, [reserve("job", 1, ttl=SOON)])
        sweeping = Sweeper(engine, reader, interval_seconds=0.001)
        with capture_logs() as logs:
            sweeping.start()
            await until(lambda: not held(observer))
            await sweeping.stop()
        assert not failures
        events = [line["event"] for line in logs]
        assert events[:3] == ["sweep_failed"] * 3
        # It may be stopped before it has said so.
        assert events[3:] in ([], ["swept"])


@pytest.mark.parametrize("batch_accounts_max", [1, 5, 50])
async def test_an_account_that_cannot_be_swept_holds_up_no_other(
    engine: Engine,
    reader: Reader,
    observer: Observer,
    an_hour_ago: Callable[[], None],
    batch_accounts_max: int,
) -> None:
    """Not even the one that is due the longest, but where a batch has no room for another."""
    accounts = named(20)
    await fill(engine, grants(accounts, 100))
    await fill(engine, holds(accounts[:1], 1, HOUR / 4))
    await fill(engine, holds(accounts[1:], 1, HOUR / 2))
    an_hour_ago()
    observer.ask(
        """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION USING ERRCODE = '22000'; END $$
        """
    )
    observer.ask(
        "CREATE TRIGGER t BEFORE UPDATE ON account FOR EACH ROW"
        " WHEN (NEW.account = 'account-0') EXECUTE FUNCTION refuse()"
    )
    sweeper = Sweeper(engine, reader, batch_accounts_max=batch_accounts_max)
    with capture_logs():
        swept = await sweeper.run_once()
    assert swept.accounts_failed
    assert held(observer) == (1 if batch_accounts_max > 1 else 20)


def held(observer: Observer) -> int:
    return int(observer.one("SELECT count(*) FROM reservation WHERE state = 'ACTIVE'"))


@asynccontextmanager
async def open_reader(database_url: str) -> AsyncIterator[Reader]:
    opened = Reader(database_url)
    try:
        yield opened
    finally:
        await opened.close()
