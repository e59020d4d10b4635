"""What was acknowledged survives every crash, once; what is unknown is told by its key."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

import meterhold
from meterhold_server.storage import migrate
from meterhold_server.storage.evidence import Evidence
from meterhold_server.storage.session import Session
from meterhold_server.storage.verify import verify
from robustness.connections import clients
from robustness.database_apart import DatabaseApart
from robustness.load import ACCOUNTS, EntryName, Load
from support.service import ServerProcess

pytestmark = pytest.mark.slow

CALLERS = 16
BETWEEN_FAULTS = 120
"""Acknowledged calls before the first fault, between two, and after the last one."""


@pytest.fixture
def database() -> Iterator[DatabaseApart]:
    """A durable one, migrated and empty, on a server of its own."""
    with DatabaseApart() as database:
        migrate.upgrade(database.url)
        yield database


async def test_kill_9_of_the_server(database: DatabaseApart) -> None:
    with ServerProcess(database.url, allow_unsafe_database=False) as server:

        def crash() -> None:
            server.kill()
            server.wait_for("ended")
            server.restart()

        async with _load(server.address, database.url) as load:
            await _in_the_middle(load, 2, crash)
            assert load.faults, "no call met a crash"


async def test_immediate_restart_of_postgresql(database: DatabaseApart) -> None:
    with ServerProcess(database.url, allow_unsafe_database=False, workers=2) as server:
        async with _load(server.address, database.url) as load:
            await _in_the_middle(load, 2, database.immediate_restart)
        assert "batch_fault" in {event["event"] for event in server.events}


async def test_connections_to_postgresql_are_cut(database: DatabaseApart) -> None:
    """The process of the database goes, whatever it was doing: reading, writing or committing."""
    with (
        ServerProcess(database.url, allow_unsafe_database=False, workers=2) as server,
        psycopg.connect(database.url, autocommit=True) as connection,
    ):

        def crash() -> None:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'meterhold' AND datname = current_database()"
                " ORDER BY random() LIMIT 2"
            )

        async with _load(server.address, database.url) as load:
            await _in_the_middle(load, 25, crash, between=20)
        assert "batch_fault" in {event["event"] for event in server.events}


def test_a_transaction_number_is_given_again_after_a_crash(database: DatabaseApart) -> None:
    """So that a later transaction's COMMIT must not be taken for that of the lost one.

    PostgreSQL goes on with the first number that its log does not know of, on the same timeline.
    """
    lost = psycopg.connect(database.url)
    number = _transaction_number(lost)
    database.immediate_restart()
    lost.close()
    with psycopg.connect(database.url, autocommit=True) as other:
        while int(_transaction_number(other)) < int(number):
            pass
    after = Session(database.url)
    evidence = Evidence("entry", (str(uuid4()), 1), datetime.now(UTC))
    assert after.transaction_committed(number, evidence) is False
    after.close()


def _transaction_number(connection: psycopg.Connection[tuple[str]]) -> str:
    row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    return row[0]


@asynccontextmanager
async def _load(address: str, database_url: str) -> AsyncIterator[Load]:
    """A load, and then the proof that the ledger says what its callers were told."""
    load = Load()
    # Shorter than an outage: otherwise the clients would bridge it, and no caller would notice.
    async with clients(address, CALLERS, retries=True, timeout_seconds=0.5) as callers:
        async with asyncio.TaskGroup() as running:
            for number, client in enumerate(callers):
                running.create_task(load.run(number, client))
            yield load
            load.stop()
        await load.resolve(callers[0])
        entries = await _ledger(callers[0])
        holds = await _holds(callers[0])
    assert entries == load.expected_entries()
    assert holds == load.expected_holds()
    assert verify(database_url).violations == ()


async def _in_the_middle(
    load: Load, faults: int, crash: Callable[[], object], between: int = BETWEEN_FAULTS
) -> None:
    await load.acknowledged(between)
    for _ in range(faults):
        await asyncio.to_thread(crash)
        await load.acknowledged(between)


async def _ledger(client: meterhold.AsyncClient) -> dict[EntryName, list[int]]:
    """The amounts of all entries, by what names them: more than one amount is a double charge."""
    found: dict[EntryName, list[int]] = defaultdict(list)
    for account in ACCOUNTS:
        async for entry in client.list_entries(account, page_size=1000, timeout_seconds=10):
            name = (account, entry.kind, entry.reservation_id, entry.key)
            found[name].append(entry.amount_micros)
    return found


async def _holds(client: meterhold.AsyncClient) -> set[tuple[str, str]]:
    return {
        (account, reservation.reservation_id)
        for account in ACCOUNTS
        async for reservation in client.list_reservations(
            account, page_size=1000, timeout_seconds=10
        )
    }
