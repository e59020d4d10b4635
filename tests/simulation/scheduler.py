"""Virtual time, and threads of which exactly one runs: what happens next is decided by a seed.

The code under test blocks, in threads. Each of its threads becomes a fibre here: a real thread that
runs only while the scheduler waits for it, and gives the turn back whenever it would block. Time
passes only between the steps, so that the same seed takes the same steps.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush
from queue import Empty
from typing import Any, Final, Protocol

LIMIT_SECONDS: Final = 3600.0
"""How much virtual time a run may take before it counts as hanging."""


class Killed(BaseException):
    """Unwinds a fibre whose process has died."""


class Owner(Protocol):
    """What a step belongs to: nothing of it happens while it is stopped, or once it is dead."""

    alive: bool
    stopped_until: float


class Step:
    """Something that is to happen at a time, unless it is cancelled before."""

    __slots__ = ("action", "owner")

    def __init__(self, action: Callable[[], None], owner: Owner | None) -> None:
        self.action: Callable[[], None] | None = action
        self.owner = owner

    def cancel(self) -> None:
        self.action = None


class Scheduler:
    """Takes the steps in the order of their times; at one time, in the order of their making."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.failure: BaseException | None = None
        """What broke a fibre or an event loop: nothing may."""
        self.running: Fibre | None = None
        self.turn = threading.Lock()
        self.turn.acquire()
        self._steps: list[tuple[float, int, Step]] = []
        self._made = 0
        self._trace = blake2b(digest_size=16)
        self._fibres: list[Fibre] = []

    def note(self, *what: object) -> None:
        """Write into the trace what has happened, and when."""
        self._trace.update(f"{self.now:.6f} {what}\n".encode())

    @property
    def trace_hash(self) -> str:
        """Equal for equal traces."""
        return self._trace.hexdigest()

    def after(self, seconds: float, action: Callable[[], None], owner: Owner | None = None) -> Step:
        """Have something happen in so many seconds."""
        step = Step(action, owner)
        self._made += 1
        heappush(self._steps, (self.now + max(0.0, seconds), self._made, step))
        return step

    def run_until(self, done: Callable[[], bool]) -> None:
        """Take steps until `done`. Raises what broke, and TimeoutError if nothing gets done."""
        while not done():
            if not self._steps or self.now > LIMIT_SECONDS:
                raise TimeoutError(f"nothing gets done any more, after {self.now:.1f} s")
            self._take_step()
            if self.failure is not None:
                raise self.failure

    def _take_step(self) -> None:
        at, _, step = heappop(self._steps)
        self.now = max(self.now, at)
        if step.action is None:
            return
        owner = step.owner
        if owner is not None and not owner.alive:
            return
        if owner is not None and owner.stopped_until > self.now:
            self._made += 1
            heappush(self._steps, (owner.stopped_until, self._made, step))
            return
        step.action()

    def nothing_before(self, at: float) -> bool:
        """Whether a fibre may go on until then without giving its turn away."""
        return not self._steps or self._steps[0][0] > at

    def start(self, work: Callable[[], None], owner: Owner) -> Fibre:
        """Begin a fibre, with the next step."""
        fibre = Fibre(self, work, owner)
        self._fibres.append(fibre)
        fibre.wake()
        return fibre

    def sleep(self, seconds: float) -> None:
        """Let time pass for the running fibre."""
        fibre = self.current()
        at = self.now + max(0.0, seconds)
        if self.nothing_before(at):
            self.now = at
            return
        fibre.wake(seconds)
        fibre.park()

    def current(self) -> Fibre:
        """The fibre that runs. Raises Killed if its process is dead: it may only unwind."""
        assert self.running is not None, "only a fibre may wait"
        if not self.running.owner.alive:
            raise Killed
        return self.running

    def end(self) -> None:
        """Unwind every fibre."""
        for fibre in self._fibres:
            fibre.kill()


class Fibre:
    """A thread that runs by turns."""

    def __init__(self, scheduler: Scheduler, work: Callable[[], None], owner: Owner) -> None:
        self.owner = owner
        self.ended = False
        self.on_end: list[Callable[[], None]] = []
        self._scheduler = scheduler
        self._work = work
        self._go = threading.Lock()
        self._go.acquire()
        self._killed = False
        self._wake: Step | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wake(self, seconds: float = 0.0) -> None:
        """Let it run in so many seconds, and not before, whatever was set before."""
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._scheduler.after(seconds, self._resume, self.owner)

    def park(self) -> None:
        """Called by the fibre itself: give the turn back until it is woken."""
        self._scheduler.turn.release()
        self._go.acquire()
        if self._killed:
            raise Killed

    def kill(self) -> None:
        """Unwind it, if it is at work. Called outside of fibres."""
        if not self.ended:
            self._killed = True
            self._resume()
        self._thread.join()

    def _resume(self) -> None:
        if self.ended:
            return
        self._wake = None
        self._scheduler.running = self
        self._go.release()
        self._scheduler.turn.acquire()
        self._scheduler.running = None

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._killed:
                self._work()
        except Killed:
            pass
        except BaseException as error:
            self._scheduler.failure = self._scheduler.failure or error
        finally:
            self.ended = True
            for action in self.on_end:
                action()
            self._scheduler.turn.release()


class Signal:
    """What fibres wait for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: list[Fibre] = []

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is given, so many seconds at most. Whether it was."""
        fibre = self._scheduler.current()
        self._waiting.append(fibre)
        if seconds is not None:
            fibre.wake(seconds)
        fibre.park()
        if fibre in self._waiting:
            self._waiting.remove(fibre)
            return False
        return True

    def give(self) -> None:
        """Wake all who wait."""
        waiting, self._waiting = self._waiting, []
        for fibre in waiting:
            if not fibre.ended:
                fibre.wake()


class Queue:
    """`queue.SimpleQueue` between fibres and event loops."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._items: list[Any] = []
        self._filled = Signal(scheduler)

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._filled.give()

    def get(self) -> Any:
        while not self._items:
            self._filled.wait()
        return self._items.pop(0)

    def get_nowait(self) -> Any:
        if not self._items:
            raise Empty
        return self._items.pop(0)

    def empty(self) -> bool:
        return not self._items
