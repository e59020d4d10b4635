"""Verification: every invariant of every account, or of one, checked in one snapshot.

The accounts are cut into ranges of `account_id`, and each check runs on each range, so that memory
is bounded and what is left can be told. Two connections share the snapshot and the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from threading import Lock
from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg

from meterhold_server.core.differences import Difference
from meterhold_server.core.model import Account, AccountKey, account_id_of
from meterhold_server.storage.checks import CHECKS, WHOLE_CHECKS, within
from meterhold_server.storage.connection import connect_verifier
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.pages import read_account

Progress = Callable[[int, int], None]
"""Is told how many of how many steps are done. From several threads, one at a time."""

DIFFERENCES_MAX: Final = 1000
"""The most differences that are told of one account."""

_ENTRIES_IN_SLICE: Final = 8_000_000
_ENTRY_BYTES: Final = 200
"""Of a common entry in its table."""

_SLICES_MAX: Final = 4096
_CONNECTIONS: Final = 2
_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Entries lie in the order in which they were written, not by account: to follow an index through
# many accounts reads a page for each. A bitmap of the same index reads every page once.
_BY_PAGE: Final = "SET LOCAL enable_indexscan = off"

_Range = tuple[str, str]
_Row = tuple[str, str, Any, Any, str]
_Step = tuple[str, _Range]
"""The SQL of a check, and the accounts to check."""

_SUMS: Final = f"""
SELECT count(*), coalesce(sum(granted_micros), 0), coalesce(sum(refunded_micros), 0),
       coalesce(sum(spent_micros), 0), coalesce(sum(expired_micros), 0),
       coalesce(sum(revoked_micros), 0), coalesce(sum(held_micros), 0),
       coalesce(sum(lots_available_micros::numeric - debt_micros - held_on_credit_micros), 0)
FROM account WHERE {within("account")}"""
_ENTRIES: Final = f"SELECT count(*) FROM entry WHERE {within('entry')}"
_NAMES: Final = """
SELECT account_id, namespace, account, unit FROM account WHERE account_id = ANY(%(ids)s::uuid[])"""


class Found(NamedTuple):
    """A difference and whose it is. `account` is None if no such account exists."""

    account_id: str
    account: AccountKey | None
    difference: Difference

    def __str__(self) -> str:
        if self.account is None:
            return self.difference.sentence
        return f"account {self.account.account!r} ({self.account.unit}): {self.difference.sentence}"


class Verification(NamedTuple):
    """What was checked, the totals over the accounts, all units together, and what differs."""

    accounts: int = 0
    entries: int = 0
    granted_micros: int = 0
    refunded_micros: int = 0
    spent_micros: int = 0
    expired_micros: int = 0
    revoked_micros: int = 0
    held_micros: int = 0
    available_micros: int = 0
    differences: tuple[Found, ...] = ()

    @property
    def violations(self) -> tuple[str, ...]:
        """Each difference in words, with its account and unit."""
        return tuple(map(str, self.differences))

    @property
    def clean(self) -> bool:
        return not self.differences


class AccountVerification(NamedTuple):
    """An account as it is stored, its number of entries, and what differs, `DIFFERENCES_MAX`."""

    account: Account
    entries: int
    differences: list[Difference]


def verify(
    database_url: str,
    account: AccountKey | None = None,
    *,
    progress: Progress | None = None,
    slices: int | None = None,
) -> Verification:
    """Check every account, or one, against its lots, reservations, entries, refunds and keys.

    Takes no locks, and sees one snapshot whatever is written meanwhile. `slices`, 1 or more, is by
    default so many that each has about eight million entries. Raises psycopg.Error.
    """
    with connect_verifier(database_url) as first:
        first.execute(_BEGIN)
        first.execute(_BY_PAGE)
        ranges = [_only(account)] if account else _ranges(slices or _slices(first))
        steps = _steps(ranges)
        found = _carry_out(first, database_url, steps, progress)
        sums = _sums(first, ranges[0][0], ranges[-1][-1])
        named = tuple(_named(first, found))
        first.execute("COMMIT")
    return sums._replace(differences=named)


def verify_account(connection: Connection, account_id: str) -> AccountVerification | None:
    """Check one account in one snapshot. None if there is no such account. Raises psycopg.Error."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        read = read_account(connection, account_id)
        if read is None:
            return None
        span = (account_id, account_id)
        rows = [row for step in _steps([span]) for row in _differing(connection, step)]
        entries = connection.execute(_ENTRIES.encode(), _bounds(span)).fetchone()
    told = [_difference(row) for row in rows[:DIFFERENCES_MAX]]
    return AccountVerification(read.account, entries[0] if entries else 0, told)


def _only(account: AccountKey) -> _Range:
    account_id = account_id_of(account)
    return account_id, account_id


def _slices(connection: Connection) -> int:
    """How many ranges to cut the accounts into, by the size of the ledger."""
    row = connection.execute("SELECT pg_table_size('entry')").fetchone()
    assert row is not None, "a function answers"
    entries = row[0] // _ENTRY_BYTES
    return min(1 + int(entries) // _ENTRIES_IN_SLICE, _SLICES_MAX)


def _ranges(slices: int) -> list[_Range]:
    bounds = [number * 2**128 // slices for number in range(slices + 1)]
    return [
        (str(UUID(int=first)), str(UUID(int=following - 1)))
        for first, following in pairwise(bounds)
    ]


def _steps(ranges: Sequence[_Range]) -> list[_Step]:
    """Range by range, so that what a check has read is at hand for the next."""
    everything = (ranges[0][0], ranges[-1][-1])
    whole = [(query, everything) for query in WHOLE_CHECKS.values()]
    return whole + [(query, span) for span in ranges for query in CHECKS.values()]


def _carry_out(
    first: Connection, database_url: str, steps: Sequence[_Step], progress: Progress | None
) -> list[_Row]:
    """Carry out all steps on two connections that see the same snapshot."""
    done = count(1)
    one_at_a_time = Lock()

    def told(rows: list[_Row]) -> list[_Row]:
        with one_at_a_time:
            if progress is not None:
                progress(next(done), len(steps))
        return rows

    if len(steps) <= len(CHECKS) + len(WHOLE_CHECKS):
        return [row for step in steps for row in told(_differing(first, step))]
    snapshot = first.execute("SELECT pg_export_snapshot()").fetchone()
    assert snapshot is not None, "a function answers"
    with connect_verifier(database_url) as second:
        second.execute(_BEGIN)
        second.execute(f"SET TRANSACTION SNAPSHOT '{snapshot[0]}'".encode())
        second.execute(_BY_PAGE)
        waiting = iter(steps)
        with ThreadPoolExecutor(_CONNECTIONS) as threads:
            parts = [
                threads.submit(_work, connection, waiting, told) for connection in (first, second)
            ]
            return [row for part in parts for row in part.result()]


def _work(
    connection: Connection, waiting: Iterator[_Step], told: Callable[[list[_Row]], list[_Row]]
) -> list[_Row]:
    """Take one step after the other, until none waits. The interpreter hands each out once."""
    return [row for step in waiting for row in told(_differing(connection, step))]


def _differing(connection: Connection, step: _Step) -> list[Any]:
    query, span = step
    return connection.execute(query.encode(), _bounds(span)).fetchall()


def _bounds(span: _Range) -> dict[str, str]:
    return {"first": span[0], "last": span[1]}


def _sums(connection: Connection, first: str, last: str) -> Verification:
    row = connection.execute(_SUMS.encode(), _bounds((first, last))).fetchone()
    entries = connection.execute(_ENTRIES.encode(), _bounds((first, last))).fetchone()
    assert row is not None, "an aggregate answers"
    assert entries is not None, "an aggregate answers"
    accounts, granted, refunded, spent, expired, revoked, held, available = map(int, row)
    return Verification(
        accounts, entries[0], granted, refunded, spent, expired, revoked, held, available
    )


def _named(connection: psycopg.Connection[Any], rows: Iterable[_Row]) -> Iterator[Found]:
    """Say whose each difference is, account by account."""
    in_order = sorted(rows, key=lambda row: row[0])
    ids = sorted({row[0] for row in in_order})
    names = {
        account_id: AccountKey(*name)
        for account_id, *name in connection.execute(_NAMES, {"ids": ids}).fetchall()
    }
    for row in in_order:
        yield Found(row[0], names.get(row[0]), _difference(row))


def _difference(row: _Row) -> Difference:
    _, what, stored, expected, sentence = row
    return Difference(what, int(stored or 0), int(expected or 0), sentence)
