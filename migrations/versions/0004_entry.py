"""The append-only ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "entry",
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=False),
        sa.Column("remaining_after_micros", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reservation_id", sa.Text(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("related_seq", sa.BigInteger(), nullable=True),
        sa.Column("parts", JSONB(none_as_null=True), nullable=False),
        sa.Column("labels", JSONB(none_as_null=True), nullable=True),
        sa.Column("usage", JSONB(none_as_null=True), nullable=True),
        sa.Column("metadata", JSONB(none_as_null=True), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(amount_micros > 0) = (kind IN ('GRANT', 'REFUND'))", name=op.f("ck_entry_sign")
        ),
        sa.CheckConstraint(
            "kind IN ('GRANT', 'DEBIT', 'CAPTURE', 'EXPIRY', 'EXPIRY_CHARGE', 'REFUND')",
            name=op.f("ck_entry_kind"),
        ),
        sa.CheckConstraint("seq > 0 AND amount_micros <> 0", name=op.f("ck_entry_something")),
        sa.PrimaryKeyConstraint("account_id", "seq", name=op.f("pk_entry")),
    )


def downgrade() -> None:
    op.drop_table("entry")
