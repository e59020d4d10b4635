"""The sums of the charges of such runs of entries. A copy, as the table before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

ROLE = "meterhold_app"


def upgrade() -> None:
    op.create_table(
        "charge_summary",
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("entry_count", sa.Integer(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("value", sa.Text()),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("charged_micros", sa.BigInteger(), nullable=False),
        sa.Column("charge_count", sa.Integer(), nullable=False),
        sa.CheckConstraint("charge_count > 0", name=op.f("ck_charge_summary_something")),
        sa.PrimaryKeyConstraint(
            "account_id",
            "first_seq",
            "entry_count",
            "label",
            "number",
            name=op.f("pk_charge_summary"),
        ),
        comment="The sums of the charges of a block, without labels and by the values of each",
    )
    op.execute(f"GRANT SELECT, INSERT, DELETE ON charge_summary TO {ROLE}")


def downgrade() -> None:
    op.drop_table("charge_summary")
