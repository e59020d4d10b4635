"""One run: a phase in which things go wrong, and a quiet one in which all must come right."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from meterhold_server.core.invariants import violations
from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import Configure
from meterhold_server.prove.history import Book, Entry, History, Hold, Told, Violation
from simulation.asking import account_key, seconds_of
from simulation.clients import Clients, is_certain
from simulation.database import Database
from simulation.network import Network
from simulation.plan import RULES, Plan, plan_of
from simulation.process import Process, simulated
from simulation.scheduler import Scheduler

QUIET_SECONDS: Final = 10.0
"""Longer than any hold of the load lives."""

Bug = Callable[["Simulation"], AbstractContextManager[object]]


@dataclass
class Run:
    """What a seed came to."""

    seed: int
    history: History
    violations: list[Violation] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    trace_hash: str = ""
    operations: int = 0
    attempts: int = 0
    unknowns: int = 0
    acknowledged: int = 0
    refusals: int = 0
    seconds: float = 0.0
    virtual_seconds: float = 0.0


class Simulation:
    """A deployment: processes over one database, and what befalls them."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan = plan
        self.scheduler = Scheduler(seed)
        self.database = Database(self.scheduler, plan.latency_seconds, plan.database)
        self.network = Network(self.scheduler, plan)
        self.processes: list[Process] = []
        self.clients = Clients(self.scheduler, self.network, plan, self._choose_process)
        self.faults: Counter[str] = Counter()
        self._calm = False

    def open(self) -> None:
        for account in range(self.plan.accounts):
            self._configure(account_key(f"account-{account}"), account)
        for number in range(self.plan.processes):
            self._start_process(number < self.plan.sweepers)
        for rate, fault in (
            (self.plan.kills, self._kill),
            (self.plan.drains, self._drain),
            (self.plan.stops, self._stop),
            (self.plan.clock_steps, self._step_clock),
            (self.plan.crashes, self._crash),
        ):
            if rate:
                self._befall(rate, fault)

    def _configure(self, key: AccountKey, number: int) -> None:
        """Some accounts have credit from the start; none exists otherwise."""
        if number % 2:
            limit = 100 * number
            operation = Configure(key, credit_limit_micros=limit, holds_use_credit=number % 4 == 1)
            self.database.rows.do_all([operation], self.database.clock(), RULES)

    def _choose_process(self) -> Process | None:
        serving = [each for each in self.processes if each.alive and not each.draining]
        return self.scheduler.random.choice(serving) if serving else None

    def _start_process(self, sweeps: bool) -> None:
        plan = self.plan
        seconds = 0.05 if sweeps else None
        process = Process(
            self.database, RULES, plan.limits, lanes=plan.lanes, sweep_seconds=seconds
        )
        self.processes.append(process)

    def _befall(self, rate: float, fault: Callable[[Process], None]) -> None:
        """Let a fault happen again and again, to some process."""

        def strike() -> None:
            process = self._choose_process()
            if self._calm:
                return
            if process is not None:
                fault(process)
            self._befall(rate, fault)

        self.scheduler.after(self.scheduler.random.expovariate(rate), strike)

    def _count(self, fault: str) -> None:
        self.faults[fault] += 1
        self.scheduler.note("fault", fault)

    def _kill(self, process: Process) -> None:
        self._count("process killed")
        process.kill()
        self._replace(process)

    def _drain(self, process: Process) -> None:
        self._count("process drained")
        process.drain()
        self._replace(process)

    def _replace(self, process: Process) -> None:
        seconds = self.scheduler.random.uniform(0.0, 0.5)
        self.scheduler.after(seconds, lambda: self._start_process(process.sweeps))

    def _stop(self, process: Process) -> None:
        self._count("process stopped")
        process.stopped_until = self.scheduler.now + self.scheduler.random.uniform(0.05, 2.0)

    def _step_clock(self, process: Process) -> None:
        self._count("clock stepped")
        process.clock_error = timedelta(seconds=self.scheduler.random.uniform(-3600, 3600))

    def _crash(self, process: Process) -> None:
        self.database.crash(self.scheduler.random.uniform(0.05, 1.5))

    def work(self) -> None:
        """The phase of faults."""
        self.clients.start()
        self.scheduler.run_until(lambda: self.clients.working == 0)

    def settle_down(self) -> None:
        """The quiet phase: nothing more goes wrong, and whatever is under way lands."""
        self._calm = self.network.calm = True
        chances = self.database.chances
        for name in vars(chances):
            setattr(chances, name, 0.0)
        self._wait(QUIET_SECONDS)
        self.scheduler.run_until(lambda: self.network.in_flight == 0)
        self.clients.resolve()
        self.scheduler.run_until(lambda: self.clients.working == 0)
        self._wait(QUIET_SECONDS)

    def _wait(self, seconds: float) -> None:
        until = self.scheduler.now + seconds
        self.scheduler.after(seconds, lambda: None)
        self.scheduler.run_until(lambda: self.scheduler.now >= until)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.scheduler.end()

    def convergence_violations(self) -> list[Violation]:
        """What the quiet phase has not brought to an end."""
        found = [
            Violation("liveness", call.account, call.name, "never got a certain answer")
            for call in self.clients.broken
        ]
        now = self.database.clock()
        for key, _ in self.database.due(1000):
            found.append(Violation("liveness", key.account, "", f"is due and not swept at {now}"))
        if self.database.deadlocks:
            found.append(Violation("locks", "", "", f"{self.database.deadlocks} deadlocks"))
        return found

    def history(self) -> History:
        rows = self.database.rows.state()
        books = {}
        for account in rows.accounts.values():
            entries = [account.charges[seq] for seq in sorted(account.charges)]
            books[account.key.account] = Book(
                account.key.account,
                [
                    Entry(
                        entry.seq,
                        entry.kind.value,
                        entry.amount_micros,
                        entry.remaining_after_micros,
                        seconds_of(entry.create_time),
                        entry.reservation_id,
                        entry.key,
                        (entry.labels or {}).get("call", ""),
                        entry.related_seq,
                    )
                    for entry in entries
                ],
                [
                    Hold(
                        held.reservation_id,
                        held.state.value,
                        held.reserved_micros,
                        held.captured_micros,
                        held.open_micros if held.active else 0,
                        seconds_of(held.expire_time),
                        seconds_of(held.end_time) if held.end_time else float("inf"),
                    )
                    for held in account.reservations.values()
                ],
                account.remaining_micros,
                account.held_micros,
                account.available_micros,
                account.credit_limit_micros,
                account.holds_use_credit,
            )
        return History(self.clients.calls, books, clocks_agree=True)

    def broken_invariants(self) -> list[Violation]:
        """What the identities of the ledger say of all that is stored."""
        rows = self.database.rows.state()
        found = []
        for account in rows.accounts.values():
            entries = [account.charges[seq] for seq in sorted(account.charges)]
            for what in violations(account, entries):
                found.append(Violation("invariant", account.key.account, "", what))
        return found


def run(seed: int, operations: int = 1000, *, small: bool = False, bug: Bug | None = None) -> Run:
    """Simulate one seed. The same seed and number of operations take the same steps."""
    started = time.perf_counter()
    simulation = Simulation(seed, plan_of(seed, operations, small=small))
    result = Run(seed, History())
    collecting = gc.isenabled()
    # A collection at a moment of its own would end what is out of reach in another order.
    gc.disable()
    try:
        with simulated(simulation.scheduler, simulation.database):
            with bug(simulation) if bug else nullcontext():
                _live(simulation, result)
            simulation.close()
    finally:
        if collecting:
            gc.enable()
    result.history = simulation.history()
    result.violations += simulation.convergence_violations() + simulation.broken_invariants()
    _count(simulation, result)
    result.seconds = time.perf_counter() - started
    return result


def _live(simulation: Simulation, result: Run) -> None:
    try:
        simulation.open()
        simulation.work()
        simulation.settle_down()
    except Exception as error:
        # An assertion of the model or of the core, a lane that ended, or a run that hangs.
        result.violations.append(Violation("broken", "", "", repr(error)))


def _count(simulation: Simulation, result: Run) -> None:
    calls = simulation.clients.calls
    result.faults = simulation.faults + Counter(simulation.database.faults)
    result.faults += Counter(simulation.network.faults)
    result.operations = len(calls)
    result.attempts = sum(len(call.attempts) for call in calls)
    attempts = [attempt for call in calls for attempt in call.attempts]
    result.refusals = sum(attempt.told is Told.REFUSED for attempt in attempts)
    result.acknowledged = sum(call.done_time < float("inf") for call in calls)
    result.unknowns = sum(
        any(attempt.told is Told.UNKNOWN for attempt in call.attempts) and is_certain(call)
        for call in calls
    )
    result.virtual_seconds = simulation.scheduler.now
    result.trace_hash = simulation.scheduler.trace_hash
