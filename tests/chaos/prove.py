"""What a proof consists of: rounds of chaos, a storm of keys, a race for holds, and floors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

from chaos import disk
from chaos.deployment import prepare
from chaos.plan import OF_CALLERS, Fault, plan_of
from chaos.race import race
from chaos.rounds import chaos
from chaos.storm import storm
from chaos.tally import Tally
from robustness.database_apart import DatabaseApart

DISK_BYTES: Final = 1 << 30
CRASHES_PLANNED: Final = 14
OTHERS_PLANNED: Final = 12
"""In each round."""

_ACKNOWLEDGED_SHARE: Final = 0.7
_CRASHES_MIN: Final = 12.5
_UNKNOWN_APPLIED_MIN: Final = 10
"""In each round."""

_SHARE_OF_EACH_END_MIN: Final = 0.01


class Sizes(NamedTuple):
    """How much of each part; each round has so many `operations`."""

    rounds: int
    operations: int
    keys: int
    copies: int
    holds: int


class Ground(NamedTuple):
    """Where it happens, and what cannot happen there, with the reason."""

    database: DatabaseApart
    impossible: dict[Fault, str]

    @property
    def possible(self) -> list[Fault]:
        return [fault for fault in Fault if fault not in (*self.impossible, *OF_CALLERS)]


def ground(stack: ExitStack) -> Ground:
    """A database, on a small disk of its own if there is one to be had."""
    impossible = dict(disk.not_possible())
    try:
        database = DatabaseApart(disk_bytes=DISK_BYTES)
    except OSError as error:
        impossible[Fault.DISK_FULL] = f"no disk of its own: {error}"
        database = DatabaseApart()
    stack.enter_context(database)
    prepare(database.url)
    return Ground(database, impossible)


def rounds(on: Ground, seed: int, sizes: Sizes) -> Iterator[Tally]:
    """One after the other. Each fault that is possible is sure to be in one of them."""
    shuffled = random.Random(f"faults {seed}").sample(on.possible, len(on.possible))
    for number in range(sizes.rounds):
        plan = plan_of(
            seed + number,
            sizes.operations,
            sure=shuffled[number :: sizes.rounds],
            possible=on.possible,
            crashes=CRASHES_PLANNED,
            others=OTHERS_PLANNED,
        )
        yield run(chaos(on.database, plan))


def storm_of(on: Ground, seed: int, sizes: Sizes) -> Tally:
    return run(storm(on.database, seed, sizes.keys, sizes.copies))


def race_of(on: Ground, seed: int, sizes: Sizes) -> Tally:
    return run(race(on.database, seed, sizes.holds))


def run(part: Coroutine[Any, Any, Tally]) -> Tally:
    """In the event loop that the servers use as well."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(part)


def vacuous_rounds(tally: Tally, possible: Sequence[Fault], sizes: Sizes) -> Iterator[str]:
    """Why the rounds would prove little: too little was done, or too little went wrong."""
    floors = {
        "calls acknowledged": (
            tally.acknowledged,
            _ACKNOWLEDGED_SHARE * sizes.rounds * sizes.operations,
        ),
        "crashes": (tally.crashes, _CRASHES_MIN * sizes.rounds),
        "calls of unknown outcome found done": (
            tally.unknown_applied,
            _UNKNOWN_APPLIED_MIN * sizes.rounds,
        ),
    }
    for what, (number, least) in floors.items():
        if number < least:
            yield f"only {number} {what}, of at least {least:.0f}"
    for fault in (*possible, *OF_CALLERS):
        if not tally.faults[fault]:
            yield f"never: {fault}"


def vacuous_storm(tally: Tally, sizes: Sizes) -> Iterator[str]:
    if tally.copies < sizes.keys * sizes.copies:
        yield f"only {tally.copies} copies of keys were answered"


def vacuous_race(tally: Tally, sizes: Sizes) -> Iterator[str]:
    ends = {
        "settled in time": tally.ends["SETTLED"] - tally.late,
        "settled late": tally.late,
        "released": tally.ends["RELEASED"],
        "left to expire": tally.ends["EXPIRED"],
    }
    for end, number in ends.items():
        if number < _SHARE_OF_EACH_END_MIN * sizes.holds:
            yield f"only {number} of {sizes.holds} holds were {end}"
