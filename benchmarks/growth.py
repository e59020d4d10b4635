"""`python -m benchmarks.growth`: the same loads on a small ledger and on a large one.

Two databases in one cluster, each with its own server. The large one has an account with ten
million entries, and a million accounts with a live hold each. The loads take turns between the two.
Then both sweep a hundred thousand holds that become due at once, and some that become due while
callers go on. In the end `verify` must find nothing in either. Figures go to `--results` for
`python -m benchmarks`, whose targets they are part of.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from rich.console import Console

from benchmarks import publishing, rounds, servers, sweeps
from benchmarks.ledgers import Accounts, load_ledger
from benchmarks.load import Orders
from benchmarks.results import Ratio, Round
from benchmarks.sides import Side, due_sheet, size_bytes, table_sheet
from benchmarks.tables import Sheet, for_terminal
from meterhold_server.storage.verify import verify

SMALL_ENTRIES: Final = 10
"""Entries of the account whose balance is compared with that of the one with millions."""

_HOLDS_LAST: Final = timedelta(days=6)
_WARM_UP_SECONDS_MAX: Final = 1.0


Found = dict[tuple[str, str], list[Round]]
"""By the names of the load and the ledger."""


class Load(NamedTuple):
    """A load on accounts of a prefix; `everywhere` spreads it over all there are."""

    name: str
    workload: str
    prefix: str = "bench-"
    hot: bool = False
    everywhere: bool = False
    callers_divisor: int = 1
    batch: int = 1


LOADS: Final = (
    Load("Debit", "debit"),
    Load("Debit, hot account", "debit", "big-", hot=True),
    Load("Reserve + Settle", "pair"),
    Load("Reserve + Settle, hot account", "pair", "big-", hot=True),
    Load("Debit, 1,000 a Batch", "batch_debit", callers_divisor=16, batch=1000),
)
EVERYWHERE: Final = Load("Debit, every account", "debit", everywhere=True)
BALANCES: Final = (
    Load("Balance, ten entries", "balance", "small-", hot=True),
    Load("Balance, all entries", "balance", "big-", hot=True),
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    console = Console(width=None if Console().is_terminal else 160)
    with ExitStack() as running:
        database = running.enter_context(servers.database())
        console.print(f"PostgreSQL {database.version}, --seed {options.seed}", style="dim")
        small, large = _sides(database, options, running, console)
        found = _operations(small, large, options, console)
        of_loads, ratios = _ratios(found)
        sheets = [
            Sheet("Growth: what an operation costs", _COST_HEADINGS, _costs(found, of_loads)),
            due_sheet((small, large), "big-0"),
            sweeps.measure((small, large), options, console),
            table_sheet((small, large)),
        ]
        _keep(options, ratios, sheets, found)
        for sheet in sheets:
            console.print(for_terminal(sheet))
        clean = [_is_clean(side, console) for side in (small, large)]
    return 0 if all(clean) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    million = 1_000_000
    parser.add_argument("--entries", type=int, default=10 * million, help="of one account (10M)")
    parser.add_argument("--accounts", type=int, default=million, help="with a live hold each (1M)")
    parser.add_argument("--due", type=int, default=100_000, help="holds that become due (100k)")
    parser.add_argument("--callers", type=int, default=64, help="concurrent callers (64)")
    parser.add_argument("--used", type=int, default=1000, help="accounts that are called (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, for the median (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="measured in a round (3)")
    parser.add_argument("--seed", type=int, help="of the order of turns (a random one)")
    parser.add_argument("--results", type=Path, default=publishing.FOLDER, help="folder of JSON")
    options = parser.parse_args(arguments)
    options.used = min(options.used, options.accounts)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**32)
    return options


def _sides(
    database: servers.Database,
    options: argparse.Namespace,
    running: ExitStack,
    console: Console,
) -> tuple[Side, Side]:
    ledgers = {"small": (options.used, SMALL_ENTRIES), "large": (options.accounts, options.entries)}
    sides = []
    for name, (accounts, entries) in ledgers.items():
        url = database.create_migrated(name)
        started = time.perf_counter()
        with psycopg.connect(url, autocommit=True) as connection:
            written = load_ledger(
                connection,
                Accounts("small-", 1, SMALL_ENTRIES),
                Accounts("big-", 1, entries),
                Accounts("bench-", accounts, 1, _HOLDS_LAST),
                Accounts(sweeps.PREFIX, options.due, 1),
            )
        seconds = time.perf_counter() - started
        console.print(f"{name}: {written:,} entries loaded in {seconds:.0f} s", style="dim")
        server = running.enter_context(servers.product(database, url))
        sides.append(Side(name, url, server, accounts))
    small, large = sides
    return small, large


def _operations(small: Side, large: Side, options: argparse.Namespace, console: Console) -> Found:
    """The rounds of each load on each ledger, which took turns."""
    turns: list[tuple[Load, tuple[Side, ...]]] = [(load, (small, large)) for load in LOADS]
    turns += [(load, (large,)) for load in (EVERYWHERE, *BALANCES)]
    found: Found = {}
    choose = random.Random(options.seed)
    for number in range(options.rounds):
        for load, sides in choose.sample(turns, len(turns)):
            # One right after the other, and each as often first.
            for side in choose.sample(sides, len(sides)):
                measured = _measure(load, side, options)
                found.setdefault((load.name, side.name), []).append(measured)
        console.print(f"round {number + 1}/{options.rounds} of the operations", style="dim")
    return found


def _ratios(found: Found) -> tuple[dict[str, Ratio], dict[str, Ratio]]:
    """Of each load, the large ledger to the small one; and the ratios that have a target."""
    of_loads = {
        load.name: _ratio(found[load.name, "large"], found[load.name, "small"]) for load in LOADS
    }
    few, many = (found[load.name, "large"] for load in BALANCES)
    slowest = min(of_loads.values(), key=lambda ratio: ratio.median)
    return of_loads, {"slowest load": slowest, "balance": _ratio(many, few)}


def _measure(load: Load, side: Side, options: argparse.Namespace) -> Round:
    accounts = side.accounts if load.everywhere else 1 if load.hot else options.used
    orders = Orders(
        address=side.server.address,
        workload=load.workload,
        run=secrets.token_hex(4),
        accounts=accounts,
        callers=max(1, options.callers // load.callers_divisor),
        seconds=options.seconds,
        warm_up_seconds=min(_WARM_UP_SECONDS_MAX, options.seconds / 2),
        batch=load.batch,
        prefix=load.prefix,
    )
    before = size_bytes(side.url)
    measured = rounds.run("benchmarks.load", orders, side.server.watched)
    grown = size_bytes(side.url) - before
    return measured | {"table_bytes": grown / measured["operations_in_all"]}


def _ratio(of: Sequence[Round], base: Sequence[Round]) -> Ratio:
    each = [a["per_second"] / b["per_second"] for a, b in zip(of, base, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


_COST_HEADINGS: Final = (
    "load", "ledger", "op/s", "× small", "rounds", "p50 ms", "p99 ms", "server µs/op",
    "database µs/op", "WAL B/op", "table B/op",
)  # fmt: skip


def _costs(found: Found, ratios: dict[str, Ratio]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for (load, side), measured in sorted(found.items(), key=lambda item: item[0]):
        ratio = ratios.get(load) if side == "large" else None
        rows.append(
            (
                load,
                side,
                f"{_median(measured, 'per_second'):,.0f}",
                f"{ratio.median:.2f}" if ratio else "",
                f"{ratio.least:.2f}–{ratio.most:.2f}" if ratio else "",
                f"{_median(measured, 'p50_milliseconds'):.1f}",
                f"{_median(measured, 'p99_milliseconds'):.1f}",
                f"{_median(measured, 'server_cpu_microseconds'):.0f}",
                f"{_median(measured, 'database_cpu_microseconds'):.0f}",
                f"{_median(measured, 'wal_bytes'):,.0f}",
                f"{_median(measured, 'table_bytes'):,.0f}",
            )
        )
    return rows


def _median(measured: Sequence[Round], figure: str) -> float:
    return statistics.median(one[figure] for one in measured)


def _keep(
    options: argparse.Namespace, ratios: dict[str, Ratio], sheets: list[Sheet], found: Found
) -> None:
    kept: dict[str, Any] = {
        "options": {name: value for name, value in vars(options).items() if name != "results"},
        "ratios": ratios,
        "sheets": [sheet._asdict() for sheet in sheets],
        "measured": [
            {"load": load, "ledger": ledger, "rounds": measured}
            for (load, ledger), measured in found.items()
        ],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / publishing.GROWTH).write_text(json.dumps(kept) + "\n")


def _is_clean(side: Side, console: Console) -> bool:
    started = time.perf_counter()
    found = verify(side.url)
    seconds = time.perf_counter() - started
    console.print(
        f"{side.name}: verified {found.accounts:,} accounts and {found.entries:,} entries in"
        f" {seconds:.0f} s, {len(found.differences)} differences"
    )
    for violation in found.violations[:10]:
        console.print(str(violation), markup=False)
    return found.clean


if __name__ == "__main__":
    sys.exit(main())
