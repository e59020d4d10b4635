"""What becomes of a lot beyond being spent. With defaults, for servers that do not know of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"

COLUMNS = ("expired_micros", "repaid_micros", "revoked_micros", "revoked_here_micros")


def upgrade() -> None:
    zero = sa.text("0")
    for name in COLUMNS:
        op.add_column("lot", sa.Column(name, sa.BigInteger(), nullable=False, server_default=zero))
    op.add_column("lot", sa.Column("revocations", JSONB(none_as_null=True)))
    op.execute(
        "UPDATE lot SET expired_micros = written_off.micros FROM ("
        " SELECT account_id, related_seq AS seq, -sum(amount_micros) AS micros"
        " FROM entry WHERE kind = 'EXPIRY' GROUP BY account_id, related_seq) AS written_off"
        " WHERE (lot.account_id, lot.seq) = (written_off.account_id, written_off.seq)"
    )
    op.execute(
        "ALTER TABLE lot DROP CONSTRAINT ck_lot_within_granted, "
        "ADD CONSTRAINT ck_lot_within_granted CHECK ("
        "available_micros >= 0 AND held_micros >= 0 AND expired_micros >= 0"
        " AND revoked_here_micros >= 0"
        " AND available_micros + held_micros + expired_micros + revoked_here_micros"
        " <= granted_micros) NOT VALID, "
        "ADD CONSTRAINT ck_lot_revoked CHECK ("
        "revoked_here_micros <= revoked_micros AND revoked_micros + expired_micros"
        " <= granted_micros) NOT VALID, "
        "ADD CONSTRAINT ck_lot_repaid CHECK (repaid_micros >= 0) NOT VALID"
    )
    for name in ("within_granted", "revoked", "repaid"):
        op.execute(f"ALTER TABLE lot VALIDATE CONSTRAINT ck_lot_{name}")


def downgrade() -> None:
    op.execute(
        "ALTER TABLE lot DROP CONSTRAINT ck_lot_repaid, DROP CONSTRAINT ck_lot_revoked, "
        "DROP CONSTRAINT ck_lot_within_granted, "
        "ADD CONSTRAINT ck_lot_within_granted CHECK (available_micros >= 0"
        " AND held_micros >= 0 AND available_micros + held_micros <= granted_micros)"
    )
    for name in ("revocations", *reversed(COLUMNS)):
        op.drop_column("lot", name)
