"""Which servers the schema serves, so that those of two versions may work on one database.

Each migration from here on has an `oldest_served_revision`: servers that were made for it, or for a
later one, may start on the database and go on working. It is written into the table with each step.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
oldest_served_revision = "0026"

ROLE = "meterhold_app"


def upgrade() -> None:
    op.create_table(
        "schema_window",
        sa.Column("oldest_served_revision", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("oldest_served_revision", name=op.f("pk_schema_window")),
        comment="The oldest revision whose servers this schema serves: one row",
    )
    # No row-level security: it has nothing of callers, and they never read it.
    op.execute(f"GRANT SELECT ON schema_window TO {ROLE}")


def downgrade() -> None:
    op.drop_table("schema_window")
