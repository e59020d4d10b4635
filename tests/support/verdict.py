"""How a part of the proof ends, for people and for whoever runs all parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

PROBLEMS_SHOWN_MAX: Final = 50

_LINE: Final = re.compile(
    r"PROVED|(?P<problems>\d+) problems"
    r"|(?P<operations>\d+) operations, (?P<faults>\d+) faults, (?P<unknowns>\d+) unknowns resolved"
)


class Figures(NamedTuple):
    """What a part of the proof was made of. `unknowns` are outcomes that were unknown first."""

    operations: int = 0
    faults: int = 0
    unknowns: int = 0


def tell(figures: Figures, problems: Sequence[str]) -> int:
    """Print the problems and the verdict, last of all. Answers the exit code."""
    for problem in problems[:PROBLEMS_SHOWN_MAX]:
        print(problem)
    print("{} operations, {} faults, {} unknowns resolved".format(*figures))
    print("PROVED" if not problems else f"{len(problems)} problems", flush=True)
    return 1 if problems else 0


def read(lines: Sequence[str]) -> tuple[Figures, int] | None:
    """The figures and the number of problems, from the last two lines of a part; None if it died
    before it could tell.
    """
    found = [match for line in lines[-2:] if (match := _LINE.fullmatch(line.strip()))]
    if len(found) < 2 or found[0]["operations"] is None:
        return None
    numbers = [int(found[0][name]) for name in Figures._fields]
    return Figures(*numbers), int(found[1]["problems"] or 0)
