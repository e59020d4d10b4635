"""Idempotency keys of the namespace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "claim",
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("entry_seq", sa.BigInteger(), nullable=True),
        sa.Column("request", JSONB(none_as_null=True), nullable=False),
        sa.Column("answer", JSONB(none_as_null=True), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "kind IN ('DEBIT_ONCE', 'GRANT_ONCE', 'DEBIT', 'CAPTURE', 'EXTEND')",
            name=op.f("ck_claim_kind"),
        ),
        sa.PrimaryKeyConstraint("namespace", "kind", "key", name=op.f("pk_claim")),
        comment="Idempotency keys that are unique in the namespace",
    )


def downgrade() -> None:
    op.drop_table("claim")
