"""`python -m proving`: every part of the proof, one after the other, and a table of all.

Each is a process of its own, and can be run by itself with `--help` for more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from support.verdict import Figures, read

PARTS: Final = {
    "simulation": ("simulation",),
    "chaos": ("chaos",),
    "fuzz": ("fuzz",),
    "tenancy": ("proving.tenancy",),
}
"""The module of each part."""


class _Done(NamedTuple):
    part: str
    seconds: float
    figures: Figures
    verdict: str
    proved: bool


def main() -> int:
    """Exit code 1 if any part was not proved."""
    options = _options()
    done = [_run(part, options.seed) for part in PARTS if part in options.only]
    _tell(done)
    proved = all(each.proved for each in done)
    print("ALL PROVED" if proved else "NOT PROVED")
    return 0 if proved else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="proving", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first one of each part (1)")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts (all of them)"
    )
    return parser.parse_args()


def _run(part: str, seed: int) -> _Done:
    """Run a part, and show what it prints as it comes."""
    print(f"== {part}", flush=True)
    command = [sys.executable, "-m", *PARTS[part], "--seed", str(seed)]
    started = time.perf_counter()
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    seconds = time.perf_counter() - started
    told = read(lines)
    if told is None:
        return _Done(part, seconds, Figures(), f"ended with {process.returncode}", proved=False)
    figures, problems = told
    proved = not problems and process.returncode == 0
    return _Done(part, seconds, figures, "proved" if proved else f"{problems} problems", proved)


def _tell(done: Sequence[_Done]) -> None:
    columns = ("part", "operations", "faults", "unknowns resolved", "seconds", "verdict")
    print("".join(f"{name:>20}" for name in columns))
    for each in done:
        numbers = (*each.figures, round(each.seconds))
        cells = (each.part, *(f"{number:,}" for number in numbers), each.verdict)
        print("".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    sys.exit(main())
