"""The commands that sum over charges and accounts."""

from __future__ import annotations

from typing import Annotated

import typer

from meterhold.cli import tables
from meterhold.cli.options import (
    GroupBy,
    HavingLabels,
    RowLimit,
    Since,
    Unit,
    Until,
    labels_of,
    not_empty,
)
from meterhold.cli.running import command
from meterhold.cli.session import Session

_LIMIT = 50


@command
def stats(session: Session, unit: Unit = "") -> None:
    """Show the sums of all accounts."""
    with session.client() as client:
        found = client.get_stats(unit=unit)
    session.show(found, tables.stats(found, session.shown))


@command
def spend(
    session: Session,
    account: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="Whose; of all if unset.")
    ] = None,
    by: GroupBy = None,
    since: Since = None,
    until: Until = None,
    label: HavingLabels = None,
    limit: RowLimit = _LIMIT,
    unit: Unit = "",
) -> None:
    """Sum charges by what they were for, largest first."""
    labels = labels_of(label)
    groups = by or []
    with session.client() as client:
        found = client.spend_report(
            not_empty("the account", account),
            unit=unit,
            start_time=since,
            end_time=until,
            labels=labels,
            group_by=groups,
            row_limit=limit,
        )
    session.show(found, *tables.spend(found, groups, session.shown))
