"""`python -m simulation`: prove it, and print the seeds and a table. See `make prove`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from functools import partial

from simulation import prove
from simulation.bugs import BUGS
from simulation.prove import Caught, Tally
from support.verdict import Figures, tell


def main() -> int:
    """Exit code 1 if a rule was broken, a bug got away, or too little happened."""
    options = _options()
    print(f"seeds {options.seed} to {options.seed + options.seeds - 1}", flush=True)
    seeds = range(options.seed, options.seed + options.seeds)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes) as pool:
        started = time.perf_counter()
        long = _sum(pool.imap_unordered(partial(prove.sound, operations=options.operations), seeds))
        _tell("simulated", long, time.perf_counter() - started)
        started = time.perf_counter()
        short = _sum(pool.imap_unordered(prove.twice_checked, seeds))
        _tell("checked by two checkers", short, time.perf_counter() - started)
        caught = list(pool.imap(prove.catch, BUGS))
    _tell_bugs(caught)
    problems = [*long.violations, *short.violations, *long.vacuous()]
    problems += [f"not caught: {name}" for name, each in _named(caught) if each is None]
    figures = Figures(
        long.operations + short.operations,
        long.faults.total() + short.faults.total(),
        long.unknowns + short.unknowns,
    )
    return tell(figures, problems)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    parser.add_argument("--seeds", type=int, default=320, help="how many")
    parser.add_argument("--operations", type=int, default=1000, help="for each seed")
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1))
    return parser.parse_args()


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.plus(tally)
    return total


def _tell(what: str, tally: Tally, seconds: float) -> None:
    rows = {
        f"histories {what}": tally.runs,
        "operations": tally.operations,
        "  sent, with what was asked again": tally.attempts,
        "  acknowledged": tally.acknowledged,
        "refusals": tally.refusals,
        "unknown outcomes resolved": tally.unknowns,
        "faults": sum(tally.faults.values()),
        **{f"  {fault}": number for fault, number in sorted(tally.faults.items())},
        "virtual seconds": round(tally.virtual_seconds),
        "seconds": round(seconds),
        "operations a second": round(tally.operations / seconds),
        **{name: tally.rules[rule] for name, rule in prove.RULES_COUNTED.items()},
        "violations of any rule": len(tally.violations),
    }
    for name, number in rows.items():
        print(f"{name:<40}{number:>12,}")
    print(flush=True)


def _named(caught: Iterable[Caught | None]) -> Iterable[tuple[str, Caught | None]]:
    return zip(BUGS, caught, strict=True)


def _tell_bugs(caught: list[Caught | None]) -> None:
    print(f"{sum(each is not None for each in caught)} of {len(caught)} planted bugs caught")
    for name, each in _named(caught):
        found = f"seed {each.seed:>2} by {', '.join(each.rules)}" if each else "NOT CAUGHT"
        print(f"  {name:<36}{found}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
