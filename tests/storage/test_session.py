"""What a session can say of a transaction whose COMMIT got no answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest

from meterhold_server.storage.evidence import Evidence
from meterhold_server.storage.session import Session

XID = "SELECT pg_current_xact_id()::text"


NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EVIDENCE = Evidence("claim", ("live", "DEBIT_ONCE", "order-1"), NOON)


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
    """Begin a transaction that writes what EVIDENCE says. Answers its number."""
    other.execute(
        "INSERT INTO claim (namespace, kind, key, account_id, request, answer, create_time)"
        " VALUES (%s, %s, %s, gen_random_uuid(), '{}', '{}', %s)",
        (*EVIDENCE.key, EVIDENCE.time),
    )
    row = other.execute(XID).fetchone()
    assert row is not None
    return row[0]


def test_it_was_committed(session: Session, other: psycopg.Connection[tuple[str]]) -> None:
    transaction_id = begun(other)
    other.commit()
    assert session.transaction_committed(transaction_id, EVIDENCE) is True


def test_it_was_rolled_back(session: Session, other: psycopg.Connection[tuple[str]]) -> None:
    transaction_id = begun(other)
    other.rollback()
    assert session.transaction_committed(transaction_id, EVIDENCE) is False


def test_it_is_still_under_way(session: Session, other: psycopg.Connection[tuple[str]]) -> None:
    assert session.transaction_committed(begun(other), EVIDENCE) is None


@pytest.mark.parametrize(
    "evidence",
    [
        EVIDENCE._replace(time=EVIDENCE.time + timedelta(microseconds=1)),
        EVIDENCE._replace(key=("live", "DEBIT_ONCE", "another")),
        Evidence("entry", (str(uuid4()), 1), EVIDENCE.time),
        Evidence("reservation", (str(uuid4()), "job"), NOON),
        Evidence("end of reservation", (str(uuid4()), "job"), NOON),
        Evidence("account_claim", (str(uuid4()), "DEBIT", "k"), NOON),
        None,
    ],
)
def test_its_number_was_given_to_another(
    session: Session, other: psycopg.Connection[tuple[str]], evidence: Evidence | None
) -> None:
    transaction_id = begun(other)
    other.commit()
    assert session.transaction_committed(transaction_id, evidence) is False


def test_its_number_is_yet_to_be_given_again(session: Session) -> None:
    assert session.transaction_committed(str(2**40 + 1000), EVIDENCE) is False


def test_a_severed_session_is_an_error_and_can_be_severed_again(session: Session) -> None:
    session.sever()
    with pytest.raises(psycopg.OperationalError):
        session.transaction_committed("3", EVIDENCE)
    session.sever()
    session.close()
    session.sever()
    session.leave_transaction()
