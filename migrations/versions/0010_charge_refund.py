"""How much of each charge has been given back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

ROLE = "meterhold_app"


def upgrade() -> None:
    op.create_table(
        "charge_refund",
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("charge_seq", sa.BigInteger(), nullable=False),
        sa.Column("refunded_micros", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("refunded_micros > 0", name=op.f("ck_charge_refund_something")),
        sa.PrimaryKeyConstraint("account_id", "charge_seq", name=op.f("pk_charge_refund")),
        comment="How much of a charge has been given back by RefundCharge",
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON charge_refund TO {ROLE}")


def downgrade() -> None:
    op.drop_table("charge_refund")
