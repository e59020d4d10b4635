"""`python -m benchmarks`: the service beside three baselines, in one run.

The baselines are a gRPC server that does nothing; a naive server, with one transaction a call; and
bare SQL on sets. The database is the embedded one with fsync on, in a fresh folder on disk. Client,
server and database share the machine. The loads take turns, round by round, so that whatever else
the machine does touches all of them alike; a figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import random
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import ceiling, publishing, rounds, servers
from benchmarks.load import Orders
from benchmarks.plan import Load, plan
from benchmarks.results import Results, Round, about
from benchmarks.tables import as_markdown, for_terminal, sheets
from meterhold_server.config import workers_default

_WARM_UP_SECONDS_MAX: Final = 1.0


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if options.markdown or options.publish:
        results = publishing.latest(options.results)
        if options.publish:
            publishing.publish(results)
        else:
            print(as_markdown(results), end="")
        return
    console = Console(width=None if Console().is_terminal else 160)
    results = _measure(options, console)
    results.growth = publishing.growth(options.results)
    results.save(options.results / publishing.RESULTS)
    for sheet in sheets(results):
        console.print(for_terminal(sheet))
    console.print(
        "op/s: a pair of Reserve and Settle counts as two, a Batch as those in it; client, server,"
        " database: CPU cores busy"
    )
    drawn = publishing.draw(results, options.results)
    console.print(f"kept in {options.results}" + ("" if drawn else "; no matplotlib, no plot"))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--callers", type=int, default=64, help="concurrent callers (64)")
    parser.add_argument("--accounts", type=int, default=1000, help="accounts, if not one (1000)")
    parser.add_argument(
        "--workers", type=int, default=workers_default(), help="server processes (as by default)"
    )
    parser.add_argument("--connections", type=int, default=4, help="that callers share (4)")
    parser.add_argument("--rounds", type=int, help="rounds, for the median (3; 5 with --full)")
    parser.add_argument("--seconds", type=float, help="measured in a round (2; 5 with --full)")
    parser.add_argument("--full", action="store_true", help="longer, and all loads in all rounds")
    parser.add_argument("--only", default="", help="loads with this in their names alone")
    parser.add_argument("--seed", type=int, help="of the arrivals (a random one)")
    parser.add_argument(
        "--compiled", type=Path, help="folder of the compiled build, to measure too"
    )
    parser.add_argument(
        "--results", type=Path, default=publishing.FOLDER, help="folder of JSON and PNG"
    )
    parser.add_argument("--markdown", action="store_true", help="print the last results, and stop")
    parser.add_argument(
        "--publish", action="store_true", help="put the last results into docs/, and stop"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (5 if options.full else 3)
    options.seconds = options.seconds or (5.0 if options.full else 2.0)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**32)
    return options


def _measure(options: argparse.Namespace, console: Console) -> Results:
    every = plan(options.accounts, options.callers, compiled=options.compiled is not None)
    wanted = [load for load in every if options.only in load.label]
    with servers.database() as database, ExitStack() as running:
        results = Results(about(_kept(options), database.version))
        console.print(f"PostgreSQL {database.version}, --seed {options.seed}", style="dim")
        needed = {load.server for load in wanted}
        started = {name: running.enter_context(_server(name, database, options)) for name in needed}
        for number in range(options.rounds):
            last = number + 1 == options.rounds
            for load in wanted:
                # In the last round, when it is known best what the servers do at most.
                if load.extra and not (last or options.full):
                    continue
                found = _round(load, started[load.server], options, results)
                results.add(load, found)
                text = f"round {number + 1}: {load.label}: {found['per_second']:,.0f}/s"
                console.print(text, style="dim", highlight=False)
    return results


@contextmanager
def _server(
    name: str, database: servers.Database, options: argparse.Namespace
) -> Iterator[servers.Server]:
    """A server of that name, on a database of its own, with funded accounts."""
    if name == "noop":
        with servers.noop(options.workers) as server:
            yield server
    elif name == "ceiling":
        yield servers.bare(database, database.create(name), options.accounts)
    elif name == "naive":
        with servers.naive(database, database.create(name)) as server:
            servers.fund(server.address, options.accounts)
            yield server
    else:
        url = database.create_migrated(name)
        build = options.compiled if name == "compiled" else None
        with servers.product(database, url, options.workers, build=build) as server:
            servers.fund(server.address, options.accounts)
            yield server


def _kept(options: argparse.Namespace) -> dict[str, Any]:
    names = ("callers", "accounts", "workers", "connections", "rounds", "seconds", "full", "seed")
    return {name: getattr(options, name) for name in names}


def _round(
    load: Load, server: servers.Server, options: argparse.Namespace, results: Results
) -> Round:
    warm_up = min(_WARM_UP_SECONDS_MAX, options.seconds / 2)
    if load.server == "ceiling":
        sets = ceiling.Orders(
            server.address, load.workload, load.accounts, load.batch, options.seconds, warm_up
        )
        return rounds.run("benchmarks.ceiling", sets, server.watched)
    orders = Orders(
        address=server.address,
        workload=load.workload,
        run=secrets.token_hex(4),
        accounts=load.accounts,
        callers=load.callers,
        seconds=options.seconds,
        warm_up_seconds=warm_up,
        connections=options.connections,
        batch=load.batch,
        rate=_rate(load, results),
        seed=options.seed,
    )
    return rounds.run("benchmarks.load", orders, server.watched)


def _rate(load: Load, results: Results) -> float:
    """What is offered: a part of what the server did when its callers waited for it."""
    if not load.offered:
        return 0.0
    most = results.load(load.server, "debit")
    if most is None:
        raise SystemExit(f"{load.label!r} needs what {load.server} does at most: widen --only")
    return load.offered * results.median(most, "per_second")


if __name__ == "__main__":
    main()
