"""Chains: several operations, of which all are done or none.

A chain is decided on copies, which take the place of what was copied if nothing was refused. So
there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable

from meterhold_server.core.copies import copy_of_account, copy_of_tombstone
from meterhold_server.core.expiry import expire_due, is_due
from meterhold_server.core.model import State
from meterhold_server.core.needs import needs
from meterhold_server.core.operations import Chain, Link
from meterhold_server.core.outcomes import Chained, Outcome, Reason, Rejected
from meterhold_server.core.posting import Posting

Step = Callable[[Posting, Link], Outcome]


def carry_out(posting: Posting, chain: Chain, step: Step) -> Chained:
    """Decide the operations of a chain by `step`, one after the other, up to a refusal.

    What is due expires first, whatever becomes of the chain.
    """
    _expire_due(posting, chain)
    trial = Posting(_named_by(chain, posting.state), posting.now, posting.rules)
    outcomes: list[Outcome] = []
    for operation in chain.operations:
        outcome = step(trial, operation)
        if isinstance(outcome, Rejected):
            return _refused(chain, len(outcomes), outcome)
        outcomes.append(outcome)
    posting.state.accounts.update(trial.state.accounts)
    posting.state.claims.update(trial.state.claims)
    posting.state.tombstones.update(trial.state.tombstones)
    posting.writes.add(trial.writes)
    return Chained(outcomes)


def _expire_due(posting: Posting, chain: Chain) -> None:
    for account_id in dict.fromkeys(each.account_id for each in chain.operations):
        account = posting.state.accounts.get(account_id)
        if account is not None and is_due(account, posting.now):
            expire_due(posting, account)


def _named_by(chain: Chain, state: State) -> State:
    """What a chain may read, with copies of what it may change. It changes no defaults."""
    wanted = needs(chain.operations)
    return State(
        {
            account_id: copy_of_account(state.accounts[account_id])
            for account_id in wanted.account_ids
            if account_id in state.accounts
        },
        {key: state.claims[key] for key in wanted.claims if key in state.claims},
        {
            key: copy_of_tombstone(state.tombstones[key])
            for key in wanted.tombstones
            if key in state.tombstones
        },
        state.defaults,
    )


def _refused(chain: Chain, index: int, refusal: Rejected) -> Chained:
    outcomes: list[Outcome] = [
        Rejected(Reason.CHAIN_REFUSED, {"index": index}) for _ in chain.operations
    ]
    outcomes[index] = refusal
    return Chained(outcomes)
