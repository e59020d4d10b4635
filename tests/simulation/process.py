"""A simulated server process: the real engine with its lanes, and the real sweeper."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from meterhold_server.batching import engine as engine_module
from meterhold_server.batching import failures, fair_queue
from meterhold_server.batching import lane as lane_module
from meterhold_server.batching import transaction as transaction_module
from meterhold_server.batching.engine import Engine
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.model import Rules
from meterhold_server.rpc import service as service_module
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.service import Service
from meterhold_server.storage import session as session_module
from meterhold_server.storage.due import DueAccount
from meterhold_server.storage.pages import AccountRead
from meterhold_server.workers import sweeper as sweeper_module
from meterhold_server.workers import worker as worker_module
from meterhold_server.workers.sweeper import Sweeper
from simulation import database as database_module
from simulation.database import Database, SimulatedSession
from simulation.loop import Loop
from simulation.scheduler import Fibre, Queue, Scheduler

NAMESPACE: Final = "live"


class Thread:
    """`threading.Thread` as a fibre of the process that starts it."""

    def __init__(self, target: Callable[[], None], name: str = "", daemon: bool = True) -> None:
        self._target = target
        self._process = _being_built()
        self._fibre: Fibre | None = None

    def start(self) -> None:
        self._fibre = self._process.begin_fibre(self._target)

    def join(self) -> None:
        fibre, scheduler = self._fibre, self._process.scheduler
        assert fibre is not None
        waiting = scheduler.current()
        fibre.on_end.append(waiting.wake)
        while not fibre.ended:
            waiting.park()


class Process:
    """Alive until it is killed. `clock_error` is what its own clock shows too much."""

    building: Process | None = None

    def __init__(
        self,
        database: Database,
        rules: Rules,
        limits: LaneLimits,
        *,
        lanes: int,
        sweep_seconds: float | None,
    ) -> None:
        self.scheduler = database.scheduler
        self.database = database
        self.alive = True
        self.draining = False
        self.sweeps = sweep_seconds is not None
        self.stopped_until = 0.0
        self.clock_error = timedelta()
        self.loop = Loop(self.scheduler, self)  # type: ignore[abstract] # the rest is not used
        self._fibres: list[Fibre] = []
        Process.building = self
        self.engine = self.loop.enter(lambda: Engine("", rules, limits, lanes=lanes))
        Process.building = None
        reader: Any = _Reader(self)
        self.service = Service(self.engine, reader, Caller(NAMESPACE, rules), *[reader] * 4)
        self.sweeper = Sweeper(
            self.engine, reader, interval_seconds=sweep_seconds or 0.0, batch_accounts_max=3
        )
        if sweep_seconds is not None:
            self.loop.enter(self.sweeper.start)

    def begin_fibre(self, work: Callable[[], None]) -> Fibre:
        fibre = self.scheduler.start(work, self)
        self._fibres.append(fibre)
        return fibre

    def wall_clock(self) -> datetime:
        """What a process believes the time to be."""
        return self.database.clock() + self.clock_error

    def drain(self) -> None:
        """Be asked to stop: carry out what waits, and then end."""
        self.draining = True
        self.loop.spawn(self._drain())

    async def _drain(self) -> None:
        await self.sweeper.stop()
        await self.engine.close()
        self.alive = False

    def kill(self) -> None:
        """End between two steps, whatever is under way."""
        if self.alive:
            self.alive = False
            for fibre in self._fibres:
                fibre.kill()
        self.loop.drop_tasks()


class _Reader:
    """The reads of the servicers and of the sweeper."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def run(self, read: Callable[..., Any], *arguments: Any) -> Any:
        database = self._process.database
        await self._travel()
        if not database.up:
            raise failures.database_unavailable()
        answer = getattr(self, read.__name__)(database, *arguments)
        await self._travel()
        return answer

    async def _travel(self) -> None:
        await asyncio.sleep(self._process.database.travel())

    def due_accounts(self, database: Database, limit: int) -> list[DueAccount]:
        return [DueAccount(*found) for found in database.due(limit)]

    def read_account(self, database: Database, account_id: str) -> AccountRead | None:
        account = database.rows.accounts.get(account_id)
        return AccountRead(account, database.clock()) if account else None


def _being_built() -> Process:
    assert Process.building is not None, "only an engine starts threads"
    return Process.building


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


@contextmanager
def simulated(scheduler: Scheduler, database: Database) -> Iterator[None]:
    """Put the model's clock, threads and database in the place of the real ones."""
    clock = SimpleNamespace(monotonic=lambda: scheduler.now, sleep=scheduler.sleep)
    chance = random.Random(scheduler.random.random())
    stand_ins: list[tuple[Any, str, Any]] = [
        (lane_module, "threading", SimpleNamespace(Thread=Thread)),
        (fair_queue, "SimpleQueue", lambda: Queue(scheduler)),
        (lane_module, "time", clock),
        (lane_module, "random", chance),
        (lane_module, "_log", _Silent()),
        (sweeper_module, "_log", _Silent()),
        (worker_module, "_log", _Silent()),
        (service_module, "time", clock),
        (engine_module, "Session", lambda _: SimulatedSession(database, _owner(scheduler))),
        (transaction_module, "load", database_module.load),
        (transaction_module, "persist", database_module.persist),
        (session_module, "exchange", database_module.exchange),
        (session_module, "sever", database_module.sever),
    ]
    patches = [patch.object(*stand_in) for stand_in in stand_ins]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def _owner(scheduler: Scheduler) -> Any:
    return scheduler.current().owner
