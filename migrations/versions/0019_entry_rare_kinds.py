"""Pages of the kinds of entries that are few among very many charges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

INDEX = "ix_entry_rare_kinds"


def upgrade() -> None:
    # Concurrently, as in 0018.
    with op.get_context().autocommit_block():
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {INDEX}")
        op.create_index(
            INDEX,
            "entry",
            ["account_id", "kind", "seq"],
            postgresql_where=sa.text("kind NOT IN ('DEBIT', 'CAPTURE')"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(INDEX, "entry")
