"""What a proof consists of: sound runs, two checkers, planted bugs that are caught, and floors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from meterhold_server.prove import search, witness
from meterhold_server.prove.history import Violation
from simulation.bugs import BUGS
from simulation.plan import RULES
from simulation.run import Run, run

BUG_SEEDS: Final = 60
BUG_OPERATIONS: Final = 400
SMALL_OPERATIONS: Final = 40

FAULTS: Final = (
    "answer lost",
    "clock stepped",
    "commit stalled",
    "database crash",
    "doubtful commit",
    "line cut",
    "line cut at commit",
    "line cut before commit",
    "line frozen",
    "message late",
    "process drained",
    "process killed",
    "process stopped",
    "request doubled",
    "request lost",
    "serialization failure",
)
"""Each must have happened, in as many runs as a proof takes."""


RULES_COUNTED: Final = {
    "lost": "lost",
    "doubled": "doubled",
    "phantom": "phantom",
    "below the floor": "floor",
    "expired early": "early",
    "INTERNAL or UNKNOWN": "broken",
}
"""What is told of even when there is none of it, by the rule that it would break."""


@dataclass
class Tally:
    """What runs came to, all together."""

    runs: int = 0
    operations: int = 0
    attempts: int = 0
    acknowledged: int = 0
    refusals: int = 0
    unknowns: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    virtual_seconds: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    """How often each rule was broken."""
    violations: list[str] = field(default_factory=list)

    def add(self, done: Run, violations: Sequence[Violation]) -> None:
        self.runs += 1
        self.operations += done.operations
        self.attempts += done.attempts
        self.acknowledged += done.acknowledged
        self.refusals += done.refusals
        self.unknowns += done.unknowns
        self.faults += done.faults
        self.virtual_seconds += done.virtual_seconds
        self.rules += Counter(violation.rule for violation in violations)
        self.violations += [f"seed {done.seed}: {violation}" for violation in violations]

    def plus(self, other: Tally) -> None:
        """Add what other runs came to."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def vacuous(self) -> Iterator[str]:
        """Why these runs would prove little: too little was done, or too little went wrong."""
        if 2 * self.acknowledged < self.operations:
            yield f"only {self.acknowledged} of {self.operations} calls were acknowledged"
        if 100 * self.unknowns < self.operations:
            yield f"only {self.unknowns} calls of unknown outcome were resolved"
        faults = sum(self.faults.values())
        if 60 * faults < self.operations:
            yield f"only {faults} faults"
        if 100 * self.refusals < self.operations:
            yield f"only {self.refusals} refusals"
        for fault in FAULTS:
            if self.faults[fault] * 40 < self.runs:
                yield f"only {self.faults[fault]} times: {fault}"


class Caught(NamedTuple):
    """How a planted bug was found: by the rules that it broke, in which seed."""

    bug: str
    seed: int
    rules: list[str]


def sound(seed: int, operations: int) -> Tally:
    """Run the service as it is, and check."""
    tally = Tally()
    done = run(seed, operations)
    tally.add(done, [*done.violations, *witness.check(done.history)])
    return tally


def caught_by_search(bug: str) -> bool:
    """Whether the search finds a planted bug by itself, in short histories."""
    grace_seconds = RULES.settle_grace.total_seconds()
    runs = (run(seed, SMALL_OPERATIONS, small=True, bug=BUGS[bug]) for seed in range(BUG_SEEDS))
    return any(search.check(done.history, grace_seconds) for done in runs)


def twice_checked(seed: int) -> Tally:
    """Run it for a short history, and have two checkers look at it."""
    tally = Tally()
    done = run(seed, SMALL_OPERATIONS, small=True)
    found = [*done.violations, *witness.check(done.history)]
    found += search.check(done.history, RULES.settle_grace.total_seconds())
    tally.add(done, found)
    return tally


def catch(bug: str) -> Caught | None:
    """Plant a bug, and look for it in as many seeds as it takes; None if none shows it."""
    for seed in range(BUG_SEEDS):
        done = run(seed, BUG_OPERATIONS, bug=BUGS[bug])
        found = [*done.violations, *witness.check(done.history)]
        if found:
            return Caught(bug, seed, sorted({violation.rule for violation in found}))
    return None
