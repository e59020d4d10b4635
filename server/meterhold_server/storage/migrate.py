"""Bring a database to the revision that the code needs, or back, beside servers at work."""

from __future__ import annotations

import random
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg import errors

WAIT_SECONDS_MAX: Final = 300.0
"""How long a migration tries to get its locks, or waits for another one to end."""

# Long enough for whoever stood behind a migration that waited for a lock to get through.
_PAUSE_SECONDS: Final = (0.5, 1.5)

_ALONE: Final = 0x6D65746572
"""The number of the advisory lock under which migrations run one after the other."""


class MigrationError(Exception):
    """A migration that was not made, or not to its end. The message says what to do next."""


def migrations_directory() -> Path:
    """Where the migrations are: beside the source, or where the wheel put them.

    Raises FileNotFoundError if they are in neither place.
    """
    beside_source = Path(__file__).parents[3] / "migrations"
    installed = Path(sysconfig.get_path("data")) / "share" / "meterhold" / "migrations"
    for directory in (beside_source, installed):
        if (directory / "env.py").exists():
            return directory
    raise FileNotFoundError(
        f"The migrations are neither in {beside_source} nor in {installed}: install meterhold again"
    )


def upgrade(
    url: str, revision: str = "head", *, wait_seconds_max: float = WAIT_SECONDS_MAX
) -> str | None:
    """Migrate the database at a libpq URL forward. Answers the revision that it has then.

    A database that a newer version has migrated is left alone. A lock that is not to be had is
    asked for again and again, for `wait_seconds_max`, and never waited for in the way of others.
    `revision` is `head`, a number, or a single step (`+1`). Raises MigrationError.
    """

    def forward(config: Config) -> None:
        if revision != "head" or not _is_newer(config):
            command.upgrade(config, revision)

    return _migrated(url, forward, wait_seconds_max)


def downgrade(
    url: str, revision: str = "base", *, wait_seconds_max: float = WAIT_SECONDS_MAX
) -> str | None:
    """Migrate the database at a libpq URL back. Loses what the older schema cannot hold.

    Answers, waits and raises as `upgrade` does.
    """

    def back(config: Config) -> None:
        command.downgrade(config, revision)

    return _migrated(url, back, wait_seconds_max)


def _migrated(url: str, step: Callable[[Config], None], wait_seconds_max: float) -> str | None:
    """Take the step, and again while locks are in the way: what is done is not done again."""
    deadline = time.monotonic() + wait_seconds_max
    while True:
        try:
            with _config(url, deadline) as config:
                step(config)
                return _revision(config)
        except CommandError as error:
            raise MigrationError(f"{error}: use the version that migrated the database") from error
        except sa.exc.DBAPIError as error:
            in_the_way = (errors.LockNotAvailable, errors.DeadlockDetected)
            if not isinstance(error.orig, in_the_way):
                raise MigrationError(str(error.orig).strip()) from error
            if time.monotonic() > deadline:
                raise MigrationError(_no_lock(error.orig, wait_seconds_max)) from error
        time.sleep(random.uniform(*_PAUSE_SECONDS))


def _no_lock(error: Exception, seconds: float) -> str:
    return (
        f"another session had the lock that it needs whenever it asked for {seconds:g} s"
        f" ({str(error).strip().splitlines()[0]}). What was migrated before stays. See which"
        " transactions are open in pg_stat_activity (xact_start), and migrate again when they end"
    )


def _is_newer(config: Config) -> bool:
    """Whether the database is past all the migrations that there are here."""
    found, head = _revision(config), ScriptDirectory.from_config(config).get_current_head()
    return found is not None and head is not None and found > head


def _revision(config: Config) -> str | None:
    connection: sa.Connection = config.attributes["connection"]
    found = MigrationContext.configure(connection).get_current_revision()
    connection.rollback()
    return found


@contextmanager
def _config(url: str, deadline: float) -> Iterator[Config]:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    with engine(url).connect() as connection:
        _wait_to_be_alone(connection, deadline)
        config.attributes["connection"] = connection
        yield config


def _wait_to_be_alone(connection: sa.Connection, deadline: float) -> None:
    """Until the connection ends, no other migration begins.

    It asks, and does not stand in line: who does has a snapshot, for whose end an index that is
    built concurrently waits.
    """
    ask = sa.select(sa.func.pg_try_advisory_lock(_ALONE))
    while True:
        with connection.begin():
            if connection.execute(ask).scalar_one():
                return
        if time.monotonic() > deadline:
            raise MigrationError("another migration of this database is running: wait for its end")
        time.sleep(min(_PAUSE_SECONDS))


def engine(url: str) -> sa.Engine:
    """The same database for SQLAlchemy, whose own URLs know less than libpq's: no second host."""
    return sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=sa.NullPool
    )
