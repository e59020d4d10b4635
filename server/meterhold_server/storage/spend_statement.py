"""The statement of a spend report: charges, one by one or as sums of blocks, and their groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Date,
    DateTime,
    FromClause,
    Integer,
    Select,
    TableValuedAlias,
    and_,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy import Text as SqlText
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeEngine

from meterhold_server.core.model import CHARGES
from meterhold_server.storage.statements import compiled
from meterhold_server.storage.tables import account, charge_refund, charge_summary, entry


class Dimension(StrEnum):
    """What charges can be summed by. Days, weeks (named by their Monday) and months are UTC."""

    LABEL = "LABEL"
    ACCOUNT = "ACCOUNT"
    MODEL = "MODEL"
    PROVIDER = "PROVIDER"
    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"


class Shape(NamedTuple):
    """What the statement of a report depends on."""

    of_account: bool
    dimensions: tuple[Dimension, ...]
    has_labels: bool
    has_start_time: bool
    has_end_time: bool
    has_sums: bool = False


@lru_cache(maxsize=512)
def spend_sql(shape: Shape) -> str:
    """Charges, their groups, then the largest groups beside the sums over all of them."""
    found = _charges_of_account(shape) if shape.of_account else _charges_of_all(shape)
    charges = found.subquery()
    values = [charges.c[f"value_{number}"] for number in range(len(shape.dimensions))]
    sums = ("charged", "refunded", "charges")
    groups = (
        select(
            *values,
            *(func.coalesce(func.sum(charges.c[name]), text("0")).label(name) for name in sums),
        )
        .group_by(*values)
        .subquery()
    )
    over_all = (func.sum(groups.c[name]).over() for name in sums)
    query = select(groups, *over_all, func.count().over())
    order = [groups.c.charged.desc()]
    for number, dimension in enumerate(shape.dimensions):
        value: ColumnElement[Any] = groups.c[f"value_{number}"]
        order.append(value.asc() if dimension in _TIMES else value.collate("C").asc())
    return compiled(query.order_by(*order).limit(bindparam("row_limit")))


class _Source(NamedTuple):
    """Where the values of charges are. `time` is in UTC; any but it may be NULL."""

    time: ColumnElement[Any]
    model: ColumnElement[Any]
    provider: ColumnElement[Any]
    account: ColumnElement[Any]
    label: Callable[[int], ColumnElement[Any]]


def _charges_of_all(shape: Shape) -> Select[Any]:
    """Charge by charge, each beside what was given back of it."""
    refund_of_it = and_(
        charge_refund.c.account_id == entry.c.account_id,
        charge_refund.c.charge_seq == entry.c.seq,
    )
    tables = entry.outerjoin(charge_refund, refund_of_it)
    tables = tables.join(account, account.c.account_id == entry.c.account_id)
    source = _entries(entry, account.c.account)
    refunded = charge_refund.c.refunded_micros
    return (
        _selected(shape, source, -entry.c.amount_micros, refunded, _ONE)
        .select_from(tables)
        .where(
            *_conditions(shape, entry),
            account.c.namespace == bindparam("namespace", type_=SqlText),
            account.c.unit == bindparam("unit", type_=SqlText),
        )
    )


def _charges_of_account(shape: Shape) -> CompoundSelect[Any]:
    """The sums of blocks and the charges between them; then all that was given back.

    What was given back of a charge may change at any time, and is in no block.
    """
    parts = [_charges_between_blocks(shape), _given_back(shape)]
    if shape.has_sums:
        parts.append(_sums_of_blocks(shape))
    return union_all(*parts)


def _charges_between_blocks(shape: Shape) -> Select[Any]:
    seqs = _arrays("rest", rest_firsts=BigInteger, rest_lasts=BigInteger)
    between = entry.c.seq.between(seqs.c.rest_firsts, seqs.c.rest_lasts)
    return (
        _selected(shape, _entries(entry, _NAME), -entry.c.amount_micros, _ZERO, _ONE)
        .select_from(seqs.join(entry, between))
        .where(entry.c.account_id == _ACCOUNT_ID, *_conditions(shape, entry))
    )


def _given_back(shape: Shape) -> Select[Any]:
    """Refunds are few beside charges, so that the charge of each is looked up by its key."""
    seq = charge_refund.c.charge_seq
    charge = (
        select(entry)
        .where(entry.c.account_id == charge_refund.c.account_id, entry.c.seq == seq)
        .offset(literal_column("0"))
        .lateral("charge")
    )
    within = seq.between(bindparam("first", type_=seq.type), bindparam("last", type_=seq.type))
    refunded = charge_refund.c.refunded_micros
    return (
        _selected(shape, _entries(charge, _NAME), _ZERO, refunded, _ZERO)
        .select_from(charge_refund.join(charge, true()))
        .where(charge_refund.c.account_id == _ACCOUNT_ID, within, *_conditions(shape, charge))
    )


def _sums_of_blocks(shape: Shape) -> Select[Any]:
    """All of the blocks is in the range of time. Each block is looked up by its key."""
    block = _arrays(
        "block", block_first_seqs=BigInteger, block_entry_counts=Integer, block_labels=SqlText
    )
    of_block = charge_summary.c
    sums = (
        select(charge_summary)
        .where(
            of_block.account_id == _ACCOUNT_ID,
            of_block.first_seq == block.c.block_first_seqs,
            of_block.entry_count == block.c.block_entry_counts,
            of_block.label == block.c.block_labels,
        )
        .offset(literal_column("0"))
        .lateral("sums")
    )
    named = sums.c
    day = cast(named.day, DateTime)
    source = _Source(day, named.model, named.provider, _NAME, lambda _: named.value)
    found = _selected(shape, source, named.charged_micros, _ZERO, named.charge_count)
    found = found.select_from(block.join(sums, true()))
    if shape.has_labels:
        found = found.where(named.value == bindparam("label_value", type_=SqlText))
    return found


_ACCOUNT_ID: Final = bindparam("account_id", type_=entry.c.account_id.type)
_NAME: Final = (
    select(account.c.account).where(account.c.account_id == _ACCOUNT_ID).scalar_subquery()
)
_ZERO: Final = literal_column("0", BigInteger)
_ONE: Final = literal_column("1", BigInteger)


def _arrays(name: str, **columns: type[TypeEngine[Any]]) -> TableValuedAlias:
    """Parameters that are arrays of the same length, as a relation with a column for each."""
    parameters = [cast(bindparam(one), ARRAY(of_type)) for one, of_type in columns.items()]
    found = func.unnest(*parameters).table_valued(*(column(one) for one in columns))
    return found.render_derived(name=name)


def _entries(of: FromClause, name: ColumnElement[Any]) -> _Source:
    def label(number: int) -> ColumnElement[Any]:
        key = bindparam(f"label_{number}", type_=SqlText)
        return of.c.labels.op("->>", return_type=SqlText())(key)

    model, provider = (
        of.c.usage.op("->>", return_type=SqlText())(text(f"'{key}'"))
        for key in ("model", "provider")
    )
    time = func.timezone(text("'UTC'"), of.c.create_time)
    return _Source(time, model, provider, name, label)


def _conditions(shape: Shape, of: FromClause) -> Iterator[ColumnElement[bool]]:
    time = of.c.create_time
    yield of.c.kind.in_([literal_column(f"'{kind}'") for kind in CHARGES])
    if shape.has_labels:
        yield of.c.labels.contains(cast(bindparam("labels", type_=SqlText), JSONB))
    if shape.has_start_time:
        yield time >= bindparam("start_time", type_=time.type)
    if shape.has_end_time:
        yield time < bindparam("end_time", type_=time.type)


_TIMES: Final = {Dimension.DAY: "day", Dimension.WEEK: "week", Dimension.MONTH: "month"}


def _selected(
    shape: Shape,
    source: _Source,
    charged: ColumnElement[Any],
    refunded: ColumnElement[Any],
    charges: ColumnElement[Any],
) -> Select[Any]:
    """The values of each row to sum by, and what to sum."""
    return select(
        *(_value(one, number, source) for number, one in enumerate(shape.dimensions)),
        charged.label("charged"),
        refunded.label("refunded"),
        charges.label("charges"),
    )


def _value(dimension: Dimension, number: int, source: _Source) -> ColumnElement[Any]:
    """What a charge is summed by: text, empty where it has none, or the first day of a time."""
    if dimension in _TIMES:
        period = func.date_trunc(text(f"'{_TIMES[dimension]}'"), source.time)
        return cast(period, Date).label(f"value_{number}")
    match dimension:
        case Dimension.ACCOUNT:
            found = source.account
        case Dimension.MODEL:
            found = source.model
        case Dimension.PROVIDER:
            found = source.provider
        case _:
            found = source.label(number)
    return func.coalesce(found, text("''")).label(f"value_{number}")
