"""Between clients and processes: what is sent may be late, lost, doubled and out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from meterhold_server.core.operations import Chain
from meterhold_server.core.outcomes import Chained
from meterhold_server.prove.history import Attempt, Call, Method
from simulation.asking import NoAnswer, account_key, operation_of
from simulation.plan import Plan
from simulation.process import Process
from simulation.scheduler import Scheduler

Reply = Callable[[list[Any]], None]


class Network:
    """`in_flight` counts the requests that have not landed yet."""

    def __init__(self, scheduler: Scheduler, plan: Plan) -> None:
        self.in_flight = 0
        self.faults: dict[str, int] = {}
        self.calm = False
        self._scheduler = scheduler
        self._plan = plan

    def send(self, process: Process, calls: Sequence[Call], reply: Reply) -> Callable[[], None]:
        """Ask a process. Answers how to call it off."""
        plan, message = self._plan, _Message(self, process, list(calls), reply)
        if self._happens("request lost", plan.lost):
            return message.cancel
        self._scheduler.after(self.travel(), self._landing(message))
        keyed = all(call.key or call.method is not Method.DEBIT for call in calls)
        if keyed and self._happens("request doubled", plan.duplicated):
            for call in calls:
                # Whatever comes back of the first, this one may still be done.
                call.attempts.insert(0, Attempt(self._scheduler.now))
            twin = _Message(self, process, list(calls), lambda _: None)
            self._scheduler.after(3 * self.travel(), self._landing(twin))
        return message.cancel

    def _landing(self, message: _Message) -> Callable[[], None]:
        self.in_flight += 1
        return message.land

    def travel(self) -> float:
        """How long a message takes."""
        chance, plan = self._scheduler.random, self._plan
        seconds = chance.expovariate(1 / plan.latency_seconds)
        if self._happens("message late", plan.late):
            seconds += chance.expovariate(1 / plan.timeout_seconds)
        return seconds

    def answer(self, reply: Reply, told: list[Any]) -> None:
        if not self._happens("answer lost", self._plan.lost):
            self._scheduler.after(self.travel(), lambda: reply(told))

    @property
    def timeout_seconds(self) -> float:
        return 5.0 if self.calm else self._plan.timeout_seconds

    def _happens(self, fault: str, chance: float) -> bool:
        if self.calm or not chance or self._scheduler.random.random() >= chance:
            return False
        self.faults[fault] = self.faults.get(fault, 0) + 1
        self._scheduler.note("fault", fault)
        return True


class _Message:
    def __init__(self, network: Network, process: Process, calls: list[Call], reply: Reply) -> None:
        self._network = network
        self._process = process
        self._calls = calls
        self._reply = reply
        self._task: asyncio.Task[None] | None = None

    def land(self) -> None:
        """Arrive. The deadline counts from now."""
        process = self._process
        self._network.in_flight -= 1
        if process.alive:
            self._task = process.loop.spawn(self._serve(process))
        else:
            self._network.answer(self._reply, [NoAnswer()] * len(self._calls))

    def cancel(self) -> None:
        """As a client that waits no longer: the handler is cancelled wherever it is."""
        task = self._task
        if task is not None and self._process.alive:
            self._process.loop.call_soon(task.cancel)

    async def _serve(self, process: Process) -> None:
        try:
            told = await self._ask(process)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:
            told = [error] * len(self._calls)
        self._network.answer(self._reply, told)

    async def _ask(self, process: Process) -> list[Any]:
        deadline = process.scheduler.now + self._network.timeout_seconds
        first = self._calls[0]
        if first.method is Method.BALANCE:
            context: Any = _Context(self._network.timeout_seconds)
            key = account_key(first.account)
            return [await process.service.current_balance(key, context)]
        wanted = [operation_of(call) for call in self._calls]
        if first.chain:
            done = await process.engine.submit(Chain(tuple(wanted)), deadline)
            assert isinstance(done, Chained)
            return list(done.outcomes)
        if len(wanted) == 1:
            return [await process.engine.submit(wanted[0], deadline)]
        return list(await process.engine.submit_many(wanted, deadline))


class _Context:
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def time_remaining(self) -> float:
        return self._seconds
