"""What a seed stands for: how the service is set up, and what befalls it when."""

from __future__ import annotations

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple


class Fault(StrEnum):
    """What goes wrong, in the words of the table."""

    SERVER_KILLED = "kill -9 of a server"
    SERVER_DRAINED = "server drained and started again"
    SERVER_FROZEN = "server frozen"
    CLOCK_JUMPED = "clock of a server jumped two hours"
    BACKEND_KILLED = "kill -9 of a database session"
    BACKEND_FROZEN = "database session frozen"
    POSTMASTER_KILLED = "kill -9 of the postmaster"
    DATABASE_RESTARTED = "immediate restart of the database"
    COMMIT_CUT_BEFORE = "line cut before COMMIT arrived"
    COMMIT_CUT_AFTER = "line cut when COMMIT was done"
    COMMIT_CUT_DURING = "line cut while COMMIT was under way"
    COMMIT_SILENT = "peer silent from COMMIT on"
    LINE_FROZEN = "line frozen"
    LINE_SLOW = "line slow"
    LINE_REFUSED = "connections refused"
    LOCKS_HELD = "locks held until they time out"
    DEADLOCK = "deadlock"
    FSYNC_SLOW = "slow fsync"
    FSYNC_FAILED = "failing fsync"
    DISK_FULL = "disk full"
    CALL_CANCELLED = "call cancelled by its caller"
    REQUEST_DOUBLED = "request sent twice at once"


CRASHES: Final = (
    Fault.SERVER_KILLED,
    Fault.BACKEND_KILLED,
    Fault.POSTMASTER_KILLED,
    Fault.DATABASE_RESTARTED,
    Fault.FSYNC_FAILED,
)
"""After which a process, or all of the database, comes back with nothing but what was written."""

SWEEPERS: Final = 2
"""How many of the servers sweep."""

OF_CALLERS: Final = (Fault.CALL_CANCELLED, Fault.REQUEST_DOUBLED)
"""What callers do all the time, without a strike."""

_WEIGHTS: Final = {
    # A server that starts again takes the machine longer than a database that does.
    Fault.SERVER_KILLED: 1.5,
    Fault.SERVER_DRAINED: 0.5,
    Fault.BACKEND_KILLED: 3,
    Fault.POSTMASTER_KILLED: 2,
    Fault.FSYNC_FAILED: 0.5,
}
_RARE: Final = (Fault.DISK_FULL,)


class Strike(NamedTuple):
    """A fault, once so many calls have been made. `chance` is for what it draws."""

    fault: Fault
    after_calls: int
    chance: random.Random


class Plan(NamedTuple):
    """One round. Times in seconds; the settings are those of each server."""

    seed: int
    operations: int
    accounts: int
    callers: int
    impatience: float
    timeout_seconds: float
    attempt_timeout_seconds: float
    settings: list[dict[str, object]]
    strikes: list[Strike]


def plan_of(
    seed: int,
    operations: int,
    *,
    sure: Sequence[Fault],
    possible: Sequence[Fault],
    crashes: int,
    others: int,
) -> Plan:
    """Each seed has its own few faults, at its own rates: swarms find more than an average does.

    It has one of each of `sure` at least, and then so many `crashes` and `others` in all, as far
    as they are `possible`.
    """
    chance = random.Random(f"chaos {seed}")
    of_crashes = [fault for fault in possible if fault in CRASHES]
    of_others = [fault for fault in possible if fault not in (*CRASHES, *_RARE)]
    faults = [
        *sure,
        *_more(chance, crashes, of_crashes, sure),
        *_more(chance, others, of_others, sure),
    ]
    chance.shuffle(faults)
    return Plan(
        seed=seed,
        operations=operations,
        accounts=max(20, operations // 40),
        callers=chance.choice([128, 192, 256]),
        impatience=chance.choice([0.01, 0.03]),
        timeout_seconds=chance.choice([1.0, 2.0, 3.0]),
        attempt_timeout_seconds=chance.choice([0.5, 1.0]),
        settings=[_settings(chance, number) for number in range(chance.choice([2, 3]))],
        strikes=spread(faults, operations, chance),
    )


def _more(
    chance: random.Random, wanted: int, kinds: Sequence[Fault], sure: Sequence[Fault]
) -> list[Fault]:
    """Faults of some of these kinds, of each at its own rate. With those of `sure`: so many."""
    left = wanted - sum(fault in kinds for fault in sure)
    if not kinds or left <= 0:
        return []
    few = [kind for kind in kinds if kind in sure or chance.random() < 0.5]
    few = few or [chance.choice(kinds)]
    weights = [_WEIGHTS.get(kind, 1) * chance.uniform(0.3, 1.0) for kind in few]
    return chance.choices(few, weights, k=left)


def spread(faults: Sequence[Fault], operations: int, chance: random.Random) -> list[Strike]:
    """Strikes in that order, at even distances over so many calls."""
    return [
        Strike(fault, number * operations // (len(faults) + 1), random.Random(chance.random()))
        for number, fault in enumerate(faults, start=1)
    ]


def _settings(chance: random.Random, number: int) -> dict[str, object]:
    return {
        "sweep": number < SWEEPERS,
        "lanes": chance.choice([1, 1, 2]),
        "batch_operations_max": chance.choice([32, 64, 256]),
        "sweep_interval_seconds": chance.choice([0.1, 0.3]),
    }
