"""Fixtures of all tests: one PostgreSQL for the session, a fresh database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

# First, as it tells gRPC not to prepare for forks: one beside its threads can crash.
from meterhold_server.storage import migrate  # isort: skip
import meterhold
from support.database import DatabaseServer, name_of
from support.service import service


@pytest.fixture(scope="session")
def database_server() -> Iterator[DatabaseServer]:
    with DatabaseServer() as server:
        yield server


@pytest.fixture(scope="session")
def template(database_server: DatabaseServer) -> Iterator[str]:
    """The name of a migrated database that others are copied from."""
    url = database_server.create_database()
    migrate.upgrade(url)
    yield name_of(url)
    database_server.drop_database(name_of(url))


@pytest.fixture
def database_url(database_server: DatabaseServer, template: str) -> Iterator[str]:
    """A fresh, migrated, empty database."""
    url = database_server.create_database(template)
    yield url
    database_server.drop_database(name_of(url))


@pytest.fixture
async def address(database_url: str) -> AsyncIterator[str]:
    """Where a Meterhold serves, in this process, on a fresh database."""
    async with service(database_url) as served:
        yield served


@pytest.fixture
async def client(address: str) -> AsyncIterator[meterhold.AsyncClient]:
    async with meterhold.AsyncClient(address) as connected:
        yield connected
