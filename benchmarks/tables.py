"""The figures of a run as tables, for a terminal and for the documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from rich.table import Table

from benchmarks.plan import Load
from benchmarks.results import Results
from benchmarks.targets import TARGETS, Target


class Sheet(NamedTuple):
    """A title, and rows whose first column is text and whose others are numbers."""

    title: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]


_FIGURES: Final = (
    "load", "op/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "client", "server",
    "database", "WAL B/op",
)  # fmt: skip


def sheets(results: Results) -> list[Sheet]:
    """Targets, loads of the closed loop, those of the open loop, and growth, if there are any."""
    closed = [load for load in results.rounds if not load.offered]
    opened = [load for load in results.rounds if load.offered]
    found = [
        _targets(results),
        Sheet("Closed loop", _FIGURES, _loads(results, closed)),
        Sheet("Open loop", _FIGURES, _loads(results, opened)),
        *_growth(results.growth or {}),
    ]
    return [sheet for sheet in found if sheet.rows]


def for_terminal(sheet: Sheet) -> Table:
    table = Table(title=sheet.title, title_justify="left")
    for number, heading in enumerate(sheet.headings):
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in sheet.rows:
        table.add_row(*row)
    return table


def as_markdown(results: Results) -> str:
    """All sheets, and what they were measured on."""
    return "\n\n".join([_ground(results.about), *map(_markdown, sheets(results))]) + "\n"


def targets_as_markdown(results: Results) -> str:
    """The targets alone, without a heading."""
    return _lines(_targets(results)) + "\n"


def _markdown(sheet: Sheet) -> str:
    return f"### {sheet.title}\n\n{_lines(sheet)}"


def _lines(sheet: Sheet) -> str:
    bar = "|---" + "|---:" * (len(sheet.headings) - 1) + "|"
    return "\n".join([_line(sheet.headings), bar, *map(_line, sheet.rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _ground(about: dict[str, Any]) -> str:
    machine, options = about["machine"], about["options"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return (
        f"Measured {about['time'][:10]} on {machine['cores']} cores of {machine['processor']},"
        f" {machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}: {versions}."
        f" {options['callers']} callers where none are named, {options['accounts']:,} accounts,"
        f" {options['workers']} processes of each gRPC server, {options.get('connections', 1)}"
        f" connections, medians of {options['rounds']} ×"
        f" {options['seconds']:g} s."
    )


def _targets(results: Results) -> Sheet:
    rows: list[tuple[str, ...]] = []
    for target in TARGETS:
        ratio = target.of(results)
        if ratio is None:
            measured, spread = "–", ""
        else:
            sign = "" if target.reached(ratio.median) else " ✗"
            measured = f"{ratio.median:.2f}{sign}"
            spread = f"{ratio.least:.2f}–{ratio.most:.2f}"
        rows.append((_name(target), *_bounds(target), measured, spread))
    return Sheet("Targets", ("ratio", "at least", "aim", "measured", "rounds"), rows)


def _name(target: Target) -> str:
    return f"{target.name}, × {target.against}"


def _bounds(target: Target) -> tuple[str, str]:
    sign = "≤ " if target.at_most else ""
    return f"{sign}{target.least:g}", f"{sign}{target.aim:g}"


def _loads(results: Results, loads: list[Load]) -> list[tuple[str, ...]]:
    return [tuple(_load(results, load)) for load in loads]


def _load(results: Results, load: Load) -> Iterator[str]:
    yield load.label
    yield f"{results.median(load, 'per_second'):,.0f}"
    for quantile in ("p50", "p90", "p99", "p999", "max"):
        yield f"{results.median(load, f'{quantile}_milliseconds'):,.2f}"
    for who in ("client", "server", "database"):
        yield f"{results.median(load, f'{who}_cores'):.2f}"
    yield f"{results.median(load, 'wal_bytes'):,.0f}"


def _growth(growth: dict[str, Any]) -> list[Sheet]:
    return [
        Sheet(sheet["title"], tuple(sheet["headings"]), [tuple(row) for row in sheet["rows"]])
        for sheet in growth.get("sheets", ())
    ]
