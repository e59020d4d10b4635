"""The engine's twin: a whole ledger in memory, decided by the same rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from meterhold_server.core.decide import decide
from meterhold_server.core.invariants import violations
from meterhold_server.core.model import Entry, Rules, State
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

    async def submit_many(
        self,
        operations: Sequence[Operation],
        deadline: float | None = None,
        order: int | None = None,
    ) -> list[Outcome]:
        """As `Engine.submit_many`."""
        return [await self.submit(operation) for operation in operations]

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
