"""What a run found: kept as JSON, and asked for by the name of a server and a load."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from benchmarks.plan import Load

_LIBRARIES: Final = (
    "grpcio", "protobuf", "psycopg", "sqlalchemy", "uvloop", "meterhold",
)  # fmt: skip

Round = dict[str, float]


class Ratio(NamedTuple):
    """Of two loads in the same round: the median of all rounds, the least and the most."""

    median: float
    least: float
    most: float


class Results:
    """`about` tells of the machine and the options; `growth` is what a run of the growth found."""

    def __init__(self, about: dict[str, Any], growth: dict[str, Any] | None = None) -> None:
        self.about = about
        self.growth = growth
        self.rounds: dict[Load, list[Round]] = {}

    def add(self, load: Load, found: Round) -> None:
        self.rounds.setdefault(load, []).append(found)

    def load(self, server: str, name: str) -> Load | None:
        """The load of that name, if it was measured."""
        for load in self.rounds:
            if (load.server, load.name) == (server, name):
                return load
        return None

    def median(self, load: Load, figure: str) -> float:
        return statistics.median(found[figure] for found in self.rounds[load])

    def ratio(self, of: Callable[..., float], *loads: tuple[str, str]) -> Ratio | None:
        """What a function makes of the rounds of some loads. None if one was not measured.

        The loads take turns, so that what the machine does besides touches all of a round alike.
        """
        known = [self.load(*names) for names in loads]
        if None in known:
            return None
        each = [self.rounds[load] for load in known if load is not None]
        found = [of(*together) for together in zip(*each, strict=False)]
        return Ratio(statistics.median(found), min(found), max(found))

    def save(self, path: Path) -> None:
        """Write JSON, with a line for each load."""
        lines = [
            json.dumps(load._asdict() | {"rounds": found}) for load, found in self.rounds.items()
        ]
        about, growth = json.dumps(self.about), json.dumps(self.growth)
        measured = ",\n".join(lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'{{"about": {about},\n"growth": {growth},\n"measured": [\n{measured}\n]}}\n'
        )

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises FileNotFoundError."""
        kept = json.loads(path.read_text())
        results = cls(kept["about"], kept["growth"])
        for measured in kept["measured"]:
            found = measured.pop("rounds")
            results.rounds[Load(**measured)] = found
        return results


def about(options: dict[str, Any], postgres: str) -> dict[str, Any]:
    """The machine, the versions and the options of a run that starts now."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "memory_bytes": psutil.virtual_memory().total,
            "system": f"{platform.system()} {platform.release()}",
        },
        "versions": {
            "python": platform.python_version(),
            "postgresql": postgres,
            **{name: version(name) for name in _LIBRARIES},
        },
        "options": options,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
