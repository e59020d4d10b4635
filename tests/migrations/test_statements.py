"""What every migration keeps to, so that servers of two versions can work beside it."""

from __future__ import annotations

from types import ModuleType

import pytest

from .scripts import migrations
from .statements import contractions, stalls, statements

FIRST = "0026"
"""The first migration that says whose servers it serves."""


MIGRATIONS = [each for each in migrations() if each.revision >= FIRST]


@pytest.mark.parametrize("migration", MIGRATIONS, ids=lambda each: each.revision)
class TestEachMigration:
    def test_says_whose_servers_it_serves(self, migration: ModuleType) -> None:
        assert FIRST <= migration.oldest_served_revision <= migration.revision

    def test_does_not_stall_writers(self, migration: ModuleType) -> None:
        assert stalls(statements(migration)) == []

    def test_serves_whom_it_says_it_serves(self, migration: ModuleType) -> None:
        if migration.oldest_served_revision <= migration.down_revision:
            assert contractions(statements(migration)) == []


def test_the_window_never_grows_backward() -> None:
    """What was taken from servers once does not come back."""
    windows = [each.oldest_served_revision for each in MIGRATIONS]
    assert windows == sorted(windows)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE lot",
        "ALTER TABLE lot DROP COLUMN source",
        "ALTER TABLE lot RENAME TO grants",
        "ALTER TABLE lot RENAME COLUMN source TO origin",
        "ALTER TABLE lot ALTER COLUMN priority TYPE BIGINT",
        "ALTER TABLE lot ALTER COLUMN source SET NOT NULL",
        "ALTER TABLE lot ALTER COLUMN revoked_micros DROP DEFAULT",
        "ALTER TABLE lot ADD COLUMN note TEXT NOT NULL",
        "REVOKE UPDATE ON lot FROM meterhold_app",
    ],
)
def test_what_contracts(statement: str) -> None:
    assert len(contractions([statement])) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX ix_lot_note ON lot (note)",
        "CREATE UNIQUE INDEX ix_lot_note ON lot (note)",
        "CREATE INDEX CONCURRENTLY ix_lot_note ON lot (note)",
        "ALTER TABLE lot ADD CONSTRAINT ck_lot_note CHECK (note <> '')",
        "ALTER TABLE lot ADD CONSTRAINT fk_lot FOREIGN KEY (account_id) REFERENCES account",
        "ALTER TABLE lot ADD CONSTRAINT uq_lot_note UNIQUE (note)",
        "ALTER TABLE lot ADD PRIMARY KEY (note)",
        "ALTER TABLE lot ADD COLUMN number BIGSERIAL",
        "ALTER TABLE lot ADD COLUMN note UUID DEFAULT gen_random_uuid()",
        "ALTER TABLE lot ALTER COLUMN priority TYPE BIGINT",
        "UPDATE lot SET note = ''",
        "DELETE FROM lot WHERE NOT live",
        "LOCK TABLE lot",
    ],
)
def test_what_stalls(statement: str) -> None:
    assert len(stalls([statement])) == 1


@pytest.mark.parametrize(
    "sql",
    [
        ["ALTER TABLE lot ADD COLUMN note TEXT"],
        ["ALTER TABLE lot ADD COLUMN note TEXT DEFAULT '' NOT NULL"],
        ["ALTER TABLE lot ADD CONSTRAINT ck_lot_note CHECK (note <> '') NOT VALID"],
        ["ALTER TABLE lot VALIDATE CONSTRAINT ck_lot_note"],
        ["ALTER TABLE lot ADD CONSTRAINT uq_lot_note UNIQUE USING INDEX uq_lot_note"],
        [
            "DROP INDEX CONCURRENTLY IF EXISTS ix_lot_note",
            "CREATE INDEX CONCURRENTLY ix_lot_note ON lot (note)",
        ],
        [
            "CREATE TABLE note ( text TEXT NOT NULL )",
            "CREATE INDEX ix_note_text ON note (text)",
            "GRANT SELECT, INSERT ON note TO meterhold_app",
        ],
    ],
)
def test_what_may_be_done_beside_servers(sql: list[str]) -> None:
    assert (contractions(sql), stalls(sql)) == ([], [])


def test_a_constraint_is_not_validated_where_it_is_added() -> None:
    added = "ALTER TABLE lot ADD CONSTRAINT ck_lot_note CHECK (note <> '') NOT VALID"
    validated = "ALTER TABLE lot VALIDATE CONSTRAINT ck_lot_note"
    [told] = stalls([added, validated])
    assert "validates under the lock" in told
