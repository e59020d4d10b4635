"""The sums of `storage.reports`, over what is in memory."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from meterhold_server.core.model import CHARGES, Account, Entry
from meterhold_server.storage.entry_pages import EntryFilter
from meterhold_server.storage.reports import (
    Group,
    Spend,
    SpendQuery,
    SpendReport,
    Stats,
    text_of_time,
)
from meterhold_server.storage.spend_statement import Dimension

_NOTHING = Spend()


class Charge(NamedTuple):
    """An entry, in the account that it charged."""

    account: Account
    entry: Entry


def stats(now: datetime, accounts: Iterable[Account]) -> Stats:
    numbers = [account.balance()._asdict() for account in accounts]
    names = [name for name in Stats._fields if name.endswith("micros")]
    sums = {name: sum(one[name] for one in numbers) for name in names}
    return Stats(now, len(numbers), **sums)


def spend(now: datetime, charges: Iterable[Charge], wanted: SpendQuery) -> SpendReport:
    """Sum those of `charges` that `wanted` asks for; they are of its accounts."""
    matches = EntryFilter(CHARGES, wanted.labels, wanted.start_time, wanted.end_time).matches
    groups: dict[tuple[str, ...], Spend] = {}
    total = _NOTHING
    for charge in charges:
        if matches(charge.entry):
            values = tuple(_value(charge, group) for group in wanted.group_by)
            groups[values] = _plus(groups.get(values, _NOTHING), charge)
            total = _plus(total, charge)
    if not wanted.group_by:
        return SpendReport(now, [], total, 0)
    largest_first = sorted(groups.items(), key=lambda group: (-group[1].charged_micros, group[0]))
    return SpendReport(now, largest_first[: wanted.row_limit], total, len(groups))


def _plus(to: Spend, charge: Charge) -> Spend:
    refund = charge.account.charge_refunds.get(charge.entry.seq)
    return Spend(
        to.charged_micros - charge.entry.amount_micros,
        to.refunded_micros + (refund.refunded_micros if refund else 0),
        to.charge_count + 1,
    )


def _value(charge: Charge, group: Group) -> str:
    entry = charge.entry
    match group.dimension:
        case Dimension.LABEL:
            return (entry.labels or {}).get(group.label, "")
        case Dimension.ACCOUNT:
            return charge.account.key.account
        case Dimension.MODEL | Dimension.PROVIDER:
            return str((entry.usage or {}).get(group.dimension.lower(), ""))
    day = entry.create_time.astimezone(UTC).date()
    if group.dimension is Dimension.WEEK:
        day -= timedelta(days=day.weekday())
    return text_of_time(group.dimension, day)
