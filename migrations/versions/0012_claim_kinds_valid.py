"""Check the rows that were there before, without a lock that stops writers."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for table in ("claim", "account_claim"):
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT ck_{table}_kind")


def downgrade() -> None:
    kinds = "'DEBIT_ONCE', 'GRANT_ONCE', 'DEBIT', 'CAPTURE', 'EXTEND', 'REFUND_CHARGE'"
    for table in ("claim", "account_claim"):
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_kind, "
            f"ADD CONSTRAINT ck_{table}_kind CHECK (kind IN ({kinds})) NOT VALID"
        )
