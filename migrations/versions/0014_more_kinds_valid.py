"""Check the rows that were there before, without a lock that stops writers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

CHECKS = (
    ("entry", "kind"),
    ("entry", "sign"),
    ("entry", "something"),
    ("claim", "kind"),
    ("account_claim", "kind"),
)


def upgrade() -> None:
    for table, name in CHECKS:
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_{name}")


def downgrade() -> None:
    named = sa.text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name")
    for table, name in CHECKS:
        constraint = f"ck_{table}_{name}"
        rule = op.get_bind().execute(named, {"name": constraint}).scalar_one()
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {constraint}, "
            f"ADD CONSTRAINT {constraint} {rule} NOT VALID"
        )
