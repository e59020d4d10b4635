"""The balance of each account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("granted_micros", sa.BigInteger(), nullable=False),
        sa.Column("spent_micros", sa.BigInteger(), nullable=False),
        sa.Column("expired_micros", sa.BigInteger(), nullable=False),
        sa.Column("revoked_micros", sa.BigInteger(), nullable=False),
        sa.Column("refunded_micros", sa.BigInteger(), nullable=False),
        sa.Column("held_micros", sa.BigInteger(), nullable=False),
        sa.Column("held_on_credit_micros", sa.BigInteger(), nullable=False),
        sa.Column("lots_available_micros", sa.BigInteger(), nullable=False),
        sa.Column("debt_micros", sa.BigInteger(), nullable=False),
        sa.Column("credit_limit_micros", sa.BigInteger(), nullable=False),
        sa.Column("holds_use_credit", sa.Boolean(), nullable=False),
        sa.Column("next_expire_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "debt_micros = 0 OR lots_available_micros = 0",
            name=op.f("ck_account_debt_is_repaid_first"),
        ),
        sa.CheckConstraint(
            "granted_micros + refunded_micros - spent_micros - expired_micros - "
            "revoked_micros = lots_available_micros - debt_micros - held_on_credit_micros + "
            "held_micros",
            name=op.f("ck_account_remaining_is_available_and_held"),
        ),
        sa.CheckConstraint(
            "held_on_credit_micros >= 0 AND held_on_credit_micros <= held_micros",
            name=op.f("ck_account_held"),
        ),
        sa.CheckConstraint(
            "seq >= 0 AND granted_micros >= 0 AND spent_micros >= 0 AND expired_micros >= 0 "
            "AND revoked_micros >= 0 AND refunded_micros >= 0 AND lots_available_micros >= 0 "
            "AND debt_micros >= 0 AND credit_limit_micros >= 0",
            name=op.f("ck_account_not_negative"),
        ),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_account")),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        op.f("ix_account_next_expire_time"),
        "account",
        ["next_expire_time"],
        unique=False,
        postgresql_where=sa.text("next_expire_time IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_table("account")
