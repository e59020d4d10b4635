"""The restore drill of docs/operations.md, by its own commands, while callers go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

import meterhold
from meterhold import Entry
from meterhold_server.embedded.cluster import Cluster
from meterhold_server.embedded.postmaster import Postmaster
from meterhold_server.embedded.system_user import SystemUser
from meterhold_server.storage.verify import verify
from robustness.checked_load import checked_load
from robustness.database_apart import DatabaseApart
from robustness.load import ACCOUNTS, Call, Load
from support.database import open_folder
from support.service import ServerProcess

from .page import has_programs, run_block

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not has_programs("psql", "pg_basebackup", "pg_verifybackup", "pg_dump", "pg_restore"),
        reason="this PostgreSQL has no programs to make backups with",
    ),
]

BETWEEN_STEPS = 300
"""Acknowledged calls before the backup, between it and the moment to go back to, and after that."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which the user of PostgreSQL may make what it likes."""
    with open_folder() as folder:
        user = SystemUser.for_data(folder / "data")
        room = folder / "room"
        room.mkdir()
        user.own(room)
        yield room


@contextmanager
def embedded(directory: Path) -> Iterator[tuple[ServerProcess, str]]:
    """A server with its embedded PostgreSQL, and the URL of that."""
    with ServerProcess("", data_directory=directory, allow_unsafe_database=False) as server:
        postmaster = Postmaster.read(Cluster(directory).data)
        assert postmaster is not None
        host, port = postmaster.socket_directory, postmaster.port
        yield server, f"postgresql://postgres@/meterhold?host={host}&port={port}"


async def test_back_to_a_moment(folder: Path) -> None:
    """A base backup and archived WAL, under load. After the moment is what must be gone."""
    names = {name: str(folder / name.lower()) for name in ("ARCHIVE", "BACKUP")}
    restored = folder / "again"
    for made in (folder / "archive", restored):
        made.mkdir()
        SystemUser.for_data(made / "data").own(made)

    with embedded(folder / "first") as (server, url):
        run_block("archive the WAL", folder, METERHOLD_DATABASE_URL=url, **names)
        assert server.terminate() == 0
        server.restart()
        async with checked_load(server.address, url) as load:
            await load.acknowledged(BETWEEN_STEPS)
            await run("base backup", folder, METERHOLD_DATABASE_URL=url, **names)
            await load.acknowledged(BETWEEN_STEPS)
            before = [call for call in load.calls if call.told == "ok"]
            await run("restore point", folder, METERHOLD_DATABASE_URL=url)
            await load.acknowledged(BETWEEN_STEPS)
        assert load.faults == {}
        async with meterhold.AsyncClient(server.address) as client:
            all_there_was = await ledger(client)

    run_block("restore", folder, RESTORED=str(restored / "data"), **names)
    with embedded(restored) as (server, url):
        assert verify(url).clean
        async with meterhold.AsyncClient(server.address) as client:
            await check_restored(client, load, before, all_there_was)
        assert verify(url).clean


async def test_back_to_a_dump(folder: Path) -> None:
    dump = str(folder / "dump")
    with embedded(folder / "first") as (server, url):
        async with checked_load(server.address, url) as load:
            await load.acknowledged(BETWEEN_STEPS)
            before = [call for call in load.calls if call.told == "ok"]
            await run("dump", folder, METERHOLD_DATABASE_URL=url, DUMP=dump)
            await load.acknowledged(BETWEEN_STEPS)
        async with meterhold.AsyncClient(server.address) as client:
            all_there_was = await ledger(client)

    with DatabaseApart() as empty:
        run_block("restore the dump", folder, RESTORED_URL=empty.url, DUMP=dump)
        assert verify(empty.url).clean
        with ServerProcess(empty.url, allow_unsafe_database=False) as server:
            async with meterhold.AsyncClient(server.address) as client:
                await check_restored(client, load, before, all_there_was)
        assert verify(empty.url).clean
        refuses_to_forget(empty.url)


async def check_restored(
    client: meterhold.AsyncClient,
    load: Load,
    before: list[Call],
    all_there_was: dict[str, list[Entry]],
) -> None:
    """The ledger ends after all of `before`, and goes on as if what is gone had never been."""
    found = await ledger(client)
    for account, entries in found.items():
        assert entries == all_there_was[account][: len(entries)], "not what was written"
    assert found != all_there_was, "nothing was to be lost: the drill shows nothing"

    for call in before:
        assert answered_again(await call.send(client)) == answered_again(call.answer)
    assert await ledger(client) == found, "a key that was used was done anew"

    there = {(each.kind, each.key) for entries in found.values() for each in entries}
    lost = next(
        call
        for call in load.calls
        if call.told == "ok" and call.key and not call.reservation_id
        if (call.kind, call.key) not in there
    )
    done_anew = await lost.send(client)
    assert not done_anew.replayed
    assert done_anew.entry.amount_micros == lost.micros


def answered_again(answer: Any) -> Any:
    """An answer but for what tells a first one from a later one."""
    same: dict[str, Any] = {"replayed": True}
    if isinstance(answer, meterhold.ReserveResult):
        same["created"] = False
    if isinstance(answer, meterhold.DebitResult):
        same["status"] = meterhold.DebitStatus.REPLAYED
    return replace(answer, **same)


def refuses_to_forget(url: str) -> None:
    """The fences came along."""
    with psycopg.connect(url) as owner:
        owner.execute("SET meterhold.maintenance = 'on'")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            owner.execute("DELETE FROM entry")


async def ledger(client: meterhold.AsyncClient) -> dict[str, list[Entry]]:
    """The entries of each account, oldest first."""
    return {
        account: sorted(
            [entry async for entry in client.list_entries(account, page_size=1000)],
            key=lambda entry: entry.seq,
        )
        for account in ACCOUNTS
    }


async def run(name: str, folder: Path, **variables: str) -> None:
    await asyncio.to_thread(run_block, name, folder, **variables)
