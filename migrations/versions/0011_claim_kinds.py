"""Keys of RefundCharge. Rows that are there already are checked by the next migration."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

BEFORE = "'DEBIT_ONCE', 'GRANT_ONCE', 'DEBIT', 'CAPTURE', 'EXTEND'"
AFTER = f"{BEFORE}, 'REFUND_CHARGE'"


def upgrade() -> None:
    _allow(f"({AFTER})) NOT VALID")


def downgrade() -> None:
    """Fails if such keys have been used: they must not be forgotten."""
    _allow(f"({BEFORE}))")


def _allow(kinds: str) -> None:
    for table in ("claim", "account_claim"):
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_kind, "
            f"ADD CONSTRAINT ck_{table}_kind CHECK (kind IN {kinds}"
        )
