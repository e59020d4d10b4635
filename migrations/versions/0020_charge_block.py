"""Runs of entries whose charges are summed up for reports. A copy: what is wrong may be removed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0020"
down_revision = "0019"

ROLE = "meterhold_app"


def upgrade() -> None:
    op.create_table(
        "charge_block",
        sa.Column("account_id", sa.UUID(as_uuid=False), nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("entry_count", sa.Integer(), nullable=False),
        sa.Column("first_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("summed_labels", ARRAY(sa.Text())),
        sa.Column("varied_labels", ARRAY(sa.Text())),
        sa.CheckConstraint(
            "first_seq > 0 AND entry_count > 0", name=op.f("ck_charge_block_something")
        ),
        sa.CheckConstraint("first_time <= last_time", name=op.f("ck_charge_block_times")),
        sa.PrimaryKeyConstraint(
            "account_id", "first_seq", "entry_count", name=op.f("pk_charge_block")
        ),
        comment="Runs of entries whose charges were summed up, as a copy for reports",
    )
    op.execute(f"GRANT SELECT, INSERT, DELETE ON charge_block TO {ROLE}")


def downgrade() -> None:
    op.drop_table("charge_block")
