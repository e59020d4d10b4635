"""One thread that beats for all holds of a client, so that they do not expire under their work."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Beat:
    """Something to call again and again. `stop` it when it is not needed any more."""

    def __init__(self, heart: Heart, call: Callable[[], float | None]) -> None:
        self._heart = heart
        self.call: Callable[[], float | None] | None = call

    def stop(self) -> None:
        """Call it no more, and let go of it. One call may be under way."""
        self._heart.forget(self)


class Heart:
    """Calls each beat at its time. Safe to share between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Beat]] = []
        self._stopped_count = 0
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, call: Callable[[], float | None], seconds: float) -> Beat:
        """Call it in so many seconds, and then whenever it answers; None = no more."""
        beat = Beat(self, call)
        self._schedule(beat, seconds)
        return beat

    def forget(self, beat: Beat) -> None:
        with self._changed:
            if beat.call is None:
                return
            beat.call = None
            self._stopped_count += 1
            if self._stopped_count > 64 + len(self._due) // 2:
                self._due = [entry for entry in self._due if entry[2].call is not None]
                heapq.heapify(self._due)
                self._stopped_count = 0

    def close(self) -> None:
        """Beat no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self) -> None:
        """Wait for the end of a beat under way; `close` first."""
        if self._thread is not None:
            self._thread.join()

    def _schedule(self, beat: Beat, seconds: float) -> None:
        due = time.monotonic() + seconds
        with self._changed:
            if self._closed or beat.call is None:
                return
            first = not self._due or due < self._due[0][0]
            heapq.heappush(self._due, (due, next(self._numbers), beat))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="meterhold-heart", daemon=True
                )
                self._thread.start()
            elif first:
                self._changed.notify()

    def _work(self) -> None:
        while (beat := self._next()) is not None:
            call = beat.call
            seconds = call() if call is not None else None
            if seconds is not None:
                self._schedule(beat, seconds)

    def _next(self) -> Beat | None:
        """Wait until one is due. None when it is over."""
        with self._changed:
            while not self._closed:
                if not self._due:
                    self._changed.wait()
                    continue
                wait_seconds = self._due[0][0] - time.monotonic()
                if wait_seconds <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_seconds)
        return None
