"""An event loop in virtual time, one for each simulated process."""

from __future__ import annotations

import asyncio
import weakref
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

from simulation.scheduler import Owner, Scheduler

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Loop(asyncio.AbstractEventLoop):
    """As much of an event loop as the engine, the sweeper and the servicers use."""

    def __init__(self, scheduler: Scheduler, owner: Owner) -> None:
        self._scheduler = scheduler
        self._owner = owner
        self._tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def time(self) -> float:
        return self._scheduler.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._owner.alive

    def is_closed(self) -> bool:
        return not self._owner.alive

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._scheduler.after(0.0, lambda: self.run(handle), self._owner)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        if not self._owner.alive:
            raise RuntimeError("Event loop is closed")
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._scheduler.after(when - self.time(), lambda: self.run(handle), self._owner)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self._tasks.add(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: None, func: Callable[..., _T], *args: Any
    ) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self.create_future()

        def work() -> None:
            result = func(*args)
            self.call_soon_threadsafe(lambda: None if future.done() else future.set_result(result))

        self._scheduler.start(work, self._owner)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing may fail unseen, but for what a dead process leaves behind."""
        if self._owner.alive:
            error = context.get("exception") or RuntimeError(context["message"])
            self._scheduler.failure = self._scheduler.failure or error

    def enter(self, call: Callable[[], _T]) -> _T:
        """Call a function as one that runs in this loop."""
        events._set_running_loop(self)
        try:
            return call()
        finally:
            events._set_running_loop(None)

    def run(self, handle: asyncio.Handle) -> None:
        if not handle.cancelled():
            self.enter(handle._run)

    def spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Begin a task from outside."""
        return self.enter(lambda: self.create_task(coroutine))

    def drop_tasks(self) -> None:
        """Forget what is under way: the process is dead."""
        for task in list(self._tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine = task.get_coro()
            if not task.done() and coroutine is not None:
                coroutine.close()
