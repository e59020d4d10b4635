"""What callers know of an account: the names to ask about, and the calls to make again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import (
    Debit,
    DebitOnce,
    Extend,
    GrantOnce,
    Operation,
    RefundCharge,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
)
from meterhold_server.core.outcomes import Debited, Outcome, Reason, Rejected, Settled

Keyed: TypeAlias = (
    Reserve | Settle | Extend | Debit | DebitOnce | GrantOnce | RefundCharge | RevokeGrant
)
"""What can be sent again to find out what became of it."""


def is_keyed(operation: Operation) -> bool:
    match operation:
        case Extend():
            return bool(operation.extend_id)
        case Debit():
            return bool(operation.request_id)
        case RevokeGrant():
            return operation.account_named
        case _:
            return isinstance(operation, Keyed)


_HAS_ENDED: Final = {
    Reason.RESERVATION_SETTLED,
    Reason.RESERVATION_RELEASED,
    Reason.RESERVATION_EXPIRED,
}


def _few(number: int) -> deque[str]:
    return deque(maxlen=number)


@dataclass
class Names:
    """The newest of each kind. All who share an account share these."""

    key: AccountKey
    hot: bool
    holds: deque[str] = field(default_factory=lambda: _few(10))
    old_holds: deque[str] = field(default_factory=lambda: _few(100))
    grants: deque[str] = field(default_factory=lambda: _few(12))
    foretold: deque[str] = field(default_factory=lambda: _few(4))
    """Keys of grants that were revoked before they came."""
    charges: deque[int] = field(default_factory=lambda: deque(maxlen=30))
    done: deque[Keyed] = field(default_factory=lambda: deque(maxlen=30))
    newest_seq: int = 0

    def _forget(self, operation: Operation) -> None:
        reservation_id = getattr(operation, "reservation_id", "")
        if reservation_id in self.holds:
            self.holds.remove(reservation_id)

    def learn(self, operation: Operation, outcome: Outcome) -> None:
        """Remember what an answer tells of."""
        if isinstance(outcome, Rejected):
            if outcome.reason in _HAS_ENDED:
                self._forget(operation)
            return
        if is_keyed(operation):
            assert isinstance(operation, Keyed)
            self.done.append(operation)
        match operation:
            case Reserve():
                self.holds.append(operation.reservation_id)
                self.old_holds.append(operation.reservation_id)
            case Settle(keep_open=False) | Release():
                self._forget(operation)
            case GrantOnce():
                self.grants.append(operation.idempotency_key)
        if isinstance(outcome, Debited):
            self.charges.append(outcome.entry.seq)
        if isinstance(outcome, Settled) and outcome.entry_seq:
            self.charges.append(outcome.entry_seq)
        if balance := getattr(outcome, "balance", None):
            self.newest_seq = max(self.newest_seq, balance.seq)
