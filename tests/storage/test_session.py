"""What a session can say of a transaction whose COMMIT got no answer."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from meterhold_server.storage.session import Session

XID = "SELECT pg_current_xact_id()::text"


@pytest.fixture
def session(database_url: str) -> Iterator[Session]:
    opened = Session(database_url)
    yield opened
    opened.close()


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection[tuple[str]]]:
    with psycopg.connect(database_url) as connection:
        yield connection


def begun(other: psycopg.Connection[tuple[str]]) -> str:
    row = other.execute(XID).fetchone()
    assert row is not None
    return row[0]


def test_it_was_committed(session: Session, other: psycopg.Connection[tuple[str]]) -> None:
    transaction_id = begun(other)
    other.commit()
    assert session.transaction_committed(transaction_id, session.timeline) is True


def test_it_was_rolled_back(session: Session, other: psycopg.Connection[tuple[str]]) -> None:
    transaction_id = begun(other)
    other.rollback()
    assert session.transaction_committed(transaction_id, session.timeline) is False


def test_it_is_still_under_way(session: Session, other: psycopg.Connection[tuple[str]]) -> None:
    assert session.transaction_committed(begun(other), session.timeline) is None


def test_after_a_failover_its_number_may_be_that_of_another(
    session: Session, other: psycopg.Connection[tuple[str]]
) -> None:
    transaction_id = begun(other)
    other.commit()
    assert session.transaction_committed(transaction_id, "000000FF") is None


def test_a_severed_session_is_an_error_and_can_be_severed_again(session: Session) -> None:
    session.sever()
    with pytest.raises(psycopg.OperationalError):
        session.transaction_committed("3", session.timeline)
    session.sever()
    session.close()
    session.sever()
    session.leave_transaction()
