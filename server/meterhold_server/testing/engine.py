"""The engine's twin: a whole ledger in memory, decided by the same rules."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

from meterhold_server.core.decide import decide
from meterhold_server.core.invariants import violations
from meterhold_server.core.model import Entry, Receipt, Rules, State
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.core.posting import Writes


class MemoryEngine:
    """Decides each operation at once, on all there is. Not for threads to share.

    The core gives the same on everything as on the rows that storage would load for it.
    """

    def __init__(self, clock: Callable[[], datetime], rules: Rules) -> None:
        """`clock` tells the time, aware and never earlier than before."""
        self.clock = clock
        self.state = State()
        self.entries: dict[str, list[Entry]] = {}
        self._rules = rules

    async def submit(self, operation: Operation, deadline: float | None = None) -> Outcome:
        """As `Engine.submit`; nothing waits here, so that no deadline passes meanwhile."""
        (outcome,), writes = decide(self.state, [operation], self.clock(), self._rules)
        self._keep(writes)
        return outcome

    def violations(self) -> list[str]:
        """What is wrong with the books, in plain words; empty if nothing is."""
        return [
            violation
            for account in self.state.accounts.values()
            for violation in violations(account, self.entries.get(account.account_id, []))
        ]

    def _keep(self, writes: Writes) -> None:
        for entry in writes.entries:
            self.entries.setdefault(entry.account_id, []).append(entry)
        for claim in writes.claims:
            claim.receipt = _as_stored(claim.receipt)
        for reservation in writes.reservations.values():
            reservation.opening = _as_stored(reservation.opening)
            reservation.closing = reservation.closing and _as_stored(reservation.closing)


def _as_stored(receipt: Receipt) -> Receipt:
    """A receipt as it comes back from a database, since a refusal may quote what was asked."""
    return Receipt(_plain(receipt.request), receipt.answer)


def _plain(value: Any) -> Any:
    """What JSONB makes of a value: no enums, and the keys of an object by length first."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(key), key))
        return {key: _plain(value[key]) for key in keys}
    return value.value if isinstance(value, StrEnum) else value
