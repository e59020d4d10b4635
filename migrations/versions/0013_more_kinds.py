"""Further kinds of entries and keys. The next migration checks the rows that are there already."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

ENTRIES = "'GRANT', 'DEBIT', 'CAPTURE', 'EXPIRY', 'EXPIRY_CHARGE', 'REFUND'"
MORE_ENTRIES = f"{ENTRIES}, 'ALLOWANCE', 'REVOCATION', 'REINSTATEMENT', 'CORRECTION'"
CLAIMS = "'DEBIT_ONCE', 'GRANT_ONCE', 'DEBIT', 'CAPTURE', 'EXTEND', 'REFUND_CHARGE'"
MORE_CLAIMS = f"{CLAIMS}, 'GRANT_AFTER_TOMBSTONE'"


def upgrade() -> None:
    positive = "'GRANT', 'REFUND', 'ALLOWANCE', 'REINSTATEMENT'"
    _check("entry", "kind", f"kind IN ({MORE_ENTRIES})", "NOT VALID")
    _check(
        "entry",
        "sign",
        f"(amount_micros > 0) = (kind IN ({positive})) OR kind = 'CORRECTION'",
        "NOT VALID",
    )
    _check(
        "entry",
        "something",
        "seq > 0 AND (amount_micros <> 0 OR kind = 'CORRECTION')",
        "NOT VALID",
    )
    for table in ("claim", "account_claim"):
        _check(table, "kind", f"kind IN ({MORE_CLAIMS})", "NOT VALID")


def downgrade() -> None:
    """Fails if such entries or keys have been written: they must not be forgotten."""
    for table in ("claim", "account_claim"):
        _check(table, "kind", f"kind IN ({CLAIMS})")
    _check("entry", "something", "seq > 0 AND amount_micros <> 0")
    _check("entry", "sign", "(amount_micros > 0) = (kind IN ('GRANT', 'REFUND'))")
    _check("entry", "kind", f"kind IN ({ENTRIES})")


def _check(table: str, name: str, rule: str, valid: str = "") -> None:
    op.execute(
        f"ALTER TABLE {table} DROP CONSTRAINT ck_{table}_{name}, "
        f"ADD CONSTRAINT ck_{table}_{name} CHECK ({rule}) {valid}"
    )
