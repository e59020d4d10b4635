"""Runs the migrations.

`meterhold-server migrate` calls it with a connection, and again where a lock was not to be had. The
`alembic` command takes METERHOLD_DATABASE_URL, and does not try again.

Each revision is a transaction of its own, and waits for a lock no longer than LOCK_TIMEOUT: all
that come to the table meanwhile wait behind it. What runs outside of a transaction, as an index
that is built concurrently, stands in nobody's way and may wait.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

from meterhold_server.storage.migrate import MigrationError, engine
from meterhold_server.storage.tables import APPLICATION_NAME, metadata, schema_window

LOCK_TIMEOUT = "100ms"


def migrate(connection: sa.Connection) -> None:
    # The owner sees no rows of callers unless it says why.
    connection.exec_driver_sql("SET meterhold.maintenance = 'on'")
    connection.commit()
    sa.event.listen(connection, "begin", wait_briefly)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        on_version_apply=note_window,
    )
    with context.begin_transaction():
        context.run_migrations()


def wait_briefly(connection: sa.Connection) -> None:
    """Bound what the transaction that begins waits for a lock."""
    in_transaction = not connection.connection.driver_connection.autocommit  # type: ignore[union-attr]
    if in_transaction:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")


def note_window(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[str], run_args: Mapping[str, Any]
) -> None:
    """Write down, with the revision, the oldest one whose servers it serves.

    Raises MigrationError while older ones work on the database: the step is then undone.
    """
    assert ctx.connection is not None
    assert ctx.script is not None
    for revision in heads:
        module = ctx.script.get_revision(revision).module
        # The table is there from the first revision on that says it.
        oldest = getattr(module, "oldest_served_revision", None)
        if oldest is not None:
            if step.is_upgrade:
                refuse_in_use(ctx.connection, revision, oldest)
            ctx.connection.execute(schema_window.delete())
            ctx.connection.execute(schema_window.insert().values(oldest_served_revision=oldest))


def refuse_in_use(connection: sa.Connection, revision: str, oldest: str) -> None:
    """Raise MigrationError if servers before `oldest` are connected, as far as the user can see."""
    activity = sa.table("pg_stat_activity", sa.column("datname"), sa.column("application_name"))
    name = activity.c.application_name
    older = sa.select(name).where(
        activity.c.datname == sa.func.current_database(),
        name.startswith(f"{APPLICATION_NAME} "),
        name < f"{APPLICATION_NAME} {oldest}",
    )
    used_by = connection.scalars(older.distinct().order_by(name)).all()
    if used_by:
        raise MigrationError(
            f"revision {revision} no longer serves servers before {oldest}, and some are connected"
            f" ({', '.join(used_by)}): stop them, and migrate again"
        )


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with engine(os.environ["METERHOLD_DATABASE_URL"]).connect() as opened:
        migrate(opened)
