"""Vacuum holds by how many have ended, not by how many there ever were."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    # Each hold that ends leaves an entry behind in the index of active ones, and whoever looks for
    # what is due next in its account has to step over it until a vacuum comes. A fifth of all holds
    # there ever were, as is the default, can be all that a busy account ended in hours.
    op.execute(
        "ALTER TABLE reservation SET"
        " (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000)"
    )


def downgrade() -> None:
    op.execute(
        "ALTER TABLE reservation RESET"
        " (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)"
    )
