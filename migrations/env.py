"""Runs the migrations. `meterhold-server migrate` calls it with a connection; the `alembic` command
takes METERHOLD_DATABASE_URL.

Each revision is a transaction of its own, and waits for locks no longer than `lock_timeout`: a
migration never stalls the writers of a running service.
"""

from __future__ import annotations

import os

import sqlalchemy as sa
from alembic import context

from meterhold_server.storage.tables import metadata


def migrate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("SET lock_timeout = '2s'")
    # The owner sees no rows of callers unless it says why.
    connection.exec_driver_sql("SET meterhold.maintenance = 'on'")
    connection.commit()
    context.configure(
        connection=connection, target_metadata=metadata, transaction_per_migration=True
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    url = sa.make_url(os.environ["METERHOLD_DATABASE_URL"]).set(drivername="postgresql+psycopg")
    with sa.create_engine(url).connect() as opened:
        migrate(opened)
