"""The failover of docs/operations.md, by its own commands, while callers go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from meterhold_server.embedded.system_user import SystemUser
from meterhold_server.storage import migrate
from robustness.checked_load import checked_load
from robustness.database_apart import DatabaseApart
from support.database import open_folder
from support.service import ServerProcess
from support.waiting import until

from .page import has_programs, run_block

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not has_programs("psql", "pg_basebackup"),
        reason="this PostgreSQL has no programs to make a standby with",
    ),
]

BETWEEN_STEPS = 300
"""Acknowledged calls before the primary is gone, and after the standby has taken over."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with one for the standby, in which the user of PostgreSQL may make its data."""
    with open_folder() as folder:
        standby = folder / "standby"
        standby.mkdir()
        SystemUser.for_data(standby / "data").own(standby)
        yield folder


async def test_a_synchronous_standby_has_all_that_was_acknowledged(folder: Path) -> None:
    standby = folder / "standby"
    with ExitStack() as gone, ExitStack() as running:
        primary_url = gone.enter_context(DatabaseApart(folder / "primary")).url
        migrate.upgrade(primary_url)
        run_block("standby", folder, PRIMARY_URL=primary_url, STANDBY=str(standby / "data"))
        standby_url = running.enter_context(DatabaseApart(standby)).url
        run_block("wait for the standby", folder, PRIMARY_URL=primary_url)
        await until(lambda: sync_state(primary_url) == "quorum")

        both = either(primary_url, standby_url)
        server = running.enter_context(ServerProcess(both, allow_unsafe_database=False))
        async with checked_load(server.address, standby_url) as load:
            await load.acknowledged(BETWEEN_STEPS)
            await asyncio.to_thread(gone.close)
            await asyncio.to_thread(run_block, "promote", folder, STANDBY_URL=standby_url)
            await load.acknowledged(BETWEEN_STEPS)
        assert "batch_fault" in {event["event"] for event in server.events}
        print(f"{len(load.calls)} calls, the longest {load.longest_seconds:.2f} s")  # noqa: T201
        assert migrate.upgrade(both) == migrate.upgrade(standby_url)


def sync_state(url: str) -> str | None:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT sync_state FROM pg_stat_replication").fetchone()
    return row[0] if row else None


def either(*urls: str) -> str:
    """A URL of whichever of them takes writes."""
    parts = [parse_qs(urlsplit(url).query) for url in urls]
    hosts, ports = (",".join(part[name][0] for part in parts) for name in ("host", "port"))
    return (
        f"postgresql://postgres@/meterhold?host={hosts}&port={ports}"
        "&target_session_attrs=read-write"
    )
