"""Sums over many rows: the accounts of a unit, and charges by what they were for.

Each is read from one snapshot, without locks. Sums are exact, and may be more than int64 holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Text as SqlText
from sqlalchemy import (
    bindparam,
    func,
    select,
    text,
)

from meterhold_server.core.charge_blocks import NO_LABEL, Cover, cover
from meterhold_server.storage.charge_blocks import read_blocks
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.spend_statement import Dimension, Shape, spend_sql
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import account
from meterhold_server.storage.time_range import Seqs, seqs_between

# A report may take long. It must not take the cores that calls wait for.
_ONE_CORE: Final = "SET LOCAL max_parallel_workers_per_gather = 0"
# What keeps the plans of pages right keeps those of whole tables from being any good.
_OF_ALL_ACCOUNTS: Final = "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on"
# A planner does not know that the times and the seqs of an account are two words for the same, and
# expects so few charges that it would sort them all, where a table of the groups is far cheaper.
# Nor that each refund has a charge of its own, so that remembering charges is of no use.
_OF_ONE_ACCOUNT: Final = "SET LOCAL enable_sort = off; SET LOCAL enable_memoize = off"


class Stats(NamedTuple):
    """The sums of all accounts of a unit, all but the first two in micro-units."""

    read_time: datetime
    account_count: int
    granted_micros: int
    spent_micros: int
    refunded_micros: int
    expired_micros: int
    revoked_micros: int
    held_micros: int
    debt_micros: int
    pending_micros: int

    @property
    def outstanding_micros(self) -> int:
        return (
            self.granted_micros
            + self.refunded_micros
            - self.spent_micros
            - self.expired_micros
            - self.revoked_micros
        )


class Group(NamedTuple):
    """A dimension; of LABEL, the key of the label."""

    dimension: Dimension
    label: str = ""


class SpendQuery(NamedTuple):
    """Which charges to sum, and by what. No `account_id` = all accounts of the unit."""

    namespace: str
    unit: str
    account_id: str | None
    group_by: tuple[Group, ...]
    row_limit: int
    labels: dict[str, str] | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


class Spend(NamedTuple):
    """The sums of some charges."""

    charged_micros: int = 0
    refunded_micros: int = 0
    charge_count: int = 0


class SpendReport(NamedTuple):
    """The groups with the largest charges, each by its values, and the sums of all groups."""

    read_time: datetime
    rows: list[tuple[tuple[str, ...], Spend]]
    total: Spend
    group_count: int


_SUMS: Final = [
    func.coalesce(func.sum(account.c[name]), text("0"))
    for name in Stats._fields
    if name.endswith("micros")
]
_STATS: Final = compiled(
    select(func.clock_timestamp(), func.count(), *_SUMS)
    .select_from(account)
    .where(
        account.c.namespace == bindparam("namespace", type_=SqlText),
        account.c.unit == bindparam("unit", type_=SqlText),
    )
)


def read_stats(connection: Connection, namespace: str, unit: str) -> Stats:
    """Sum all accounts of a unit of a namespace."""
    with _snapshot(connection, all_accounts=True):
        named = {"namespace": namespace, "unit": unit}
        row = connection.execute(_STATS, named, prepare=False).fetchone()
    assert row is not None, "an aggregate has a row"
    return Stats(row[0], *map(int, row[1:]))


def read_spend(connection: Connection, wanted: SpendQuery) -> SpendReport:
    """Sum charges of one account, or of all accounts of a unit of a namespace."""
    with _snapshot(connection, all_accounts=wanted.account_id is None):
        now = connection.execute("SELECT clock_timestamp()").fetchone()
        assert now is not None
        named = _parameters(wanted)
        shape = _shape(wanted)
        if wanted.account_id is not None:
            seqs = seqs_between(connection, wanted.account_id, wanted.start_time, wanted.end_time)
            found = _cover(connection, wanted.account_id, wanted, seqs)
            named |= seqs._asdict() | _parameters_of_cover(found)
            shape = shape._replace(has_sums=bool(found.sums))
        # Planned anew each time: one plan for a day of a small account and a year of a large one
        # would be bad for either.
        rows = connection.execute(spend_sql(shape).encode(), named, prepare=False).fetchall()
    return _report(now[0], wanted, rows)


def _shape(wanted: SpendQuery) -> Shape:
    return Shape(
        wanted.account_id is not None,
        tuple(group.dimension for group in wanted.group_by),
        bool(wanted.labels),
        wanted.start_time is not None,
        wanted.end_time is not None,
    )


def _parameters(wanted: SpendQuery) -> dict[str, Any]:
    return {
        **wanted._asdict(),
        "labels": orjson.dumps(wanted.labels).decode(),
        "label_value": next(iter((wanted.labels or {}).values()), None),
        **{f"label_{number}": group.label for number, group in enumerate(wanted.group_by)},
    }


def _cover(connection: Connection, account_id: str, wanted: SpendQuery, seqs: Seqs) -> Cover:
    """What to read of an account. Blocks tell the values of one label; of two, only charges do."""
    grouped = {group.label for group in wanted.group_by if group.dimension is Dimension.LABEL}
    labels = grouped | set(wanted.labels or {})
    blocks = read_blocks(connection, account_id, seqs) if len(labels) < 2 else []
    label = next(iter(labels), NO_LABEL)
    return cover(blocks, seqs, (wanted.start_time, wanted.end_time), label)


def _parameters_of_cover(found: Cover) -> dict[str, Any]:
    return {
        "block_first_seqs": [key.first_seq for key, _ in found.sums],
        "block_entry_counts": [key.entry_count for key, _ in found.sums],
        "block_labels": [label for _, label in found.sums],
        "rest_firsts": [first for first, _ in found.rest],
        "rest_lasts": [last for _, last in found.rest],
    }


@contextmanager
def _snapshot(connection: Connection, *, all_accounts: bool) -> Iterator[None]:
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(_ONE_CORE)
        connection.execute(_OF_ALL_ACCOUNTS if all_accounts else _OF_ONE_ACCOUNT)
        yield


def _report(now: datetime, wanted: SpendQuery, rows: list[tuple[Any, ...]]) -> SpendReport:
    count = len(wanted.group_by)
    *_, group_count = rows[0] if rows else (0,)
    total = Spend(*map(int, rows[0][count + 3 : count + 6])) if rows else Spend()
    if count == 0:
        return SpendReport(now, [], total, 0)
    groups = [(_texts(wanted, row), Spend(*map(int, row[count : count + 3]))) for row in rows]
    return SpendReport(now, groups, total, group_count)


def _texts(wanted: SpendQuery, row: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(
        text_of_time(group.dimension, value) if isinstance(value, date) else value
        for group, value in zip(wanted.group_by, row, strict=False)
    )


def text_of_time(dimension: Dimension, day: date) -> str:
    """What a day, a week by its Monday, or a month by its first day is called."""
    return day.isoformat()[:7] if dimension is Dimension.MONTH else day.isoformat()
