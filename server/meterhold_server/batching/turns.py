"""What waits for one of several threads: a line for each namespace, which are served in turn.

As long as one namespace waits alone, that is first come, first served. A flood from one does not
stall the others. It is for reads what `fair_queue.py` is for a lane, which takes many at once.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Turns(Generic[_T]):
    """Lines of what waits. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[_T]] = {}
        # The namespaces whose lines are not empty, whose turn it is first.
        self._turns: deque[str] = deque()

    def put(self, namespace: str, waiting: _T) -> None:
        with self._lock:
            line = self._lines.get(namespace)
            if line is None:
                self._lines[namespace] = deque((waiting,))
                self._turns.append(namespace)
            else:
                line.append(waiting)

    def take(self) -> _T:
        """Whose turn it is. There must be somebody: it is taken once for each that was put."""
        with self._lock:
            namespace = self._turns.popleft()
            line = self._lines[namespace]
            taken = line.popleft()
            if line:
                self._turns.append(namespace)
            else:
                del self._lines[namespace]
            return taken
