"""`python -m benchmarks.coalescing`: what it brings that a client sends concurrent calls together.

Pairs of Reserve and Settle by an `AsyncClient` that coalesces and by one that does not, beside
calls of a server that does nothing, by the same client. All take turns, round after round, and
each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from itertools import count
from typing import Any, Final, NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

import meterhold
from benchmarks.__main__ import _cpu, _noop, _product, _Server
from benchmarks.load import account

ACCOUNTS: Final = 1000
WARM_UP_SECONDS: Final = 1.0
_STRIDE: Final = 7919
_TTL: Final = timedelta(minutes=10)


class Workload(NamedTuple):
    """`calls` are those of one piece of work."""

    name: str
    calls: int
    coalesce: bool
    noop: bool = False


WORKLOADS: Final = (
    Workload("no-op, unary", 1, coalesce=False, noop=True),
    Workload("pairs, one by one", 2, coalesce=False),
    Workload("pairs, coalesced", 2, coalesce=True),
)


async def load(address: str, number: int, callers: int, seconds: float) -> dict[str, float]:
    """Be the client: so many callers, each waiting for its answer."""
    workload, run = WORKLOADS[number], secrets.token_hex(4)
    numbers, finished, latencies = count(), asyncio.Event(), list[float]()

    async def pair(client: meterhold.AsyncClient, number: int) -> None:
        name, held = account(number * _STRIDE % ACCOUNTS), f"{run}-{number}"
        await client.reserve(name, 1000, reservation_id=held, ttl=_TTL)
        await client.settle(name, 700, reservation_id=held)

    async def debit(client: meterhold.AsyncClient, number: int) -> None:
        await client.debit(account(number * _STRIDE % ACCOUNTS), 5)

    async def caller(client: meterhold.AsyncClient) -> None:
        while not finished.is_set():
            started = time.perf_counter()
            await (debit if workload.noop else pair)(client, next(numbers))
            latencies.append(time.perf_counter() - started)

    async with meterhold.AsyncClient(
        address, coalesce=workload.coalesce, attempt_timeout_seconds=10
    ) as client:
        tasks = [asyncio.create_task(caller(client)) for _ in range(callers)]
        await asyncio.sleep(WARM_UP_SECONDS)
        latencies.clear()
        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        measured = sorted(latencies)
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
        finished.set()
        await asyncio.gather(*tasks)
    return {
        "per_second": len(measured) / elapsed,
        "p50_milliseconds": measured[len(measured) // 2] * 1000,
        "p99_milliseconds": measured[len(measured) * 99 // 100] * 1000,
        "client_microseconds": cpu / len(measured) / workload.calls * 1e6,
    }


def measure(number: int, server: _Server, callers: int, seconds: float) -> dict[str, float]:
    orders = json.dumps([server.address, number, callers, seconds])
    before = _cpu(server.process), _cpu(server.database)
    command = [sys.executable, "-m", "benchmarks.coalescing", "--load", orders]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    after = _cpu(server.process), _cpu(server.database)
    measured: dict[str, float] = json.loads(done.stdout)
    calls = measured["per_second"] * WORKLOADS[number].calls * (seconds + WARM_UP_SECONDS)
    for place, name in enumerate(("server", "database")):
        measured[f"{name}_microseconds"] = (after[place] - before[place]) / calls * 1e6
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coalescing", description=__doc__)
    parser.add_argument("--callers", type=int, default=256, help="concurrent callers (256)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, for the median (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured in a round (5)")
    parser.add_argument("--load", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(load(*options.load))))
        return
    found: list[list[dict[str, Any]]] = [[] for _ in WORKLOADS]
    with _product(1) as product, _noop() as noop:
        with meterhold.Client(product.address) as client:
            for number in range(ACCOUNTS):
                client.grant_once(account(number), 10**15, idempotency_key=f"bench-{number}")
        for _ in range(options.rounds):
            for number, workload in enumerate(WORKLOADS):
                server = noop if workload.noop else product
                found[number].append(measure(number, server, options.callers, options.seconds))
    Console().print(_table(found, options))


def _table(found: list[list[dict[str, Any]]], options: argparse.Namespace) -> Table:
    table = Table(
        title=f"{options.callers} callers, one connection, median of {options.rounds} × "
        f"{options.seconds:g} s",
        caption="server, database, client: CPU microseconds a call",
    )
    table.add_column("workload", no_wrap=True)
    for heading in ("a second", "p50 ms", "p99 ms", "client", "server", "database"):
        table.add_column(heading, justify="right")
    for workload, measurements in zip(WORKLOADS, found, strict=True):
        row = {key: statistics.median(m[key] for m in measurements) for key in measurements[0]}
        table.add_row(
            workload.name,
            f"{row['per_second']:,.0f}",
            f"{row['p50_milliseconds']:.1f}",
            f"{row['p99_milliseconds']:.1f}",
            *(f"{row[f'{who}_microseconds']:.0f}" for who in ("client", "server", "database")),
        )
    return table


if __name__ == "__main__":
    main()
