"""The commands that only look."""

from __future__ import annotations

from itertools import chain, islice
from typing import Annotated

import typer
from rich.console import RenderableType

from meterhold.cli import json_values, tables
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.options import (
    Account,
    HavingLabels,
    Kinds,
    Limit,
    ReservationId,
    Seq,
    Since,
    States,
    Unit,
    Until,
    labels_of,
)
from meterhold.cli.running import command
from meterhold.cli.session import Session

_LIMIT = 50
_PAGE_SIZE_MAX = 1000

_Lots = Annotated[
    bool, typer.Option("--lots", help="Also the lots with credits left and pending grants.")
]
_OldestFirst = Annotated[bool, typer.Option("--oldest-first", help="From the first one on.")]
_All = Annotated[bool, typer.Option("--all", help="All of them, instead of a --limit.")]
_Spent = Annotated[bool, typer.Option("--spent", help="Also those with nothing left.")]
_DebitKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="By the --key of a debit.", show_default=False)
]
_GrantKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="By the --key of a grant.", show_default=False)
]
_RefundKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="By the --key of a refund.", show_default=False)
]


@command
def balance(session: Session, account: Account, lots: _Lots = False, unit: Unit = "") -> None:
    """Show what an account has."""
    with session.client() as client:
        found = client.balance(account, unit=unit, include_lots=lots)
    value = json_values.plain(found)
    parts: list[RenderableType] = [tables.balance(account, unit, found, session.shown)]
    if lots:
        value["lots"] = json_values.plain(found.lots)
        value["pending"] = json_values.plain(found.pending)
        parts += ["", tables.lots(found.lots, session.shown)]
    if lots and found.pending:
        parts += ["", tables.lots(found.pending, session.shown)]
    session.show(value, *parts)


@command
def entries(
    session: Session,
    account: Account,
    kind: Kinds = None,
    since: Since = None,
    until: Until = None,
    label: HavingLabels = None,
    oldest_first: _OldestFirst = False,
    limit: Limit = _LIMIT,
    all_: _All = False,
    unit: Unit = "",
) -> None:
    """List the ledger of an account, newest first."""
    labels = labels_of(label)
    with session.client() as client:
        found = client.list_entries(
            account,
            unit=unit,
            kinds=kind or (),
            start_time=since,
            end_time=until,
            labels=labels,
            oldest_first=oldest_first,
            page_size=_page_size(limit, everything=all_),
        )
        session.show_all(found if all_ else islice(found, limit), tables.entries)


@command
def entry(
    session: Session,
    account: Account,
    seq: Seq = None,
    debit_key: _DebitKey = None,
    grant_key: _GrantKey = None,
    refund_key: _RefundKey = None,
    unit: Unit = "",
) -> None:
    """Show one entry of the ledger."""
    if sum(given is not None for given in (seq, debit_key, grant_key, refund_key)) != 1:
        raise UsageError("give exactly one of --seq, --debit-key, --grant-key and --refund-key")
    with session.client() as client:
        found = client.get_entry(
            account,
            unit=unit,
            seq=seq,
            debit_key=debit_key,
            grant_key=grant_key,
            refund_key=refund_key,
        )
    session.show(found, tables.entry(found, session.shown))


@command
def reservations(
    session: Session,
    account: Account,
    state: States = None,
    limit: Limit = _LIMIT,
    all_: _All = False,
    unit: Unit = "",
) -> None:
    """List the holds of an account, newest first."""
    with session.client() as client:
        found = client.list_reservations(
            account, unit=unit, states=state or (), page_size=_page_size(limit, everything=all_)
        )
        session.show_all(found if all_ else islice(found, limit), tables.reservations)


@command
def reservation(
    session: Session, account: Account, reservation_id: ReservationId, unit: Unit = ""
) -> None:
    """Show one hold."""
    with session.client() as client:
        found = client.get_reservation(account, reservation_id=reservation_id, unit=unit)
    session.show(found, tables.reservation(found, session.shown))


@command
def lots(session: Session, account: Account, spent: _Spent = False, unit: Unit = "") -> None:
    """List what grants have put in and what is left of it, newest first; pending ones before."""
    with session.client() as client:
        pending = client.balance(account, unit=unit, include_lots=True).pending
        found = client.list_lots(account, unit=unit, include_spent=spent, page_size=_PAGE_SIZE_MAX)
        session.show_all(chain(reversed(pending), found), tables.lots)


@command
def account(session: Session, account: Account, unit: Unit = "") -> None:
    """Show what an account has and what it may do."""
    with session.client() as client:
        found = client.get_account(account, unit=unit)
    session.show(found, tables.account(found, session.shown))


@command
def accounts(
    session: Session,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="Ids begin with it.")] = "",
    limit: Limit = _LIMIT,
    all_: _All = False,
) -> None:
    """List the accounts, by id and unit."""
    with session.client() as client:
        found = client.list_accounts(prefix, page_size=_page_size(limit, everything=all_))
        session.show_all(found if all_ else islice(found, limit), tables.accounts)


def _page_size(limit: int, *, everything: bool) -> int:
    return _PAGE_SIZE_MAX if everything else min(limit, _PAGE_SIZE_MAX)
