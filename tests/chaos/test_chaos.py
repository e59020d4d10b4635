"""A small part of `python -m chaos`, and the proof that it would see what it looks for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Final

import psycopg
import pytest
from psycopg import sql

from chaos.deployment import prepare
from chaos.plan import Fault, Plan, plan_of
from chaos.rounds import chaos
from robustness.database_apart import DatabaseApart

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))
OPERATIONS: Final = 2500


@pytest.fixture
def database() -> Iterator[DatabaseApart]:
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again
    with DatabaseApart() as database:
        prepare(database.url)
        yield database


def plan(*faults: Fault) -> Plan:
    """These faults, each of them once."""
    return plan_of(SEED, OPERATIONS, sure=faults, possible=[], crashes=0, others=0)


async def test_kills_and_cuts_around_commit_break_no_rule(database: DatabaseApart) -> None:
    faults = [
        Fault.SERVER_KILLED,
        Fault.COMMIT_CUT_BEFORE,
        Fault.COMMIT_CUT_AFTER,
        Fault.COMMIT_CUT_DURING,
        Fault.BACKEND_KILLED,
        Fault.SERVER_KILLED,
        Fault.POSTMASTER_KILLED,
    ]
    tally = await chaos(database, plan(*faults))
    assert tally.violations == []
    assert tally.crashes == 4
    assert tally.acknowledged > OPERATIONS / 2
    assert tally.unknown_applied > 0


async def test_a_database_that_loses_commits_is_found_out(database: DatabaseApart) -> None:
    """It answers COMMIT before the commit is on the disk, and the server is told to accept that."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '5s'")
        connection.execute("SELECT pg_reload_conf()")
    careless = plan(*[Fault.POSTMASTER_KILLED] * 3)
    for settings in careless.settings:
        settings["allow_unsafe_database"] = True
    tally = await chaos(database, careless)
    assert tally.rules["lost"]
