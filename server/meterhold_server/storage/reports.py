"""Sums over many rows: the accounts of a unit, and charges by what they were for.

Each is read from one snapshot, without locks. Sums are exact, and may be more than int64 holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import (
    ColumnElement,
    Date,
    Select,
    and_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import JSONB

from meterhold_server.core.model import EntryKind
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import account, charge_refund, entry
from meterhold_server.storage.time_range import Seqs, seqs_between

CHARGES: Final = (EntryKind.DEBIT, EntryKind.CAPTURE, EntryKind.EXPIRY_CHARGE)

# A report may take long. It must not take the cores that calls wait for.
_ONE_CORE: Final = "SET LOCAL max_parallel_workers_per_gather = 0"
# What keeps the plans of pages right keeps those of whole tables from being any good.
_OF_ALL_ACCOUNTS: Final = "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on"
# A planner does not know that the times and the seqs of an account are two words for the same, and
# expects so few charges that it would sort them all, where a table of the groups is far cheaper.
_OF_ONE_ACCOUNT: Final = "SET LOCAL enable_sort = off"


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


class Dimension(StrEnum):
    """What charges can be summed by. Days, weeks (named by their Monday) and months are UTC."""

    LABEL = "LABEL"
    ACCOUNT = "ACCOUNT"
    MODEL = "MODEL"
    PROVIDER = "PROVIDER"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


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
        seqs = Seqs(0, 0)
        if wanted.account_id is not None:
            seqs = seqs_between(connection, wanted.account_id, wanted.start_time, wanted.end_time)
        # Planned anew each time: one plan for a day of a small account and a year of a large one
        # would be bad for either.
        query, named = spend_sql(wanted).encode(), spend_parameters(wanted, seqs)
        rows = connection.execute(query, named, prepare=False).fetchall()
    return _report(now[0], wanted, rows)


def spend_sql(wanted: SpendQuery) -> str:
    """The statement of a report."""
    return _spend_sql(
        wanted.account_id is not None,
        tuple(group.dimension for group in wanted.group_by),
        (bool(wanted.labels), wanted.start_time is not None, wanted.end_time is not None),
    )


def spend_parameters(wanted: SpendQuery, seqs: Seqs) -> dict[str, Any]:
    """The parameters of that statement. `seqs` is where the charges of one account are."""
    return {
        **wanted._asdict(),
        "labels": orjson.dumps(wanted.labels).decode(),
        "first": seqs.first,
        "last": seqs.last,
        **{f"label_{number}": group.label for number, group in enumerate(wanted.group_by)},
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


@lru_cache(maxsize=256)
def _spend_sql(
    of_account: bool, dimensions: tuple[Dimension, ...], conditions: tuple[bool, ...]
) -> str:
    """Charges, their groups, then the largest groups beside the sums over all of them."""
    charges = _charges(of_account, dimensions, conditions).subquery()
    values = [charges.c[f"value_{number}"] for number in range(len(dimensions))]
    groups = (
        select(
            *values,
            func.coalesce(func.sum(charges.c.charged), text("0")).label("charged"),
            func.coalesce(func.sum(charges.c.refunded), text("0")).label("refunded"),
            func.count().label("charges"),
        )
        .group_by(*values)
        .subquery()
    )
    sums = (groups.c.charged, groups.c.refunded, groups.c.charges)
    query = select(groups, *(func.sum(one).over() for one in sums), func.count().over())
    order = [groups.c.charged.desc()]
    for number, dimension in enumerate(dimensions):
        value: ColumnElement[Any] = groups.c[f"value_{number}"]
        order.append(value.asc() if dimension in _TIMES else value.collate("C").asc())
    return compiled(query.order_by(*order).limit(bindparam("row_limit")))


def _charges(
    of_account: bool, dimensions: tuple[Dimension, ...], conditions: tuple[bool, ...]
) -> Select[Any]:
    create_time = entry.c.create_time
    refund_of_it = and_(
        charge_refund.c.account_id == entry.c.account_id,
        charge_refund.c.charge_seq == entry.c.seq,
    )
    kinds = ", ".join(f"'{kind}'" for kind in CHARGES)
    possible = (
        entry.c.labels.contains(cast(bindparam("labels", type_=SqlText), JSONB)),
        create_time >= bindparam("start_time", type_=create_time.type),
        create_time < bindparam("end_time", type_=create_time.type),
    )
    where = [one for one, is_set in zip(possible, conditions, strict=True) if is_set]
    if of_account:
        where.append(entry.c.account_id == bindparam("account_id", type_=entry.c.account_id.type))
        where.append(_within(entry.c.seq))
        refund_of_it = and_(refund_of_it, _within(charge_refund.c.charge_seq))
    tables = entry.outerjoin(charge_refund, refund_of_it)
    if not of_account or Dimension.ACCOUNT in dimensions:
        tables = tables.join(account, account.c.account_id == entry.c.account_id)
        where.append(account.c.namespace == bindparam("namespace", type_=SqlText))
        where.append(account.c.unit == bindparam("unit", type_=SqlText))
    return (
        select(
            *(_value(one, number) for number, one in enumerate(dimensions)),
            (-entry.c.amount_micros).label("charged"),
            charge_refund.c.refunded_micros.label("refunded"),
        )
        .select_from(tables)
        .where(text(f"entry.kind IN ({kinds})"), *where)
    )


def _within(seq: ColumnElement[int]) -> ColumnElement[bool]:
    return seq.between(bindparam("first", type_=seq.type), bindparam("last", type_=seq.type))


_TIMES: Final = {Dimension.DAY: "day", Dimension.WEEK: "week", Dimension.MONTH: "month"}


def _value(dimension: Dimension, number: int) -> ColumnElement[Any]:
    """What a charge is summed by: text, empty where it has none, or the first day of a time."""
    if dimension in _TIMES:
        in_utc = func.timezone(text("'UTC'"), entry.c.create_time)
        period = func.date_trunc(text(f"'{_TIMES[dimension]}'"), in_utc)
        found: ColumnElement[Any] = cast(period, Date)
    elif dimension is Dimension.ACCOUNT:
        found = account.c.account
    elif dimension is Dimension.LABEL:
        label = bindparam(f"label_{number}", type_=SqlText)
        found = func.coalesce(entry.c.labels.op("->>", return_type=SqlText())(label), text("''"))
    else:
        found = func.coalesce(literal_column(f"entry.usage ->> '{dimension.lower()}'"), text("''"))
    return found.label(f"value_{number}")
