"""The commands that set what accounts may do and what they get."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

import typer

from meterhold import Allowance, AllowancePeriod, SignupGrant
from meterhold.cli import tables
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.options import (
    Account,
    AllowanceAmount,
    AllowanceAnchor,
    AllowancePeriodOption,
    AllowancePriority,
    Lifetime,
    Unit,
    amount_option,
)
from meterhold.cli.running import command
from meterhold.cli.session import Session


@command
def configure(
    session: Session,
    account: Account,
    credit_limit: Annotated[str | None, amount_option("How far below zero charges may go.")] = None,
    holds_use_credit: Annotated[
        bool | None,
        typer.Option(
            "--holds-use-credit/--holds-without-credit",
            help="Whether holds may use the limit, too.",
            show_default=False,
        ),
    ] = None,
    frozen: Annotated[
        bool | None,
        typer.Option(
            "--freeze/--thaw", help="Take no new work and no credits.", show_default=False
        ),
    ] = None,
    allowance: AllowanceAmount = None,
    allowance_period: AllowancePeriodOption = None,
    allowance_anchor: AllowanceAnchor = None,
    allowance_priority: AllowancePriority = None,
    unit: Unit = "",
) -> None:
    """Set what an account may do and gets; what no option names stays as it is."""
    credit_limit_micros = None if credit_limit is None else session.amount(credit_limit)
    wanted = _allowance(session, allowance, allowance_period, allowance_anchor, allowance_priority)
    settings = (credit_limit_micros, holds_use_credit, frozen, wanted)
    if all(setting is None for setting in settings):
        raise UsageError(
            "give at least one of --credit-limit, --holds-use-credit, --freeze and --allowance"
        )
    with session.client() as client:
        session.will_change()
        session.repeat_at("--allowance-anchor", allowance_anchor)
        done = client.configure_account(
            account,
            unit=unit,
            credit_limit_micros=credit_limit_micros,
            holds_use_credit=holds_use_credit,
            frozen=frozen,
            allowance=wanted,
        )
    session.show(done, tables.account(done, session.shown))


@command
def defaults(
    session: Session,
    signup_grant: Annotated[
        str | None, amount_option("What each new account is given once; 0cr for nothing.")
    ] = None,
    signup_lifetime: Lifetime = None,
    allowance: AllowanceAmount = None,
    allowance_period: AllowancePeriodOption = None,
    allowance_anchor: AllowanceAnchor = None,
    allowance_priority: AllowancePriority = None,
    unit: Unit = "",
) -> None:
    """Set what accounts get when they are created, or show it if no option says what."""
    signup = _signup_grant(session, signup_grant, signup_lifetime)
    wanted = _allowance(session, allowance, allowance_period, allowance_anchor, allowance_priority)
    with session.client() as client:
        if signup is None and wanted is None:
            found = client.get_defaults(unit=unit)
        else:
            session.will_change()
            session.repeat_at("--allowance-anchor", allowance_anchor)
            found = client.configure_defaults(unit=unit, signup_grant=signup, allowance=wanted)
    session.show(found, tables.defaults(found, session.shown))


def _signup_grant(
    session: Session, amount: str | None, lifetime: timedelta | None
) -> SignupGrant | None:
    if amount is None and lifetime is not None:
        raise UsageError("--signup-lifetime needs --signup-grant, the amount")
    if amount is None:
        return None
    return SignupGrant(amount_micros=session.amount(amount), lifetime=lifetime)


def _allowance(
    session: Session,
    amount: str | None,
    period: AllowancePeriod | None,
    anchor_time: datetime | None,
    priority: int | None,
) -> Allowance | None:
    """The allowance that the options ask for, None if none does. Raises UsageError."""
    if period is AllowancePeriod.OFF:
        if (amount, anchor_time, priority) != (None, None, None):
            raise UsageError("--allowance-period off goes without the other options of it")
        return Allowance.OFF
    if amount is not None and period is not None:
        return Allowance(
            amount_micros=session.amount(amount),
            period=period,
            anchor_time=anchor_time,
            priority=priority,
        )
    if (amount, period, anchor_time, priority) != (None, None, None, None):
        raise UsageError("an allowance needs --allowance, its amount, and --allowance-period")
    return None
