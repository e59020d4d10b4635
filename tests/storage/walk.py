"""Reports made by going through all rows by hand, and what to ask for in them."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, Final

from core.book import ALICE
from meterhold_server.core.model import CHARGES
from meterhold_server.storage.reports import Group, Spend, SpendQuery, SpendReport
from meterhold_server.storage.spend_statement import Dimension

from .made_up import START, Row

GROUPS: Final = [
    Group(Dimension.LABEL, "key"),
    Group(Dimension.LABEL, "run"),
    Group(Dimension.LABEL, "we'ird %(x)s"),
    *(Group(one) for one in Dimension if one is not Dimension.LABEL),
]


def some_time(chance: random.Random, rows: list[Row]) -> datetime | None:
    """One of an entry, or between two, or long before or after, or none."""
    if chance.random() < 0.3:
        return None
    near = chance.choice(rows).create_time
    return near + chance.choice([timedelta(), timedelta(microseconds=1), timedelta(days=-400)])


def some_labels(chance: random.Random) -> dict[str, str] | None:
    return chance.choice(
        [None, None, {"key": "a"}, {"key": "a", "run": "7"}, {"run": ""}, {"key": "nobody's"}]
    )


def walked(rows: list[Row], wanted: SpendQuery) -> SpendReport:
    groups: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        if (row.account.namespace, row.account.unit) != (wanted.namespace, wanted.unit):
            continue
        if wanted.account_id and row.account != ALICE:
            continue
        if row.kind not in CHARGES:
            continue
        if any((row.labels or {}).get(k) != v for k, v in (wanted.labels or {}).items()):
            continue
        if wanted.start_time and row.create_time < wanted.start_time:
            continue
        if wanted.end_time and row.create_time >= wanted.end_time:
            continue
        sums = groups[tuple(value_of(row, group) for group in wanted.group_by)]
        sums[0] -= row.amount_micros
        sums[1] += row.refunded_micros
        sums[2] += 1
    total = Spend(*(sum(sums[n] for sums in groups.values()) for n in range(3)))
    ordered = sorted(groups.items(), key=lambda item: (-item[1][0], item[0]))
    found = [(values, Spend(*sums)) for values, sums in ordered[: wanted.row_limit]]
    if not wanted.group_by:
        return SpendReport(START, [], total, 0)
    return SpendReport(START, found, total, len(groups))


def value_of(row: Row, group: Group) -> str:
    monday = row.create_time - timedelta(days=row.create_time.weekday())
    values: dict[Dimension, Any] = {
        Dimension.LABEL: (row.labels or {}).get(group.label, ""),
        Dimension.ACCOUNT: row.account.account,
        Dimension.MODEL: (row.usage or {}).get("model", ""),
        Dimension.PROVIDER: (row.usage or {}).get("provider", ""),
        Dimension.DAY: f"{row.create_time:%Y-%m-%d}",
        Dimension.WEEK: f"{monday:%Y-%m-%d}",
        Dimension.MONTH: f"{row.create_time:%Y-%m}",
    }
    return str(values[group.dimension])
