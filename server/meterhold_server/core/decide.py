"""The decision: what becomes of a list of operations, in order, against loaded state at one time.

Two laws hold and are tested for ever. Batching is invisible: a list decided whole, or cut anywhere,
gives the same outcomes and the same state. Nothing is made or lost: the identities of `invariants`
hold after every operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, assert_never

from meterhold_server.core import (
    accounts,
    chains,
    charges,
    grants,
    holds,
    refunds,
    repair,
    revocations,
)
from meterhold_server.core.audit import audit_record
from meterhold_server.core.expiry import expire_due, is_due
from meterhold_server.core.model import EMPTY_BALANCE, Account, Rules, State
from meterhold_server.core.operations import (
    Chain,
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Expire,
    Extend,
    GrantOnce,
    Operation,
    Rebuild,
    RefundCharge,
    ReinstateGrant,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
)
from meterhold_server.core.outcomes import Expired, Outcome
from meterhold_server.core.posting import Posting, Writes


class Decision(NamedTuple):
    """One outcome per operation, in order, and what has to be written for them to be true."""

    outcomes: list[Outcome]
    writes: Writes


def decide(state: State, operations: Sequence[Operation], now: datetime, rules: Rules) -> Decision:
    """Decide `operations` one after the other, changing `state` on the way.

    `state` must hold what `needs` and `still_needs` name. `now` is the database's time, read after
    the accounts were locked.
    """
    posting = Posting(state, now, rules)
    outcomes = [_step(posting, operation) for operation in operations]
    return Decision(outcomes, posting.writes)


def _step(posting: Posting, operation: Operation) -> Outcome:
    account = posting.state.accounts.get(operation.account_id)
    if isinstance(operation, Rebuild):
        # Before anything expires: what is damaged must not be worked with.
        return _audited(posting, operation, repair.rebuild(posting, account, operation))
    expired = None
    if account is not None and is_due(account, posting.now):
        expired = expire_due(posting, account)
    match operation:
        case Reserve():
            return holds.reserve(posting, account, operation)
        case Settle():
            return holds.settle(posting, account, operation)
        case Debit():
            return charges.debit(posting, account, operation)
        case DebitOnce():
            return charges.debit_once(posting, account, operation)
        case Release():
            return holds.release(posting, account, operation)
        case Extend():
            return holds.extend(posting, account, operation)
        case Expire():
            return expired or Expired(account.balance() if account else EMPTY_BALANCE)
        case _:
            outcome = _rarer_step(posting, account, operation)
            return _audited(posting, operation, outcome)


def _audited(posting: Posting, operation: Operation, outcome: Outcome) -> Outcome:
    record = audit_record(operation, outcome, posting.now)
    if record and posting.writes:  # A rebuild of what is sound writes nothing.
        posting.writes.audit.append(record)
    return outcome


_Rarer = (
    GrantOnce | RefundCharge | RevokeGrant | ReinstateGrant | Chain | Configure | ConfigureDefaults
)


def _rarer_step(posting: Posting, account: Account | None, operation: _Rarer) -> Outcome:
    match operation:
        case GrantOnce():
            return grants.grant_once(posting, account, operation)
        case RefundCharge():
            return refunds.refund_charge(posting, account, operation)
        case RevokeGrant():
            return revocations.revoke_grant(posting, account, operation)
        case ReinstateGrant():
            return revocations.reinstate_grant(posting, account, operation)
        case Chain():
            return chains.carry_out(posting, operation, _step)
        case Configure():
            return accounts.configure(posting, account, operation)
        case ConfigureDefaults():
            return accounts.configure_defaults(posting, operation)
        case _:
            assert_never(operation)
