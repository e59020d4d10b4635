"""`python -m benchmarks`: Debit, Reserve+Settle and Batch beside a no-op server, in one run.

The database is the embedded one with fsync on, in a fresh folder on disk. Client, server and
database share the machine. Every figure is the median of `--rounds` rounds; the workloads take
turns, so that whatever else the machine does touches all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.table import Table

import meterhold
from benchmarks.load import BATCH_OPERATIONS, account
from meterhold_server.embedded import EmbeddedPostgres
from meterhold_server.storage import migrate

ACCOUNTS = 1000


class Workload(NamedTuple):
    """`callers_divisor`: a caller of Batch has many operations under way, so that fewer will do."""

    name: str
    kind: str
    accounts: int
    operations: int = 1
    callers_divisor: int = 1


WORKLOADS = (
    Workload("no-op server", "noop", ACCOUNTS),
    Workload("Debit, 1 000 accounts", "debit", ACCOUNTS),
    Workload("Debit, one hot account", "debit", 1),
    Workload("100 Debits a Batch, 1 000 accounts", "batch", ACCOUNTS, BATCH_OPERATIONS, 16),
    Workload("100 Debits a Batch, one hot account", "batch", 1, BATCH_OPERATIONS, 16),
    Workload("Reserve+Settle, 1 000 accounts", "pair", ACCOUNTS),
    Workload("Reserve+Settle, one hot account", "pair", 1),
)


def main() -> None:
    options = _options()
    console = Console()
    found: dict[str, list[dict[str, Any]]] = {workload.name: [] for workload in WORKLOADS}
    with _product(options.workers) as product, _noop() as noop:
        with meterhold.Client(product.address) as client:
            for number in range(ACCOUNTS):
                client.grant_once(account(number), 10**15, idempotency_key=f"bench-{number}")
        for number in range(options.rounds):
            for workload in WORKLOADS:
                server = noop if workload.kind == "noop" else product
                found[workload.name].append(_measure(workload, server, options))
                console.print(f"round {number + 1}/{options.rounds}: {workload.name}", style="dim")
    rows = {name: _median(measurements) for name, measurements in found.items()}
    console.print(_table(rows, options))
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": ""}, "rows": rows}))


class _Server(NamedTuple):
    address: str
    process: psutil.Process
    database: psutil.Process | None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--callers", type=int, default=64, help="concurrent callers (64)")
    parser.add_argument("--channels", type=int, default=1, help="connections they share (1)")
    parser.add_argument("--workers", type=int, default=1, help="server processes (1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, for the median (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured in a round (5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    return parser.parse_args()


@contextmanager
def _product(workers: int) -> Iterator[_Server]:
    """The service, as `meterhold-server serve` runs it, on a durable database."""
    with tempfile.TemporaryDirectory(prefix="meterhold-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres.start(Path(folder) / "postgres") as postgres:
            migrate.upgrade(postgres.url)
            environment = os.environ | {
                "METERHOLD_DATABASE_URL": postgres.url,
                "METERHOLD_ADDRESS": "127.0.0.1:0",
                "METERHOLD_WORKERS": str(workers),
                "METERHOLD_LOG_FORMAT": "json",
            }
            command = [sys.executable, "-m", "meterhold_server", "serve"]
            with subprocess.Popen(
                command, env=environment, stderr=subprocess.PIPE, text=True
            ) as process:
                try:
                    address = _serving(process)
                    yield _Server(address, psutil.Process(process.pid), _postmaster(folder))
                finally:
                    process.terminate()
                    process.communicate()


def _serving(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line)
        if event["event"] == "serving":
            return str(event["address"])
    raise RuntimeError("the server ended before it served")


def _postmaster(folder: str) -> psutil.Process:
    pid_file = Path(folder) / "postgres" / "data" / "postmaster.pid"
    return psutil.Process(int(pid_file.read_text().splitlines()[0]))


@contextmanager
def _noop() -> Iterator[_Server]:
    command = [sys.executable, "-m", "benchmarks.noop_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        try:
            yield _Server(f"127.0.0.1:{port}", psutil.Process(process.pid), None)
        finally:
            process.terminate()


def _measure(workload: Workload, server: _Server, options: argparse.Namespace) -> dict[str, Any]:
    orders = {
        "address": server.address,
        "workload": workload.kind,
        "run": secrets.token_hex(4),
        "accounts": workload.accounts,
        "callers": max(1, options.callers // workload.callers_divisor),
        "channels": options.channels,
        "seconds": options.seconds,
        "warm_up_seconds": 1.0,
    }
    before = _cpu(server.process), _cpu(server.database)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", json.dumps(orders)],
        stdout=subprocess.PIPE,
        check=True,
    )
    after = _cpu(server.process), _cpu(server.database)
    measured: dict[str, Any] = json.loads(done.stdout)
    measured["calls_per_second"] *= workload.operations
    elapsed = options.seconds + orders["warm_up_seconds"]
    measured["server_cores"] = (after[0] - before[0]) / elapsed
    measured["database_cores"] = (after[1] - before[1]) / elapsed
    measured["client_cores"] = measured["client_cpu_seconds"] / options.seconds
    return measured


def _cpu(process: psutil.Process | None) -> float:
    """CPU seconds of a process and all below it."""
    if process is None:
        return 0.0
    family = [process, *process.children(recursive=True)]
    return sum(sum(member.cpu_times()[:2]) for member in family)


def _median(measurements: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(m[key] for m in measurements) for key in measurements[0]}


def _table(rows: dict[str, dict[str, float]], options: argparse.Namespace) -> Table:
    table = Table(
        title=f"{options.callers} callers, {options.workers} server process(es), fsync on, "
        f"{os.cpu_count()} cores, median of {options.rounds} × {options.seconds:g} s",
        caption="calls: a Batch counts as those in it; server, database, client: CPU cores busy",
    )
    table.add_column("workload", no_wrap=True)
    headings = ("calls/s", "× no-op", "p50 ms", "p99 ms", "server", "database", "client")
    for heading in headings:
        table.add_column(heading, justify="right")
    noop = rows["no-op server"]["calls_per_second"]
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['calls_per_second']:,.0f}",
            f"{row['calls_per_second'] / noop:.2f}",
            f"{row['p50_milliseconds']:.1f}",
            f"{row['p99_milliseconds']:.1f}",
            f"{row['server_cores']:.2f}",
            f"{row['database_cores']:.2f}",
            f"{row['client_cores']:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
