"""What it came to, and whether it was enough to prove anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from chaos.plan import CRASHES, Fault
from chaos.strikes import Strikes
from meterhold_server.prove.history import Call, Method, Told, Violation
from meterhold_server.prove.target import CANCELLED

RULES: Final = {
    "lost": "lost",
    "doubled": "doubled",
    "phantom": "phantom",
    "below the floor": "floor",
    "expired early": "early",
    "ended twice": "ended twice",
    "INTERNAL or UNKNOWN": "broken",
}
"""What is told of even when there is none of it, by the rule that it would break."""

_OF_ITS_OWN_KEY: Final = frozenset(
    {Method.GRANT, Method.DEBIT, Method.RESERVE, Method.CAPTURE, Method.EXTEND, Method.REFUND}
)


@dataclass
class Tally:
    """All numbers are of the whole run; `violations` begin with the seed."""

    calls: int = 0
    attempts: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    """Attempts of which their callers do not know what became."""
    unknown_applied: int = 0
    """Calls that were done, and whose first answer was that of a replay: what did it got none."""
    resolved: int = 0
    """Calls that were asked for again at the end."""
    commits_found: Counter[str] = field(default_factory=Counter)
    """COMMITs whose answer was lost, by what the servers found out about them."""
    keys: int = 0
    """Of the storm; `copies` is how often one was sent and answered, `effects` all they did."""
    copies: int = 0
    effects: int = 0
    holds: int = 0
    """Of the race; `ends` is how they ended, by their states."""
    ends: Counter[str] = field(default_factory=Counter)
    late: int = 0
    """How many of those that are settled had expired before."""
    faults: Counter[Fault] = field(default_factory=Counter)
    missed: Counter[Fault] = field(default_factory=Counter)
    """What was tried, and not done."""
    rules: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    @property
    def crashes(self) -> int:
        return sum(self.faults[fault] for fault in CRASHES)

    def add(self, seed: int, calls: Sequence[Call], violations: Sequence[Violation]) -> None:
        attempts = [attempt for call in calls for attempt in call.attempts]
        told = Counter(attempt.told for attempt in attempts)
        self.calls += len(calls)
        self.attempts += len(attempts)
        self.acknowledged += sum(call.done_time < inf for call in calls)
        self.refused += told[Told.REFUSED]
        self.unknown += told[Told.UNKNOWN]
        self.unknown_applied += sum(map(_found_by_its_key, calls))
        self.faults[Fault.CALL_CANCELLED] += sum(a.text == CANCELLED for a in attempts)
        self.faults[Fault.REQUEST_DOUBLED] += sum(map(_was_sent_twice_at_once, calls))
        self.rules += Counter(violation.rule for violation in violations)
        self.violations += [f"seed {seed}: {violation}" for violation in violations]

    def struck(self, strikes: Strikes) -> None:
        self.faults += strikes.counts
        self.missed += strikes.missed

    def plus(self, other: Tally) -> None:
        """Add what another part came to."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def _found_by_its_key(call: Call) -> bool:
    answers = call.answers
    keyed = call.method in _OF_ITS_OWN_KEY and not call.misuse
    return keyed and bool(answers) and all(answer.replayed for answer in answers)


def _was_sent_twice_at_once(call: Call) -> bool:
    first, *more = sorted(call.attempts, key=lambda attempt: attempt.call_time)
    return any(attempt.call_time < first.return_time for attempt in more)
