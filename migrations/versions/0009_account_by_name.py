"""Pages of the accounts of a namespace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # In the order of bytes, whatever the database's own order is: a prefix is then a range.
    by_name: list[str | sa.TextClause] = [
        "namespace",
        sa.text('account COLLATE "C"'),
        sa.text('unit COLLATE "C"'),
    ]
    op.create_index("ix_account_by_name", "account", by_name)


def downgrade() -> None:
    op.drop_index("ix_account_by_name", "account")
