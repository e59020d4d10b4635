"""Allowances, grants that are pending, revocations that came early, and what new accounts get."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"

ROLE = "meterhold_app"
TABLES = ("allowance", "pending_grant", "tombstone", "account_default")


def upgrade() -> None:
    op.create_table(
        "allowance",
        _account_id(),
        _micros("amount_micros"),
        sa.Column("period", sa.Text(), nullable=False),
        _time("anchor_time"),
        sa.Column("priority", sa.Integer(), nullable=False),
        _time("until_time", nullable=True),
        _time("refill_time", nullable=True),
        sa.CheckConstraint("amount_micros >= 0", name=op.f("ck_allowance_not_negative")),
        sa.CheckConstraint(
            "(period = 'OFF') = (refill_time IS NULL)", name=op.f("ck_allowance_refilled")
        ),
        sa.CheckConstraint(
            "period IN ('OFF', 'DAILY', 'WEEKLY', 'MONTHLY')", name=op.f("ck_allowance_period")
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_allowance")),
    )
    op.create_table(
        "pending_grant",
        _account_id(),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        _micros("amount_micros"),
        _time("effective_time"),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("entry_seq", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        _time("expire_time", nullable=True),
        _time("create_time"),
        sa.Column("reason", sa.Text(), nullable=False),
        *(_json(name) for name in ("cash", "source", "labels", "metadata")),
        _json("revocations", nullable=False),
        sa.CheckConstraint("amount_micros > 0", name=op.f("ck_pending_grant_something")),
        sa.CheckConstraint(
            "(state = 'LANDED') = (entry_seq > 0)", name=op.f("ck_pending_grant_landed")
        ),
        sa.CheckConstraint(
            "state IN ('PENDING', 'LANDED', 'REVOKED')", name=op.f("ck_pending_grant_state")
        ),
        sa.CheckConstraint(
            "category IN ('PROMOTIONAL', 'PAID')", name=op.f("ck_pending_grant_category")
        ),
        sa.PrimaryKeyConstraint("account_id", "idempotency_key", name=op.f("pk_pending_grant")),
        comment="Grants that were made before their effective time",
    )
    op.create_index(
        "ix_pending_grant_effective",
        "pending_grant",
        ["account_id", "effective_time"],
        postgresql_where=sa.text("state = 'PENDING'"),
    )
    op.create_table(
        "tombstone",
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        _time("create_time"),
        _json("source"),
        _json("revocations", nullable=False),
        sa.PrimaryKeyConstraint("namespace", "key", name=op.f("pk_tombstone")),
        comment="Revocations that came before their grant was there or effective",
    )
    op.create_table(
        "account_default",
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        _micros("signup_micros"),
        sa.Column("signup_lifetime_microseconds", sa.BigInteger()),
        _json("allowance"),
        sa.CheckConstraint("signup_micros >= 0", name=op.f("ck_account_default_not_negative")),
        sa.PrimaryKeyConstraint("namespace", "unit", name=op.f("pk_account_default")),
        comment="What accounts get when they are created",
    )
    op.execute(f"GRANT SELECT, INSERT, UPDATE ON {', '.join(TABLES)} TO {ROLE}")


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)


def _account_id() -> sa.Column[str]:
    return sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False)


def _micros(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _json(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, JSONB(none_as_null=True), nullable=nullable)
