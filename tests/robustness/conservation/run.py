"""One run: two servers on one database, callers, sweepers, a bad line; then quiet."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import psycopg
import pytest

from meterhold_server.batching.engine import Engine
from meterhold_server.batching.reader import Reader
from meterhold_server.core.model import Rules
from meterhold_server.storage.verify import verify
from meterhold_server.workers.sweeper import Sweeper
from robustness.conservation.callers import Caller, Load, accounts, open_accounts
from robustness.conservation.comparison import Database
from robustness.conservation.journal import Journal
from support.engines import running
from support.proxy import Cut, Proxy
from support.waiting import until

HOT: Final = 50
CALLERS: Final = 225
ACCOUNTS_EACH: Final = 2
OPERATIONS_BETWEEN_CUTS: Final = 1_000
RULES: Final = Rules(
    ttl_default=timedelta(seconds=2),
    ttl_max=timedelta(seconds=10),
    settle_grace=timedelta(seconds=2),
)

_DUE = "SELECT count(*) FROM account WHERE next_expire_time < now() + interval '1 hour'"


@dataclass
class Run:
    """What was asked and told, what the lanes did, and what the database has in the end."""

    load: Load
    journal: Journal
    database: Database
    violations: tuple[str, ...]
    lost_and_done: int
    """Batches whose COMMIT was not answered and that were carried out."""
    seconds: dict[str, float]


def run(database_url: str, seed: int, operations: int) -> Run:
    """Make so many calls, let all that is due happen, and read the database."""
    journal, began, seconds = Journal(), time.monotonic(), dict[str, float]()
    with pytest.MonkeyPatch.context() as monkeypatch:
        journal.observe(monkeypatch)
        load = asyncio.run(_make_calls(database_url, seed, operations, seconds))
    seconds["quiet"] = time.monotonic() - began
    done = journal.resolve(database_url)
    violations = verify(database_url).violations
    seconds["verified"] = time.monotonic() - began
    return Run(load, journal, Database(database_url), violations, done, seconds)


async def _make_calls(
    database_url: str, seed: int, operations: int, seconds: dict[str, float]
) -> Load:
    began = time.monotonic()
    hot, own = accounts(HOT, CALLERS, ACCOUNTS_EACH)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(database_url))
        urls = (database_url, proxy.url)
        engines = [await stack.enter_async_context(running(url, rules=RULES)) for url in urls]
        load = Load(engines, operations)
        await open_accounts(load, hot)
        for engine in engines:
            await stack.enter_async_context(_sweeping(database_url, engine))
        callers = [
            Caller(f"c{number}", load, names, hot, random.Random(f"{seed} {number}"))
            for number, names in enumerate(own)
        ]
        cutting = asyncio.create_task(_cut_commits(proxy, load, random.Random(seed)))
        await asyncio.gather(*(caller.run() for caller in callers))
        cutting.cancel()
        seconds["asked"] = time.monotonic() - began
        with psycopg.connect(database_url, autocommit=True) as connection:
            await until(lambda: connection.execute(_DUE).fetchone() == (0,), seconds=30)
    return load


async def _cut_commits(proxy: Proxy, load: Load, chance: random.Random) -> None:
    """Cut the line of the second server around a COMMIT, again and again."""
    while True:
        await load.more(OPERATIONS_BETWEEN_CUTS)
        proxy.cut_commits(chance.choice((Cut.BEFORE, Cut.AFTER, Cut.DURING)))
        await proxy.cut.wait()


@asynccontextmanager
async def _sweeping(database_url: str, engine: Engine) -> AsyncIterator[None]:
    reader = Reader(database_url, threads=1)
    sweeper = Sweeper(engine, reader, interval_seconds=0.25)
    sweeper.start()
    try:
        yield
    finally:
        await sweeper.stop()
        await reader.close()
