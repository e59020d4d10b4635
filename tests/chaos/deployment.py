"""What is at stake: servers, each with a proxy between it and the one database they share."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import Any, Final

import psycopg
from psycopg import sql

import meterhold
from chaos import wrong_clock
from meterhold_server.prove.history import Violation
from meterhold_server.storage import migrate
from robustness.database_apart import DatabaseApart
from support.proxy import Proxy
from support.service import ServerProcess

CLOCK_ERROR_SECONDS: Final = 3600.0
_START_SECONDS_MAX: Final = 60.0
_BUGS: Final = ("call_failed", "operation_failed")
"""What a server logs when it answers INTERNAL, or should."""


class Server:
    """A process whose clock is wrong, and its proxy. Hold `process_lock` to kill or freeze it.

    Hold `line_lock` to meddle with what passes through the proxy.
    """

    def __init__(self, process: ServerProcess, proxy: Proxy) -> None:
        self.process = process
        self.proxy = proxy
        self.process_lock = asyncio.Lock()
        self.line_lock = asyncio.Lock()

    async def kill(self) -> None:
        await asyncio.to_thread(self.process.kill)

    async def start_again(self) -> None:
        """Until it serves. It ends at once if the database is away, as it should."""
        give_up = time.monotonic() + _START_SECONDS_MAX
        while True:
            try:
                return await asyncio.to_thread(self.process.restart)
            except (AssertionError, queue.Empty):
                await self.kill()
                if time.monotonic() > give_up:
                    raise


class Deployment:
    """Servers on one database. `database_lock` is held by whoever stops or starts that."""

    def __init__(self, database: DatabaseApart, servers: Sequence[Server]) -> None:
        self.database = database
        self.servers = servers
        self.database_lock = asyncio.Lock()

    @asynccontextmanager
    async def clients(
        self, timeout_seconds: float, attempt_timeout_seconds: float, *, spread: int = 1
    ) -> AsyncIterator[list[meterhold.AsyncClient]]:
        """One that knows each server alone, and as many as `spread` that know them all."""
        addresses = [server.process.address for server in self.servers]
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    meterhold.AsyncClient(
                        target,
                        timeout_seconds=timeout_seconds,
                        attempt_timeout_seconds=attempt_timeout_seconds,
                    )
                )
                for target in (*addresses, *[addresses] * spread)
            ]

    def logged(self) -> Counter[str]:
        """How often the servers met each event, and each cause of a batch that had to wait."""
        met: Counter[str] = Counter()
        for event in self._events():
            met[event["event"]] += 1
            if event["event"] == "batch_fault":
                met[event["error"].partition("(")[0]] += 1
            elif event["event"] == "outcome_resolved":
                met[f"committed {event['committed']}"] += 1
        return met

    def bugs(self) -> Iterator[Violation]:
        """What the servers logged that no sound one does."""
        for event in self._events():
            if event["event"] in _BUGS or "Traceback" in str(event.get("text", "")):
                yield Violation("broken", "", "", f"a server logged {event}")

    def _events(self) -> Iterator[dict[str, Any]]:
        for server in self.servers:
            yield from server.process.events


def prepare(url: str) -> None:
    """Make an empty database one for servers, of which one that meets a deadlock soon sees it."""
    migrate.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET deadlock_timeout = 100").format(name))
        # The disk is small.
        connection.execute("ALTER SYSTEM SET max_wal_size = '256MB'")
        connection.execute("SELECT pg_reload_conf()")


@asynccontextmanager
async def deployed(
    database: DatabaseApart, settings: Sequence[dict[str, object]]
) -> AsyncIterator[Deployment]:
    """Start a server with each of the settings. Their clocks are wrong, in turn to either side."""
    servers: list[Server] = []
    try:
        async with AsyncExitStack() as stack:
            errors = cycle([CLOCK_ERROR_SECONDS, -CLOCK_ERROR_SECONDS])
            for each, error_seconds in zip(settings, errors, strict=False):
                proxy = await stack.enter_async_context(Proxy(database.url))
                process = await asyncio.to_thread(_start, proxy.url, error_seconds, each)
                servers.append(Server(process, proxy))
            yield Deployment(database, servers)
            for server in servers:
                await asyncio.to_thread(server.process.terminate)
    finally:
        for server in servers:
            await server.kill()


def _start(url: str, error_seconds: float, settings: dict[str, object]) -> ServerProcess:
    usual = {
        "allow_unsafe_database": False,
        "log_calls": "none",
        wrong_clock.SECONDS_SETTING: error_seconds,
    }
    return ServerProcess(url, program=("-m", wrong_clock.__name__), **(usual | settings))
