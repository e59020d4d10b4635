"""The version after this one, made for a test: its migrations, and its servers.

    python tests/support/next_version.py FOLDER serve

is `meterhold-server serve` of that version.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meterhold_server.storage import migrate, tables

REVISION: Final = f"{int(tables.REVISION) + 1:04}"

_MIGRATION: Final = '''"""Made for a test."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
oldest_served_revision = "{oldest}"


def upgrade():
{upgrade}


def downgrade():
    pass
'''
EXPANDS: Final = """
    op.add_column("account", sa.Column("note", sa.Text(), server_default="none", nullable=False))
    op.add_column("entry", sa.Column("note", sa.Text()))
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_entry_note")
        op.create_index(
            "ix_entry_note", "entry", ["account_id", "note"], postgresql_concurrently=True
        )
"""
"""New columns of the tables that every call writes, and an index that is built beside them."""

CONTRACTS: Final = """
    op.drop_column("lot", "source")
"""


@dataclass(frozen=True)
class NextVersion:
    """Its migrations are in `folder`."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, upgrade: str = EXPANDS, *, serves_this: bool = True) -> NextVersion:
        """Copy the migrations, and add one that does `upgrade`."""
        migrations = folder / "migrations"
        shutil.copytree(migrate.migrations_directory(), migrations)
        text = _MIGRATION.format(
            revision=REVISION,
            before=tables.REVISION,
            oldest=tables.REVISION if serves_this else REVISION,
            upgrade=upgrade,
        )
        (migrations / "versions" / f"{REVISION}_next.py").write_text(text)
        return cls(migrations)

    @property
    def program(self) -> tuple[str, ...]:
        """What to give Python instead of `-m meterhold_server`."""
        return (__file__, str(self.folder))


def main(folder: str, *arguments: str) -> int:
    """Be the command `meterhold-server` of the next version."""
    # Before anything takes the number over.
    tables.REVISION = REVISION
    migrate.migrations_directory = lambda: Path(folder)
    from meterhold_server import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
