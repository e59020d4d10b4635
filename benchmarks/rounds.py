"""One measured round: a load in a process of its own, and what it cost everybody meanwhile.

The load prints `begin` and `end` around the time that it measures, and then its figures as JSON.
Whoever runs it takes the CPU seconds of client, server and database, and the WAL, at these marks.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil
import psycopg

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BEGIN: Final = "begin"
END: Final = "end"

QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}

_WAL: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"


class Watched(NamedTuple):
    """Whose CPU counts as the server's and the database's; `url` is where to ask for the WAL."""

    server: psutil.Process | None
    database: psutil.Process | None
    url: str | None


class _Sample(NamedTuple):
    monotonic_seconds: float
    client_cpu_seconds: float
    server_cpu_seconds: float
    database_cpu_seconds: float
    wal_bytes: int


def mark(text: str) -> None:
    """Tell whoever runs this process that the measured time begins or ends now."""
    print(text, flush=True)


def figures(operations: int, elapsed_seconds: float, latencies: Sequence[float]) -> dict[str, Any]:
    """Operations a second, and the quantiles of latencies in seconds as milliseconds.

    Raises RuntimeError if there are none.
    """
    if not latencies:
        raise RuntimeError("nothing was answered in the measured time: measure for longer")
    ordered = sorted(latencies)
    last = len(ordered) - 1
    quantiles = {
        f"{name}_milliseconds": ordered[min(last, int(len(ordered) * part))] * 1000
        for name, part in QUANTILES.items()
    }
    return {"per_second": operations / elapsed_seconds, "operations": operations, **quantiles}


def run(module: str, orders: DataclassInstance, watched: Watched) -> dict[str, Any]:
    """Run a load, and answer its figures with those of the machine.

    `*_cores` are CPU cores busy, `*_cpu_microseconds` and `wal_bytes` are for each operation.
    Raises RuntimeError if the load fails.
    """
    command = [sys.executable, "-m", module, json.dumps(asdict(orders))]
    samples: list[_Sample] = []
    found: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        client = psutil.Process(process.pid)
        for line in process.stdout:
            if line.strip() in (BEGIN, END):
                samples.append(_sample(client, watched))
            else:
                found = json.loads(line)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {process.returncode}")
    before, after = samples
    return _rounded(found | _costs(before, after, found["operations"]))


def _rounded(found: dict[str, Any]) -> dict[str, Any]:
    """Digits below are noise, and would fill the files that keep the figures."""
    return {name: round(value, 3) for name, value in found.items()}


def _costs(before: _Sample, after: _Sample, operations: int) -> dict[str, float]:
    elapsed = after.monotonic_seconds - before.monotonic_seconds
    costs: dict[str, float] = {"wal_bytes": (after.wal_bytes - before.wal_bytes) / operations}
    for who in ("client", "server", "database"):
        seconds = getattr(after, f"{who}_cpu_seconds") - getattr(before, f"{who}_cpu_seconds")
        costs[f"{who}_cores"] = seconds / elapsed
        costs[f"{who}_cpu_microseconds"] = seconds / operations * 1_000_000
    return costs


def _sample(client: psutil.Process, watched: Watched) -> _Sample:
    return _Sample(
        time.monotonic(),
        _cpu_seconds(client),
        _cpu_seconds(watched.server),
        _cpu_seconds(watched.database),
        _wal_bytes(watched.url),
    )


def _cpu_seconds(process: psutil.Process | None) -> float:
    """Of a process and all below it, also of those that have ended."""
    if process is None:
        return 0.0
    family = [process]
    with suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
    seconds = 0.0
    for member in family:
        with suppress(psutil.NoSuchProcess):
            seconds += sum(member.cpu_times()[:4])
    return seconds


def _wal_bytes(url: str | None) -> int:
    if url is None:
        return 0
    with psycopg.connect(url) as connection:
        row = connection.execute(_WAL).fetchone()
    return int(row[0]) if row else 0
