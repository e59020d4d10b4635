"""Find what all accounts wrote in a range of time. A BRIN index costs an insert next to nothing."""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"

INDEX = "ix_entry_create_time"


def upgrade() -> None:
    # Concurrently: the ledger is long, and writers must not wait for all of it to be read. An index
    # that such a build left behind when it failed is invalid, and made again.
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.create_index(
            INDEX,
            "entry",
            ["create_time"],
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(INDEX, "entry")
