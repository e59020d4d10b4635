"""The migrations lead to the tables that the code describes, one by one, and back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import psycopg
import pytest

from meterhold_server.storage import migrate, tables
from support.database import DatabaseServer, name_of
from support.waiting import until

from .catalog import ONLY_IN_MIGRATIONS, Catalog, catalog
from .scripts import migrations

REVISIONS = [migration.revision for migration in migrations()]


WAITED_LONG = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid'"
    " AND clock_timestamp() - waitstart > interval '300 ms'"
)
"""Longer than a lock in a transaction is waited for."""


@pytest.fixture
def empty_url(database_server: DatabaseServer) -> Iterator[str]:
    url = database_server.create_database()
    yield url
    database_server.drop_database(name_of(url))


def revision_of(url: str) -> str | None:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


def tables_only(found: Catalog) -> Catalog:
    return {name: rows for name, rows in found.items() if name not in ONLY_IN_MIGRATIONS}


def test_the_head_is_the_revision_that_the_code_needs() -> None:
    assert REVISIONS[-1] == tables.REVISION


def test_they_form_one_line() -> None:
    assert [f"{number:04}" for number in range(1, len(REVISIONS) + 1)] == REVISIONS


@pytest.mark.slow
def test_they_lead_to_exactly_the_tables_of_the_code(database_url: str, empty_url: str) -> None:
    tables.metadata.create_all(migrate.engine(empty_url))
    created, migrated = catalog(empty_url), catalog(database_url)
    assert {row[0] for row in created["tables"]} == set(tables.metadata.tables)
    for kind, rows in tables_only(created).items():
        assert tables_only(migrated)[kind] == rows, kind


@pytest.mark.slow
def test_each_can_be_taken_alone_and_back(empty_url: str) -> None:
    """Back from each leads to what was there before it, and forward again to the same."""
    before = catalog(empty_url)
    for revision in REVISIONS:
        migrate.upgrade(empty_url, revision)
        assert revision_of(empty_url) == revision
        after = catalog(empty_url)
        assert after != before
        migrate.downgrade(empty_url, "-1")
        assert without_revoked(catalog(empty_url)) == without_revoked(before)
        migrate.upgrade(empty_url, revision)
        assert catalog(empty_url) == after
        before = after
    assert tables_only(before) == tables_only(catalog(empty_url))


@pytest.mark.slow
def test_back_to_base_leaves_nothing_behind(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    head = catalog(empty_url)
    migrate.downgrade(empty_url)
    assert revision_of(empty_url) is None
    left = catalog(empty_url)
    assert {kind: rows for kind, rows in left.items() if rows} == {}
    migrate.upgrade(empty_url)
    assert catalog(empty_url) == head


@pytest.mark.slow
def test_a_migrated_database_is_left_alone(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    before = catalog(empty_url)
    migrate.upgrade(empty_url)
    assert catalog(empty_url) == before


@pytest.mark.slow
def test_one_waits_only_briefly_for_a_lock(empty_url: str) -> None:
    """Who waits for a lock stalls all that come after; better to ask again."""
    migrate.upgrade(empty_url)
    with psycopg.connect(empty_url) as holder:
        for name in tables.metadata.tables:
            holder.execute(f"LOCK TABLE {name} IN SHARE MODE".encode())
        with pytest.raises(migrate.MigrationError) as refused:
            migrate.downgrade(empty_url, "-1", wait_seconds_max=0.01)
    assert "another session had the lock" in str(refused.value)
    assert "lock timeout" in str(refused.value)
    assert revision_of(empty_url) == tables.REVISION


@pytest.mark.slow
def test_one_asks_for_its_lock_until_it_gets_it(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(empty_url)
    pauses = []
    with psycopg.connect(empty_url) as holder:
        holder.execute("LOCK TABLE schema_window IN SHARE MODE")

        def pause(*_: float) -> float:
            pauses.append(revision_of(empty_url))
            holder.rollback()
            return 0.0

        monkeypatch.setattr(random, "uniform", pause)
        assert migrate.downgrade(empty_url, "-1") == REVISIONS[-2]
    assert pauses == [REVISIONS[-1]]


@pytest.mark.slow
async def test_one_waits_for_those_whom_it_does_not_stand_in_the_way_of(empty_url: str) -> None:
    """An index that is built concurrently waits for every older transaction, and stops nobody."""
    migrate.upgrade(empty_url, "0017")
    with psycopg.connect(empty_url) as older, psycopg.connect(empty_url) as looker:
        older.execute("LOCK TABLE entry IN ROW EXCLUSIVE MODE")  # as who writes to it
        looker.autocommit = True
        migrating = asyncio.create_task(
            asyncio.to_thread(migrate.upgrade, empty_url, "0018", wait_seconds_max=0.01)
        )
        await until(lambda: looker.execute(WAITED_LONG).fetchone() != (0,))
        older.rollback()
    assert await migrating == "0018"


@pytest.mark.slow
async def test_they_run_one_after_the_other(empty_url: str) -> None:
    """As where each server of several migrates before it starts."""
    both = [asyncio.to_thread(migrate.upgrade, empty_url) for _ in range(2)]
    assert await asyncio.gather(*both) == [tables.REVISION] * 2


@pytest.mark.slow
def test_another_migration_is_waited_for_no_longer_than_told(empty_url: str) -> None:
    with psycopg.connect(empty_url) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrate._ALONE,))
        with pytest.raises(migrate.MigrationError, match="another migration"):
            migrate.upgrade(empty_url, wait_seconds_max=0.01)


@pytest.mark.slow
def test_a_database_of_a_newer_version_is_left_alone(database_url: str) -> None:
    newer(database_url, "9999")
    assert migrate.upgrade(database_url) == "9999"
    with pytest.raises(migrate.MigrationError, match="use the version that migrated"):
        migrate.downgrade(database_url, "-1")


def test_a_database_that_is_away_is_an_error_that_says_so() -> None:
    with pytest.raises(migrate.MigrationError, match="refused"):
        migrate.upgrade("postgresql://postgres@127.0.0.1:1/none")


@pytest.mark.slow
def test_the_window_is_that_of_the_revision(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    with psycopg.connect(empty_url) as connection:
        window = connection.execute("SELECT * FROM schema_window").fetchall()
    assert window == [(migrations()[-1].oldest_served_revision,)]


def newer(url: str, revision: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))


def without_revoked(found: Catalog) -> Catalog:
    """An owner whose grants were revoked has them listed where they were implied before."""
    return {kind: rows for kind, rows in found.items() if kind != "grants"}
