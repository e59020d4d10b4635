"""Where the answers of operations go that were submitted together: one future for all of them."""

from __future__ import annotations

import asyncio

from meterhold_server.batching.failures import Failure
from meterhold_server.core.outcomes import Outcome

Answers = list[Outcome | Failure]


class Gathering:
    """Collects `number` answers, 1 or more, in their order. Use it in the event loop alone.

    Cancelling `future` drops the waiter of each operation that is not answered yet.
    """

    def __init__(self, number: int) -> None:
        self.future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self.places = [Place(self) for _ in range(number)]
        self._missing_count = number

    def fill(self) -> None:
        """Count one more answer; the last one makes the future done."""
        self._missing_count -= 1
        if self._missing_count > 0:
            return
        if not self.future.done():
            self.future.set_result(
                [place.answer for place in self.places if place.answer is not None]
            )
        # The places know this gathering: as a cycle all of it would wait for the garbage collector.
        self.places.clear()


class Place:
    """What a lane sees of it for each operation: as much of a future as it uses."""

    __slots__ = ("_gathering", "answer")

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self.answer: Outcome | Failure | None = None

    def cancelled(self) -> bool:
        return self._gathering.future.cancelled()

    def done(self) -> bool:
        return self.answer is not None

    def set_result(self, outcome: Outcome) -> None:
        self.answer = outcome
        self._gathering.fill()

    def set_exception(self, failure: Failure) -> None:
        self.answer = failure
        self._gathering.fill()
