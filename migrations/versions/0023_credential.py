"""Who may call: API keys and client certificates, with their scopes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0023"
down_revision = "0022"

ROLE = "meterhold_app"


def upgrade() -> None:
    op.create_table(
        "credential",
        sa.Column("credential_id", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scopes", ARRAY(sa.Text()), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=True),
        sa.Column("certificate_name", sa.Text(), nullable=True),
        sa.Column("operations_per_second_max", sa.Integer(), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_use_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoke_time", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "cardinality(scopes) > 0 AND scopes <@ ARRAY['meter', 'grant', 'read', 'admin']",
            name=op.f("ck_credential_scopes"),
        ),
        sa.CheckConstraint(
            "(secret_hash IS NULL) <> (certificate_name IS NULL)",
            name=op.f("ck_credential_one_proof"),
        ),
        sa.CheckConstraint("octet_length(secret_hash) = 32", name=op.f("ck_credential_sha256")),
        sa.CheckConstraint("operations_per_second_max > 0", name=op.f("ck_credential_limit")),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_credential")),
    )
    op.create_index(
        "ix_credential_namespace", "credential", ["namespace", "create_time", "credential_id"]
    )
    op.create_index(
        "ix_credential_certificate_name",
        "credential",
        ["certificate_name"],
        unique=True,
        postgresql_where=sa.text("revoke_time IS NULL"),
    )
    # What a credential is and may do never changes: it is revoked, and another one made.
    op.execute(f"GRANT SELECT, INSERT ON credential TO {ROLE}")
    op.execute(f"GRANT UPDATE (last_use_time, revoke_time) ON credential TO {ROLE}")


def downgrade() -> None:
    op.drop_table("credential")
