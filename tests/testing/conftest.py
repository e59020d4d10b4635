"""A real service whose time the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime

import psycopg
import pytest

import meterhold
from support.database import name_of
from support.service import service

SetClock = Callable[[datetime], None]

# Before those of PostgreSQL itself in the search path, this function is the one that is called.
_CLOCK = """
    CREATE TABLE test_clock AS SELECT clock_timestamp() AS now;
    CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql SECURITY DEFINER
        AS 'BEGIN RETURN (SELECT now FROM public.test_clock); END';
    ALTER DATABASE {database} SET search_path = public, pg_catalog;
"""


@pytest.fixture
def set_clock(database_url: str) -> Iterator[SetClock]:
    """Make it a given time for the database of `real`, once and for all calls that follow."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_CLOCK.format(database=name_of(database_url)).encode())

        def set_to(now: datetime) -> None:
            connection.execute("UPDATE test_clock SET now = %s", (now,))

        yield set_to


@pytest.fixture
async def real(database_url: str, set_clock: SetClock) -> AsyncIterator[meterhold.AsyncClient]:
    """A client of a real service on a database of its own, where time stands still."""
    async with (
        service(database_url, sweep=False) as address,
        meterhold.AsyncClient(address) as client,
    ):
        yield client
