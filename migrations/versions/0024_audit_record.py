"""Who granted, revoked, configured, repaired, and made keys: append-only, as the entries are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0024"
down_revision = "0023"

ROLE = "meterhold_app"


def upgrade() -> None:
    op.create_table(
        "audit_record",
        sa.Column(
            "audit_id",
            sa.UUID(as_uuid=False),
            nullable=False,
            server_default=sa.text("gen_random_uuid()"),
        ),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", JSONB(none_as_null=True), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_audit_record")),
    )
    op.create_index(
        "ix_audit_record_newest", "audit_record", ["namespace", "create_time", "audit_id"]
    )
    op.execute(f"GRANT SELECT, INSERT ON audit_record TO {ROLE}")
    for name, timing in (
        ("audit_record_keeps_rows", "BEFORE UPDATE OR DELETE ON audit_record FOR EACH ROW"),
        ("audit_record_keeps_all", "BEFORE TRUNCATE ON audit_record FOR EACH STATEMENT"),
    ):
        op.execute(f"CREATE TRIGGER {name} {timing} EXECUTE FUNCTION refuse_change()")
        op.execute(f"ALTER TABLE audit_record ENABLE ALWAYS TRIGGER {name}")


def downgrade() -> None:
    op.drop_table("audit_record")
