"""The holds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "reservation",
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("reservation_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False),
        sa.Column("open_micros", sa.BigInteger(), nullable=False),
        sa.Column("on_credit_micros", sa.BigInteger(), nullable=False),
        sa.Column("captured_micros", sa.BigInteger(), nullable=False),
        sa.Column("from_hold_micros", sa.BigInteger(), nullable=False),
        sa.Column("released_micros", sa.BigInteger(), nullable=False),
        sa.Column("expiry_charged_micros", sa.BigInteger(), nullable=False),
        sa.Column("expiry_charge_seq", sa.BigInteger(), nullable=False),
        sa.Column("parts", JSONB(none_as_null=True), nullable=False),
        sa.Column("on_expiry", sa.Text(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("ttl_microseconds", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("opening", JSONB(none_as_null=True), nullable=False),
        sa.Column("closing", JSONB(none_as_null=True), nullable=True),
        sa.Column("labels", JSONB(none_as_null=True), nullable=True),
        sa.Column("metadata", JSONB(none_as_null=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'ACTIVE') = (end_time IS NULL)", name=op.f("ck_reservation_ended")
        ),
        sa.CheckConstraint(
            "(state = 'SETTLED') = (closing IS NOT NULL)", name=op.f("ck_reservation_closed")
        ),
        sa.CheckConstraint(
            "on_expiry IN ('RELEASE', 'CHARGE')", name=op.f("ck_reservation_on_expiry")
        ),
        sa.CheckConstraint(
            "reserved_micros = from_hold_micros + released_micros + expiry_charged_micros + "
            "CASE WHEN state = 'ACTIVE' THEN open_micros ELSE 0 END",
            name=op.f("ck_reservation_nothing_lost"),
        ),
        sa.CheckConstraint(
            "state IN ('ACTIVE', 'SETTLED', 'RELEASED', 'EXPIRED')",
            name=op.f("ck_reservation_state"),
        ),
        sa.CheckConstraint(
            "reserved_micros > 0 AND open_micros >= 0 AND on_credit_micros >= 0 AND "
            "captured_micros >= 0 AND from_hold_micros >= 0 AND released_micros >= 0 AND "
            "expiry_charged_micros >= 0",
            name=op.f("ck_reservation_not_negative"),
        ),
        sa.PrimaryKeyConstraint("account_id", "reservation_id", name=op.f("pk_reservation")),
        postgresql_with={"fillfactor": 85},
    )
    op.create_index(
        "ix_reservation_active",
        "reservation",
        ["account_id", "expire_time"],
        unique=False,
        postgresql_where=sa.text("state = 'ACTIVE'"),
    )
    op.create_index(
        "ix_reservation_newest",
        "reservation",
        ["account_id", "create_time", "reservation_id"],
        unique=False,
        postgresql_where=sa.text("create_time > '-infinity'::timestamptz"),
    )


def downgrade() -> None:
    op.drop_table("reservation")
