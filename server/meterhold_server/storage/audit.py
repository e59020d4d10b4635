"""Read whole accounts and check everything that must hold of them, in one snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import psycopg
from sqlalchemy import Select, Table, func, select

from meterhold_server.core.funds import spend_key
from meterhold_server.core.invariants import violations
from meterhold_server.core.model import Account
from meterhold_server.storage.connection import connect_reader
from meterhold_server.storage.rows import (
    account_from,
    charge_refund_from,
    entry_from,
    lot_from,
    reservation_from,
)
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import (
    account,
    account_claim,
    charge_refund,
    claim,
    entry,
    lot,
    reservation,
)

_T = TypeVar("_T")
_ROWS_FETCHED = 2000


class Audit(NamedTuple):
    """What was checked, the totals over all accounts and units, and everything that is wrong."""

    accounts: int = 0
    entries: int = 0
    granted_micros: int = 0
    refunded_micros: int = 0
    spent_micros: int = 0
    expired_micros: int = 0
    revoked_micros: int = 0
    held_micros: int = 0
    available_micros: int = 0
    violations: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        return not self.violations

    def plus(self, other: Account, entries: int, found: list[str]) -> Audit:
        return Audit(
            self.accounts + 1,
            self.entries + entries,
            self.granted_micros + other.granted_micros,
            self.refunded_micros + other.refunded_micros,
            self.spent_micros + other.spent_micros,
            self.expired_micros + other.expired_micros,
            self.revoked_micros + other.revoked_micros,
            self.held_micros + other.held_micros,
            self.available_micros + other.available_micros,
            (*self.violations, *found),
        )


def audit(database_url: str) -> Audit:
    """Check every account of the database against its lots, reservations, entries and claims.

    Streams the tables in the order of their keys: memory is bounded by the largest account. Raises
    psycopg.Error.
    """
    connection = connect_reader(database_url)
    with connection:
        for setting in ("statement_timeout", "enable_seqscan", "enable_bitmapscan"):
            connection.execute(f"RESET {setting}")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        result = Audit()
        lots = _Groups(connection, lot, "seq", lot_from)
        reservations = _Groups(connection, reservation, "reservation_id", reservation_from)
        entries = _Groups(connection, entry, "seq", entry_from)
        refunds = _Groups(connection, charge_refund, "charge_seq", charge_refund_from)
        for row in _stream(connection, "account", select(account).order_by(account.c.account_id)):
            found = account_from(row)
            found.lots = sorted(lots.of(found.account_id), key=spend_key)
            held = reservations.of(found.account_id)
            found.reservations = {item.reservation_id: item for item in held}
            given_back = refunds.of(found.account_id)
            found.charge_refunds = {item.charge_seq: item for item in given_back}
            ledger = entries.of(found.account_id)
            result = result.plus(found, len(ledger), violations(found, ledger))
        strays = [*lots.strays(), *reservations.strays(), *entries.strays(), *refunds.strays()]
        strays += _claim_violations(connection)
        connection.execute("COMMIT")
    return result._replace(violations=(*result.violations, *strays))


class _Groups:
    """The rows of a table, account by account, in the order of account_id."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        table: Table,
        key: str,
        convert: Callable[[Any], Any],
    ) -> None:
        query = select(table).order_by(table.c.account_id, table.c[key])
        rows = map(convert, _stream(connection, table.name, query))
        self._name = table.name
        self._groups = groupby(rows, key=lambda row: row.account_id)
        self._strays: list[str] = []
        self._next: tuple[str, list[Any]] | None = None
        self._advance()

    def of(self, account_id: str) -> list[Any]:
        """The rows of the next account asked for, in ascending order of account_id."""
        while self._next is not None and self._next[0] < account_id:
            self._stray()
        if self._next is None or self._next[0] != account_id:
            return []
        rows = self._next[1]
        self._advance()
        return rows

    def strays(self) -> list[str]:
        """What belongs to no account, once all accounts were asked for."""
        while self._next is not None:
            self._stray()
        return self._strays

    def _stray(self) -> None:
        assert self._next is not None
        account_id, rows = self._next
        self._strays.append(f"{len(rows)} rows of {self._name} have no account {account_id}")
        self._advance()

    def _advance(self) -> None:
        group = next(self._groups, None)
        self._next = (group[0], list(group[1])) if group else None


def _claim_violations(connection: psycopg.Connection[Any]) -> Iterator[str]:
    """Claims whose entry is missing."""
    for table in (claim, account_claim):
        its_entry = (entry.c.account_id == table.c.account_id) & (entry.c.seq == table.c.entry_seq)
        lost = (
            select(func.count())
            .select_from(table.outerjoin(entry, its_entry))
            .where(table.c.entry_seq.is_not(None), entry.c.seq.is_(None))
        )
        row = connection.execute(compiled(lost)).fetchone()
        if row and row[0]:
            yield f"{row[0]} rows of {table.name} name entries that do not exist"


def _stream(connection: psycopg.Connection[Any], name: str, query: Select[Any]) -> Iterator[Any]:
    with connection.cursor(name=f"audit_{name}") as cursor:
        cursor.itersize = _ROWS_FETCHED
        cursor.execute(compiled(query))
        yield from cursor
