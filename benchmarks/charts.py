"""The plot: throughput against concurrency, and latency against what is offered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.plan import SERVERS, Load
from benchmarks.results import Results

_COLORS: Final = {"noop": "#8c8c8c", "product": "#1f6feb", "naive": "#d1495b"}


def draw(results: Results, path: Path) -> None:
    """Write a PNG."""
    mpl.rcParams["font.size"] = 9
    figure = Figure(figsize=(10, 4.2), dpi=150, layout="constrained")
    throughput, latency = figure.subplots(1, 2)
    for server, color in _COLORS.items():
        loads = [load for load in results.rounds if load.server == server]
        _throughput(throughput, results, loads, color)
        _latency(latency, results, loads, color)
    _finish(throughput, "Closed loop: Debit", "callers", "calls a second")
    _finish(latency, "Open loop: Debit", "calls offered a second", "milliseconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _throughput(axes: Any, results: Results, loads: list[Load], color: str) -> None:
    debits = [
        load
        for load in loads
        if load.workload == "debit" and not load.offered and load.name != "debit hot"
    ]
    debits.sort(key=lambda load: load.callers)
    if debits:
        rates = [results.median(load, "per_second") for load in debits]
        label = SERVERS[debits[0].server]
        axes.plot([load.callers for load in debits], rates, "o-", color=color, label=label)
        axes.set_xscale("log", base=4)
        axes.xaxis.set_major_formatter("{x:.0f}")


def _latency(axes: Any, results: Results, loads: list[Load], color: str) -> None:
    offered = sorted((load for load in loads if load.offered), key=lambda load: load.offered)
    for quantile, style in (("p50", "o-"), ("p99", "^--")):
        if offered:
            rates = [results.median(load, "offered_per_second") for load in offered]
            times = [results.median(load, f"{quantile}_milliseconds") for load in offered]
            label = f"{SERVERS[offered[0].server]}, {quantile}"
            axes.plot(rates, times, style, color=color, label=label)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")


def _finish(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
        axes.set_xlim(left=0 if axes.get_xscale() == "linear" else None)
        axes.set_ylim(bottom=0 if axes.get_yscale() == "linear" else None)
