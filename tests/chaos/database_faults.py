"""What happens to the database: its processes, its locks and its disk."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psycopg

from chaos import disk
from chaos.deployment import Deployment
from chaos.hit import Hits, frozen
from chaos.plan import Fault
from support.waiting import until

_RECOVERY_SECONDS_MAX: Final = 60.0
_LANES: Final = (
    "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'meterhold %'"
    " AND datname = current_database() ORDER BY state = 'idle', random()"
)
_LOCK_SOME: Final = (
    "SELECT account_id FROM account WHERE account LIKE %s ORDER BY random() LIMIT 30 FOR UPDATE"
)
# A lane locks accounts in their order. It holds low ones when it waits for a high one.
_LOCK_HIGH: Final = (
    "WITH half AS (SELECT account_id FROM account WHERE account LIKE %s ORDER BY account_id DESC"
    " LIMIT 40) SELECT a.account_id FROM account a JOIN half USING (account_id) FOR UPDATE OF a"
)
_LOCK_LOW: Final = (
    "SELECT account_id FROM account WHERE account LIKE %s ORDER BY account_id LIMIT 40 FOR UPDATE"
)


class DatabaseFaults:
    """Of the one that all servers share."""

    def __init__(self, deployment: Deployment, accounts: str) -> None:
        """`accounts` is what the names of the accounts of the load begin with."""
        self._deployment = deployment
        self._database = deployment.database
        self._accounts = f"{accounts}-%"
        self.hits: Hits = {
            Fault.BACKEND_KILLED: self._kill_backend,
            Fault.BACKEND_FROZEN: self._freeze_backend,
            Fault.POSTMASTER_KILLED: self._kill_postmaster,
            Fault.DATABASE_RESTARTED: self._restart,
            Fault.LOCKS_HELD: self._hold_locks,
            Fault.DEADLOCK: self._deadlock,
            Fault.FSYNC_SLOW: self._slow_fsync,
            Fault.FSYNC_FAILED: self._fail_fsync,
            Fault.DISK_FULL: self._fill_disk,
        }

    async def _kill_backend(self, chance: random.Random) -> bool:
        async with self._deployment.database_lock:
            pids = await self._backends()
            if not pids:
                return False
            try:
                os.kill(pids[0], signal.SIGKILL)
            except ProcessLookupError:
                return False
            await self._recovered()
        return True

    async def _freeze_backend(self, chance: random.Random) -> bool:
        async with self._deployment.database_lock:
            pids = await self._backends()
        if not pids:
            return False
        await frozen(pids[0], chance.uniform(0.3, 2.0))
        return True

    async def _kill_postmaster(self, chance: random.Random) -> bool:
        async with self._deployment.database_lock:
            await asyncio.to_thread(self._database.kill_and_restart)
        return True

    async def _restart(self, chance: random.Random) -> bool:
        async with self._deployment.database_lock:
            await asyncio.to_thread(self._database.immediate_restart)
        return True

    async def _slow_fsync(self, chance: random.Random) -> bool:
        seconds = chance.uniform(0.1, 0.4)
        return await disk.inject(
            await self._backends(), disk.slow(seconds), chance.uniform(0.8, 2.0)
        )

    async def _fail_fsync(self, chance: random.Random) -> bool:
        async with self._deployment.database_lock:
            done = await disk.inject(await self._backends(), disk.FAILING, 1.5)
            await self._recovered()
        return done

    async def _fill_disk(self, chance: random.Random) -> bool:
        """Until the database cannot write its log. It ends then, and cannot even recover."""
        async with self._deployment.database_lock:
            try:
                done = await asyncio.to_thread(disk.write_until_full, self._database)
                await asyncio.sleep(chance.uniform(0.2, 1.0))
            finally:
                await asyncio.to_thread(self._database.free_disk)
            await self._recovered()
        return done

    async def _hold_locks(self, chance: random.Random) -> bool:
        """For longer than a lane waits for a lock."""
        seconds = chance.uniform(1.2, 2.5)

        def hold(connection: psycopg.Connection[Any]) -> None:
            connection.execute(_LOCK_SOME, [self._accounts])
            connection.execute("SELECT pg_sleep(%s)", [seconds])

        return await self._in_the_way(hold, "LockNotAvailable")

    async def _deadlock(self, chance: random.Random) -> bool:
        seconds = chance.uniform(0.05, 0.2)

        def cross(connection: psycopg.Connection[Any]) -> None:
            connection.execute("SET LOCAL deadlock_timeout = '10s'")  # The lane is to find out.
            connection.execute(_LOCK_HIGH, [self._accounts])
            connection.execute("SELECT pg_sleep(%s)", [seconds])
            connection.execute(_LOCK_LOW, [self._accounts])

        return await self._in_the_way(cross, "DeadlockDetected")

    async def _in_the_way(self, work: Callable[[psycopg.Connection[Any]], None], met: str) -> bool:
        """Do something in a session of ours. Answers whether a lane has met it, and says so."""

        def run() -> None:
            # Something else may strike the database meanwhile.
            with (
                suppress(psycopg.Error),
                psycopg.connect(self._database.url, connect_timeout=5) as connection,
            ):
                work(connection)
                connection.rollback()

        before = self._deployment.logged()[met]
        await asyncio.to_thread(run)
        return self._deployment.logged()[met] > before

    async def _backends(self) -> list[int]:
        """The sessions of the servers, those that do something first; none if it is away."""

        def pids() -> list[int]:
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self._database.url, connect_timeout=5) as connection,
            ):
                return [pid for (pid,) in connection.execute(_LANES).fetchall()]
            return []

        return await asyncio.to_thread(pids)

    async def _recovered(self) -> None:
        """Wait until the database takes connections; start it if it could not recover by itself."""

        def answers() -> bool:
            self._database.start_if_ended()
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(self._database.url, connect_timeout=5) as connection,
            ):
                connection.execute("SELECT pg_current_xact_id()")
                return True
            return False

        await until(lambda: asyncio.to_thread(answers), seconds=_RECOVERY_SECONDS_MAX)
