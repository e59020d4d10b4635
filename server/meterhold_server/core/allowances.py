"""Allowances: a lot that is replaced at each boundary.

What is left of the old lot expires as any other does, at its own time, which is the boundary. A
change counts from the end of the running period, so that no period is ever given twice.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from meterhold_server.core import funds
from meterhold_server.core.calendar import boundary, first_boundary, period_number
from meterhold_server.core.deposits import Terms, deposit
from meterhold_server.core.model import (
    Account,
    Allowance,
    AllowancePeriod,
    AllowanceTerms,
    EntryKind,
    LotCategory,
)
from meterhold_server.core.posting import Posting
from meterhold_server.core.range import refuse_range

PRIORITY_DEFAULT: Final = 10
"""Before other credits."""


def set_allowance(posting: Posting, account: Account, terms: AllowanceTerms) -> None:
    """Give an account other terms. A first allowance is refilled at once if its anchor has come.

    By default it is anchored at its first configuration, and spent at `PRIORITY_DEFAULT`.
    """
    old = account.allowance
    anchor = terms.anchor_time or (old.anchor_time if old else posting.now)
    priority = terms.priority
    if priority is None:
        priority = old.priority if old else PRIORITY_DEFAULT
    until = old.until_time if old else None
    new = Allowance(
        account.account_id,
        terms.amount_micros,
        terms.period,
        anchor,
        priority,
        until,
        stored=old.stored if old else False,
    )
    if new.period is not AllowancePeriod.OFF:
        if until is None or until <= posting.now:
            new.refill_time = max(anchor, period_begin(new, posting.now))
        else:
            new.refill_time = first_boundary(anchor, new.period, until)
    account.allowance = new
    posting.touch_allowance(new)
    if new.refill_time is not None:
        if new.refill_time <= posting.now:
            refill(posting, account, new)
        else:
            funds.expect_expiry(account, new.refill_time)


def period_begin(allowance: Allowance, at: datetime) -> datetime:
    """When the period that `at` lies in began."""
    number = period_number(allowance.anchor_time, allowance.period, at)
    return boundary(allowance.anchor_time, allowance.period, number)


def refill(posting: Posting, account: Account, allowance: Allowance) -> None:
    """Open the lot of the period that it is now: one, however many were missed.

    An account that has no room for it, at 9·10^18 micros, does without.
    """
    number = period_number(allowance.anchor_time, allowance.period, posting.now)
    until = boundary(allowance.anchor_time, allowance.period, number + 1)
    if not refuse_range(account, returned_micros=allowance.amount_micros):
        terms = Terms(allowance.priority, LotCategory.PROMOTIONAL, until)
        deposit(posting, account, EntryKind.ALLOWANCE, allowance.amount_micros, terms)
    allowance.until_time = allowance.refill_time = until
    funds.expect_expiry(account, until)
    posting.touch_allowance(allowance)
