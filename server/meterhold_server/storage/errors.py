"""What a database error means for a batch, by SQLSTATE and by whether COMMIT was sent.

Constraint names decide nothing: through proxies and distributed engines they are altered.
"""

from __future__ import annotations

from enum import Enum, auto

import psycopg


class Fault(Enum):
    """What to do with a batch that failed."""

    RETRY = auto()
    """Rolled back because of others: decide the whole batch again."""
    REFUSED = auto()
    """Rolled back because of what was written: find the operation that cannot be stored."""
    LOST = auto()
    """The server or the connection is gone. Before COMMIT was sent: nothing was written."""
    UNKNOWN = auto()
    """The same after COMMIT was sent: it may have been written."""


_RETRY = frozenset({"40001", "40P01", "55P03", "57014", "23505"})
_REFUSED_CLASSES = frozenset({"0A", "22", "23", "42", "54"})


def fault_before_commit(error: psycopg.Error) -> Fault:
    """What an error means while COMMIT has not been sent: nothing was written."""
    state = error.sqlstate
    if state in _RETRY:
        return Fault.RETRY
    if state is None:
        # psycopg refuses a value before sending it with a DataError, and loses a connection with an
        # OperationalError or InterfaceError; none of them has a SQLSTATE.
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return Fault.LOST if lost else Fault.REFUSED
    return Fault.REFUSED if state[:2] in _REFUSED_CLASSES else Fault.LOST


def fault_at_commit(error: psycopg.Error) -> Fault:
    """What an error means when the writes and COMMIT were sent together.

    A write that failed makes the server skip the COMMIT behind it, so that a serialization failure
    or a refused row is certain; a cancelled statement or a lost connection is not.
    """
    fault = fault_before_commit(error)
    if fault is Fault.LOST or error.sqlstate == "57014":
        return Fault.UNKNOWN
    return fault
