"""What each grant put in and what is left of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "lot",
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("granted_micros", sa.BigInteger(), nullable=False),
        sa.Column("available_micros", sa.BigInteger(), nullable=False),
        sa.Column("held_micros", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("cash", JSONB(none_as_null=True), nullable=True),
        sa.Column("source", JSONB(none_as_null=True), nullable=True),
        sa.CheckConstraint("category IN ('PROMOTIONAL', 'PAID')", name=op.f("ck_lot_category")),
        sa.CheckConstraint(
            "available_micros >= 0 AND held_micros >= 0 AND available_micros + held_micros <= "
            "granted_micros",
            name=op.f("ck_lot_within_granted"),
        ),
        sa.CheckConstraint(
            "live = (available_micros > 0 OR held_micros > 0)", name=op.f("ck_lot_live")
        ),
        sa.PrimaryKeyConstraint("account_id", "seq", name=op.f("pk_lot")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "ix_lot_live", "lot", ["account_id"], unique=False, postgresql_where=sa.text("live")
    )


def downgrade() -> None:
    op.drop_table("lot")
