"""Fixtures of the tests of storage: ledgers in databases, and a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from meterhold_server.storage import statements
from meterhold_server.storage.exchange import Statement
from support.database import DatabaseServer, name_of

from .stored import Stored

SetClock = Callable[[datetime], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Make it a given time in the database, as far as the ledger can tell."""

    def set_to(now: datetime) -> None:
        clock = f"SELECT '{now.isoformat()}'::timestamptz, pg_current_xact_id()::text"
        named = Statement(clock.encode(), clock.encode())
        monkeypatch.setattr(statements, "CLOCK", named)

    return set_to


@pytest.fixture
def other_database_url(database_server: DatabaseServer, template: str) -> Iterator[str]:
    url = database_server.create_database(template)
    yield url
    database_server.drop_database(name_of(url))


@pytest.fixture
def whole(database_url: str) -> Iterator[Stored]:
    stored = Stored(database_url)
    yield stored
    stored.session.close()


@pytest.fixture
def one_by_one(other_database_url: str) -> Iterator[Stored]:
    stored = Stored(other_database_url)
    yield stored
    stored.session.close()
