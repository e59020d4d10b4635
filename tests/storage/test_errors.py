"""What a database error means: by SQLSTATE, and by whether COMMIT was sent."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from meterhold_server.storage.errors import Fault, fault_at_commit, fault_before_commit


def error(state: str | None) -> psycopg.Error:
    if state is None:
        return psycopg.OperationalError("the connection is lost")
    try:
        return errors.lookup(state)()
    except KeyError:
        unnamed = psycopg.DatabaseError()
        unnamed.sqlstate = state
        return unnamed


CERTAIN = {
    "40001": Fault.RETRY,  # serialization failure
    "40P01": Fault.RETRY,  # deadlock
    "55P03": Fault.RETRY,  # lock timeout
    "23505": Fault.RETRY,  # another batch took the key
    "23514": Fault.REFUSED,  # a CHECK constraint
    "23502": Fault.REFUSED,  # NOT NULL
    "22003": Fault.REFUSED,  # out of range
    "22P05": Fault.REFUSED,  # NUL in JSON
    "22021": Fault.REFUSED,  # not UTF-8
    "42501": Fault.REFUSED,  # a privilege is missing
    "42P01": Fault.REFUSED,  # a table is missing
    "0A000": Fault.REFUSED,  # not supported
    "54000": Fault.REFUSED,  # too large for an index
}
LOST = [
    None,
    "08006",  # connection failure
    "57P01",  # terminated by an administrator
    "57P02",  # crash shutdown
    "57P03",  # starting up
    "53300",  # too many connections
    "53100",  # disk full
    "58030",  # I/O error: it may have been committed all the same
    "25006",  # read-only, as after a failover
    "25P03",  # idle in transaction for too long
    "XX000",  # internal error
]


@pytest.mark.parametrize(("state", "fault"), CERTAIN.items())
def test_some_errors_are_certain_at_any_moment(state: str, fault: Fault) -> None:
    assert fault_before_commit(error(state)) is fault
    assert fault_at_commit(error(state)) is fault


@pytest.mark.parametrize("state", LOST)
def test_what_is_lost_before_commit_is_unknown_after_it(state: str | None) -> None:
    assert fault_before_commit(error(state)) is Fault.LOST
    assert fault_at_commit(error(state)) is Fault.UNKNOWN


def test_a_cancelled_statement_is_tried_again_but_a_cancelled_commit_is_unknown() -> None:
    assert fault_before_commit(error("57014")) is Fault.RETRY
    assert fault_at_commit(error("57014")) is Fault.UNKNOWN


def test_a_value_that_psycopg_does_not_even_send_is_refused() -> None:
    assert fault_before_commit(psycopg.DataError("NUL")) is Fault.REFUSED
    assert fault_at_commit(psycopg.DataError("NUL")) is Fault.REFUSED
