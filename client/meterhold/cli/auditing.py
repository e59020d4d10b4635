"""The commands that check the books of an account and set them right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import RenderableType

import meterhold
from meterhold.cli import tables
from meterhold.cli.exit_codes import ExitCode, UsageError
from meterhold.cli.options import Account, Unit
from meterhold.cli.running import command
from meterhold.cli.session import Session


@command
def verify(session: Session, account: Account, unit: Unit = "") -> None:
    """Recompute an account from its ledger and show what differs."""
    with session.client() as client:
        found = client.verify_balance(account, unit=unit)
    checked = f"{found.entry_count} entries checked: "
    if found.differences:
        differences = tables.differences(found.differences, session.shown)
        session.show(found, f"{checked}{_count(found.differences)}", "", differences)
    else:
        session.show(found, f"{checked}every invariant holds.")
    _end(found.differences)


@command
def rebuild(
    session: Session,
    account: Account,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    unit: Unit = "",
) -> None:
    """Set right what `verify` finds; corrections are entries, and history stays as it is."""
    if session.flags.json and not yes:
        raise UsageError("--json does not ask: give --yes")
    with session.client() as client:
        if not yes:
            _ask(session, client.verify_balance(account, unit=unit).differences)
        session.will_change()
        done = client.rebuild_balance(account, unit=unit)
    parts: list[RenderableType] = [f"{_count(done.repaired)} found, {_count(done.remaining)} left."]
    if done.corrections:
        parts += ["", tables.entries(done.corrections, session.shown)]
    if done.remaining:
        parts += ["", tables.differences(done.remaining, session.shown)]
    session.show(done, *parts)
    _end(done.remaining)


def _ask(session: Session, differences: Sequence[meterhold.Difference]) -> None:
    """Show what is to be set right, if anything is, and go on if that is wanted."""
    if not differences:
        return
    session.show(differences, tables.differences(differences, session.shown), "")
    try:
        typer.confirm("Set this right?", abort=True, err=True)
    except typer.Abort:
        raise UsageError("nothing was changed; --yes goes on without asking") from None


def _count(differences: Sequence[meterhold.Difference]) -> str:
    return f"{len(differences)} difference{'' if len(differences) == 1 else 's'}"


def _end(wrong: Sequence[meterhold.Difference]) -> None:
    if wrong:
        raise typer.Exit(ExitCode.UNSOUND)
