"""What was acknowledged survives every crash, once; what is unknown is told by its key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import psycopg
import pytest

from meterhold_server.storage import migrate
from meterhold_server.storage.evidence import Evidence
from meterhold_server.storage.session import Session
from robustness.checked_load import checked_load
from robustness.database_apart import DatabaseApart
from robustness.load import Load
from support.service import ServerProcess

pytestmark = pytest.mark.slow

# Less time than an outage takes: or the clients would bridge it, and no caller would notice.
impatient = partial(checked_load, timeout_seconds=0.5)
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

        async with impatient(server.address, database.url) as load:
            await _in_the_middle(load, 2, crash)
            assert load.faults, "no call met a crash"


async def test_immediate_restart_of_postgresql(database: DatabaseApart) -> None:
    with ServerProcess(database.url, allow_unsafe_database=False, workers=2) as server:
        async with impatient(server.address, database.url) as load:
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
                " WHERE application_name LIKE 'meterhold %' AND datname = current_database()"
                " ORDER BY random() LIMIT 2"
            )

        async with impatient(server.address, database.url) as load:
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


async def _in_the_middle(
    load: Load, faults: int, crash: Callable[[], object], between: int = BETWEEN_FAULTS
) -> None:
    await load.acknowledged(between)
    for _ in range(faults):
        await asyncio.to_thread(crash)
        await load.acknowledged(between)
