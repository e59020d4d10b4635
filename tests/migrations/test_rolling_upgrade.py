"""A version is followed by the next one while callers go on, and refuses what it cannot read."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

import meterhold
from meterhold_server.storage import migrate, tables
from robustness.checked_load import checked_load
from robustness.database_apart import DatabaseApart
from support.next_version import CONTRACTS, REVISION, NextVersion
from support.service import ServerProcess
from support.waiting import until

pytestmark = pytest.mark.slow

BETWEEN_STEPS = 300
"""Acknowledged calls before the first step, between two, and after the last one."""

MIGRATION_WAITS = (
    "SELECT count(*) FROM pg_locks"
    " WHERE relation = 'account'::regclass AND mode = 'AccessExclusiveLock' AND NOT granted"
)


@pytest.fixture
def database() -> Iterator[DatabaseApart]:
    """A durable one, migrated and empty, on a server of its own."""
    with DatabaseApart() as database:
        migrate.upgrade(database.url)
        yield database


async def test_the_next_version_takes_over_while_callers_go_on(
    database: DatabaseApart, tmp_path: Path
) -> None:
    """Migrate, start the new beside the old, drain the old. Somebody reads all the while."""
    following = NextVersion.make(tmp_path)
    old, new = free_address(), free_address()
    with ExitStack() as servers:
        this = servers.enter_context(server(database, old))
        async with checked_load(f"ipv4:{old},{new}", database.url) as load:
            await load.acknowledged(BETWEEN_STEPS)
            with psycopg.connect(database.url) as reader, psycopg.connect(database.url) as looker:
                reader.execute("SELECT count(*) FROM account")  # and the transaction stays open
                looker.autocommit = True
                migrating = asyncio.create_task(migrated(following, database.url))
                await until(lambda: looker.execute(MIGRATION_WAITS).fetchone() != (0,))
                await load.acknowledged(BETWEEN_STEPS)
                assert not migrating.done(), "the lock was not to be had"
            assert (await migrating) == (0, f"The schema is at revision {REVISION}.\n")
            await load.acknowledged(BETWEEN_STEPS)

            servers.enter_context(
                await asyncio.to_thread(server, database, new, program=following.program)
            )
            await load.acknowledged(BETWEEN_STEPS)
            assert await asyncio.to_thread(this.terminate) == 0
            await asyncio.to_thread(this.restart)  # as after a crash in the middle of it all
            await load.acknowledged(BETWEEN_STEPS)
            assert await asyncio.to_thread(this.terminate) == 0
            await load.acknowledged(BETWEEN_STEPS)
        assert load.faults == {}
        print(f"{len(load.calls)} calls, the longest {load.longest_seconds:.2f} s")  # noqa: T201


async def test_a_schema_that_contracted_past_this_version_is_refused(
    database_url: str, tmp_path: Path
) -> None:
    following = NextVersion.make(tmp_path, CONTRACTS, serves_this=False)
    assert (await migrated(following, database_url))[0] == 0
    code, told = await command(database_url, "-m", "meterhold_server", "serve")
    assert code == 1
    assert (
        f"The database is refused: it is at migration {REVISION}, which serves servers of"
        f" {REVISION} and later, and this one is of {tables.REVISION}: start a newer version"
    ) in told
    assert "Traceback" not in told


async def test_a_schema_does_not_contract_past_a_server_at_work(
    database_url: str, tmp_path: Path
) -> None:
    following = NextVersion.make(tmp_path, CONTRACTS, serves_this=False)
    with ServerProcess(database_url) as this:
        code, told = await migrated(following, database_url)
        assert (code, f"some are connected (meterhold {tables.REVISION}): stop them" in told) == (
            1,
            True,
        )
        assert "Traceback" not in told
        async with meterhold.AsyncClient(this.address) as client:
            await client.grant_once("alice", 100, idempotency_key="gift")
    answer = await migrated(following, database_url)
    assert answer == (0, f"The schema is at revision {REVISION}.\n")


async def test_this_version_leaves_the_schema_of_the_next_one_alone(
    database_url: str, tmp_path: Path
) -> None:
    """Where each server migrates before it starts, an old one that is started again does so too."""
    following = NextVersion.make(tmp_path)
    await migrated(following, database_url)
    answer = await command(database_url, "-m", "meterhold_server", "migrate")
    assert answer == (0, f"The schema is at revision {REVISION}.\n")
    code, told = await command(
        database_url, "-m", "meterhold_server", "migrate", "--down", "--revision", "-1"
    )
    assert (code, "use the version that migrated" in told) == (1, True)


def server(
    database: DatabaseApart, address: str, program: tuple[str, ...] = ("-m", "meterhold_server")
) -> ServerProcess:
    return ServerProcess(
        database.url, program=program, address=address, allow_unsafe_database=False
    )


async def migrated(version: NextVersion, database_url: str) -> tuple[int | None, str]:
    return await command(database_url, *version.program, "migrate")


async def command(database_url: str, *arguments: str) -> tuple[int | None, str]:
    """Its exit code, and what it printed."""
    own = {"METERHOLD_DATABASE_URL": database_url, "METERHOLD_ALLOW_UNSAFE_DATABASE": "true"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        env=os.environ | own,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
