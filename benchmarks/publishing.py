"""Where results are kept, and how those of one run become the ones of the documents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.results import Results
from benchmarks.tables import as_markdown, targets_as_markdown

FOLDER: Final = Path(__file__).parent / "results"
RESULTS: Final = "performance.json"
PLOT: Final = "performance.png"
GROWTH: Final = "growth.json"

ROOT: Final = Path(__file__).parents[1]


class Place(NamedTuple):
    """A part of a document, between two comments with its name, and what belongs there."""

    document: str
    name: str
    text: Callable[[Results], str]


PLACES: Final = (
    Place("docs/performance.md", "figures", as_markdown),
    Place("README.md", "targets", targets_as_markdown),
)


def latest(folder: Path) -> Results:
    """The last results, with the last growth. Ends the program if there are none."""
    try:
        results = Results.read(folder / RESULTS)
    except FileNotFoundError:
        raise SystemExit(f"There are no results in {folder}: run `make bench` first") from None
    results.growth = growth(folder)
    return results


def growth(folder: Path) -> dict[str, Any] | None:
    """What the last run of `benchmarks.growth` found, if there was one."""
    path = folder / GROWTH
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def draw(results: Results, folder: Path) -> bool:
    """Draw the plot, if matplotlib is installed; else answer False."""
    try:
        from benchmarks import charts
    except ImportError:
        return False
    charts.draw(results, folder / PLOT)
    return True


def publish(results: Results, root: Path = ROOT) -> None:
    """Replace the JSON, the plot and the tables of the documents."""
    if not draw(results, root / "docs"):
        raise SystemExit("matplotlib is needed to publish: make bench")
    results.save(root / "docs" / RESULTS)
    for place in PLACES:
        page = root / place.document
        page.write_text(filled(page.read_text(), place, results))


def filled(page: str, place: Place, results: Results) -> str:
    """The page with these results in the place."""
    begin, end = f"<!-- {place.name} -->\n", f"<!-- end of {place.name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    if not after:
        raise ValueError(f"{place.document} has no {begin.strip()} with {end} after it")
    return f"{before}{begin}\n{place.text(results)}\n{end}{after}"
