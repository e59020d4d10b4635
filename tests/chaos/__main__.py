"""`python -m chaos`: prove it, and print the seeds and a table. See `make prove`."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack

from chaos import prove
from chaos.plan import OF_CALLERS, Fault
from chaos.prove import Ground, Sizes
from chaos.tally import RULES, Tally
from support.verdict import Figures, tell


def main() -> int:
    """Exit code 1 if a rule was broken, or too little happened."""
    options = _options()
    # Whoever ends this ends what it has started, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sizes = Sizes(options.rounds, options.operations, options.keys, options.copies, options.holds)
    seed, started = options.seed, time.perf_counter()
    print(f"seeds {seed} to {seed + sizes.rounds - 1}", flush=True)
    with ExitStack() as stack:
        ground = prove.ground(stack)
        rounds = Tally()
        for tally in prove.rounds(ground, seed, sizes):
            rounds.plus(tally)
            print(f"{time.perf_counter() - started:.0f} s: {tally.crashes} crashes", flush=True)
        _tell_rounds(rounds, ground)
        storm = prove.storm_of(ground, seed, sizes) if sizes.keys else Tally()
        _tell_storm(storm)
        race = prove.race_of(ground, seed, sizes) if sizes.holds else Tally()
        _tell_race(race)
    problems = [*rounds.violations, *storm.violations, *race.violations]
    problems += prove.vacuous_rounds(rounds, ground.possible, sizes)
    problems += [*prove.vacuous_storm(storm, sizes), *prove.vacuous_race(race, sizes)]
    _tell_rules(rounds, storm, race)
    print(f"{time.perf_counter() - started:.0f} s in all")
    figures = Figures(
        rounds.acknowledged + storm.copies + race.holds,
        rounds.faults.total() + storm.crashes + race.faults.total(),
        rounds.unknown_applied + storm.unknown,
    )
    return tell(figures, problems)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--rounds", type=int, default=4, help="how many, each with a seed")
    parser.add_argument("--operations", type=int, default=18_000, help="for each round")
    parser.add_argument("--keys", type=int, default=10_000, help="of the storm; 0 = no storm")
    parser.add_argument("--copies", type=int, default=10, help="how often each key is sent")
    parser.add_argument("--holds", type=int, default=20_000, help="of the race; 0 = no race")
    return parser.parse_args()


def _tell_rounds(tally: Tally, ground: Ground) -> None:
    _tell(
        {
            "calls among faults": tally.calls,
            "  sent, with what was asked again": tally.attempts,
            "  acknowledged": tally.acknowledged,
            "refusals": tally.refused,
            "attempts of unknown outcome": tally.unknown,
            "  calls found done by their keys": tally.unknown_applied,
            "  calls asked for again at the end": tally.resolved,
            "COMMITs without an answer": tally.commits_found.total(),
            "  found done by the server": tally.commits_found["done"],
            "  found undone by the server": tally.commits_found["undone"],
            "crashes": tally.crashes,
            **_faults(tally, ground),
        }
    )


def _faults(tally: Tally, ground: Ground) -> dict[str, object]:
    rows: dict[str, object] = {}
    for fault in sorted(Fault):
        if fault in ground.impossible:
            rows[f"  {fault}"] = f"not possible here: {ground.impossible[fault]}"
        else:
            missed = tally.missed[fault]
            told = f"{tally.faults[fault]:>12,}" + (f", {missed} missed" if missed else "")
            rows[f"  {fault}"] = told
    of_callers = sum(tally.faults[fault] for fault in OF_CALLERS)
    return {"faults, without those of callers": tally.faults.total() - of_callers, **rows}


def _tell_storm(tally: Tally) -> None:
    _tell(
        {
            "keys sent by the storm": tally.keys,
            "  copies answered": tally.copies,
            "  effects": tally.effects,
            "  attempts of unknown outcome": tally.unknown,
            "  crashes meanwhile": tally.crashes,
        }
    )


def _tell_race(tally: Tally) -> None:
    _tell(
        {
            "holds raced for": tally.holds,
            **{f"  {state.lower()}": number for state, number in sorted(tally.ends.items())},
            "  settled after they had expired": tally.late,
            "  jumps of clocks that are an hour off": tally.faults[Fault.CLOCK_JUMPED],
        }
    )


def _tell_rules(*tallies: Tally) -> None:
    total = Tally()
    for tally in tallies:
        total.plus(tally)
    rows = {name: total.rules[rule] for name, rule in RULES.items()}
    _tell({**rows, "violations of any rule": len(total.violations)})


def _tell(rows: Mapping[str, object]) -> None:
    for name, value in rows.items():
        told = f"{value:>12,}" if isinstance(value, int) else str(value)
        print(f"{name:<40}{told}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
