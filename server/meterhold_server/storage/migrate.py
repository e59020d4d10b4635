"""Bring a database to the revision that the code needs, or back."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config


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


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate the database at a libpq URL forward. Raises psycopg and SQLAlchemy errors."""
    with _config(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, revision: str = "base") -> None:
    """Migrate the database at a libpq URL back. Loses what the older schema cannot hold."""
    with _config(url) as config:
        command.downgrade(config, revision)


@contextmanager
def _config(url: str) -> Iterator[Config]:
    config = Config()
    config.set_main_option("script_location", str(migrations_directory()))
    engine = sa.create_engine(sqlalchemy_url(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        yield config


def sqlalchemy_url(url: str) -> sa.URL:
    """The same database for SQLAlchemy, with psycopg as its driver."""
    return sa.make_url(url).set(drivername="postgresql+psycopg")
