"""What waits for a lane: a line for each namespace, which are served in turn.

As long as one namespace waits alone, that is first come, first served. What came together, and what
one namespace has asked for, keeps its order; a flood from one does not stall the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from meterhold_server.batching.places import Place
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome

_LINES_KEPT_MAX = 1024


@dataclass(slots=True, eq=False)
class Waiting:
    """An operation and whoever waits for its outcome. `deadline` is on the monotonic clock."""

    operation: Operation
    future: asyncio.Future[Outcome] | Place
    deadline: float | None


Part = tuple[list[Waiting], int]
"""What is taken from the queue at once, and how many operations it is: those of chains, too."""


class _Line:
    """What one namespace waits for. `queued` is written by the loop alone, the rest by the lane."""

    __slots__ = ("parts", "queued", "taken")

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self.queued = 0
        self.taken = 0

    @property
    def waiting(self) -> int:
        return self.queued - self.taken


class FairQueue:
    """`put` and `ahead_of` are for the event loop, all else for the lane's thread."""

    def __init__(self) -> None:
        self._arrivals: SimpleQueue[tuple[_Line, Part] | None] = SimpleQueue()
        self._lines: dict[str, _Line] = {}
        # Of all namespaces; each is written by one thread alone, the loop's and the lane's.
        self._queued_count = 0
        self._taken_count = 0
        self._turns: deque[_Line] = deque()
        self._closed = False

    @property
    def waiting_count(self) -> int:
        """How many operations wait, of all namespaces."""
        return self._queued_count - self._taken_count

    def put(self, part: Part) -> None:
        """Add what one namespace has asked for together."""
        namespace = part[0][0].operation.account.namespace
        line = self._lines.get(namespace) or self._new_line(namespace)
        line.queued += part[1]
        self._queued_count += part[1]
        self._arrivals.put((line, part))

    def ahead_of(self, namespace: str) -> int:
        """About how many operations are carried out before the next of a namespace would be."""
        line = self._lines.get(namespace)
        if line is None:
            return 0
        # The others take their turns in between, but have no more than there is.
        return min(line.waiting * max(1, len(self._turns)), self.waiting_count)

    def close(self) -> None:
        """Let `take` answer nothing once all that was put has been taken."""
        self._arrivals.put(None)

    def take(self, room: int) -> list[Waiting]:
        """Wait for an operation, then take what fits into `room`, in turn. Empty after `close`.

        What came together is not torn apart: if it does not fit it comes first the next time.
        """
        self._line_up()
        batch: list[Waiting] = []
        passed: list[_Line] = []
        turns = self._turns
        left = room
        while turns and left > 0:
            line = turns[0]
            waiting, number = line.parts[0]
            if number > left and batch:
                passed.append(turns.popleft())
                continue
            line.parts.popleft()
            line.taken += number
            left -= number
            batch += waiting
            if not line.parts:
                turns.popleft()
            elif len(turns) > 1:
                turns.rotate(-1)
        turns.extendleft(reversed(passed))
        self._taken_count += room - left
        return batch

    def rest(self) -> Iterator[Waiting]:
        """All that waits, for nobody will take it."""
        while not self._arrivals.empty():
            self._line_up()
        for line in self._turns:
            for waiting, _ in line.parts:
                yield from waiting

    def _line_up(self) -> None:
        """Put what has arrived into its lines. Waits if nothing stands in any."""
        next_arrival = self._arrivals.get_nowait
        if not self._turns and not self._closed:
            self._stand(self._arrivals.get())
        try:
            while True:
                self._stand(next_arrival())
        except Empty:
            return

    def _stand(self, arrival: tuple[_Line, Part] | None) -> None:
        if arrival is None:
            self._closed = True
            return
        line, part = arrival
        if not line.parts:
            self._turns.append(line)
        line.parts.append(part)

    def _new_line(self, namespace: str) -> _Line:
        if len(self._lines) >= _LINES_KEPT_MAX:
            self._lines = {name: line for name, line in self._lines.items() if line.waiting}
        line = self._lines[namespace] = _Line()
        return line
