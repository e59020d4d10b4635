"""A lane: a thread with its own connection that commits what waits for it, batch by batch.

It takes whatever waits, up to a bound, at once: a lone operation never waits for company, and under
load batches grow by themselves, with a pause after one of several calls. Namespaces are served in
turn.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Final, NamedTuple

import psycopg
import structlog

from meterhold_server.batching import failures
from meterhold_server.batching.failures import Failure
from meterhold_server.batching.fair_queue import FairQueue, Part, Waiting
from meterhold_server.batching.transaction import BatchFault, Unresolved, transact
from meterhold_server.core.model import Rules
from meterhold_server.core.operations import Operation, Rebuild, count
from meterhold_server.core.outcomes import Outcome
from meterhold_server.storage.errors import Fault
from meterhold_server.storage.session import Session

_log = structlog.get_logger(__name__)

# As measured: see docs/performance.md.
_PAUSE_CALLS_MIN: Final = 8
_PAUSE_CALLS_MAX: Final = 48
_PAUSE_SECONDS_EACH: Final = 0.0006
_PAUSE_SECONDS_MAX: Final = 0.008


class LaneLimits(NamedTuple):
    """The bounds of a lane. Counts are of operations, times in seconds.

    What is submitted together is taken on whole, though it may be more than there is room for. The
    queue is full for a namespace if as many operations would be carried out before its next; in all
    twice as many may wait.
    """

    batch_operations_max: int = 256
    queue_operations_max: int = 4096
    queue_wait_seconds_max: float = 2.0
    attempts_max: int = 5
    database_wait_seconds: float = 5.0
    transaction_seconds_max: float = 20.0


Answer = tuple[Waiting, Outcome | Failure]


class Lane:
    """One writer. `submit` runs in the event loop, all else in the lane's own thread."""

    def __init__(
        self,
        open_session: Callable[[], Session],
        rules: Rules,
        limits: LaneLimits,
        name: str = "lane",
    ) -> None:
        self._open_session = open_session
        self._rules = rules
        self._limits = limits
        self._queue = FairQueue()
        self._loop = asyncio.get_running_loop()
        self._session: Session | None = None
        self._closing = False
        self._busy_since: float | None = None
        self._busy_count = 0
        self._down_since: float | None = None
        self._batch_seconds = 0.0
        self._worker = threading.Thread(target=self._work, name=name, daemon=True)
        self._worker.start()

    @property
    def pending_count(self) -> int:
        """About how many operations wait or are being carried out."""
        return self._queue.waiting_count + self._busy_count

    def submit(
        self, operation: Operation, deadline: float | None = None
    ) -> asyncio.Future[Outcome]:
        """Queue an operation. The future gets its outcome, or raises Failure.

        Cancelling the future drops the waiter: once the operation is in a batch, it is carried out.
        Raises Failure at once when the lane is full or closing.
        """
        self._refuse_if_full(operation)
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self._queue.put(([Waiting(operation, future, deadline)], count(operation)))
        return future

    def submit_many(self, many: Sequence[Waiting]) -> None:
        """Queue operations of a namespace that came together: the lane keeps their order.

        Raises Failure, for all of them, as `submit` does.
        """
        self._refuse_if_full(many[0].operation)
        for part in _parts(many, self._limits.batch_operations_max):
            self._queue.put(part)

    def _refuse_if_full(self, operation: Operation) -> None:
        if self._closing:
            raise failures.shutting_down()
        waiting = self._queue.waiting_count
        if not self._is_too_much(waiting):
            return
        # Where others have made it full, a namespace that has asked for little may still come in;
        # however many namespaces there are, the queue has a bound.
        ahead = self._queue.ahead_of(operation.account.namespace)
        if self._is_too_much(ahead) or waiting >= 2 * self._limits.queue_operations_max:
            raise failures.overloaded(ahead, self._wait_seconds(ahead))

    def _is_too_much(self, waiting: int) -> bool:
        limits = self._limits
        return (
            waiting >= limits.queue_operations_max
            or self._wait_seconds(waiting) > limits.queue_wait_seconds_max
        )

    def _wait_seconds(self, waiting: int) -> float:
        return -(-waiting // self._limits.batch_operations_max) * self._batch_seconds

    async def close(self) -> None:
        """Carry out what waits, then stop. Nothing is taken on any more."""
        if not self._closing:
            self._closing = True
            self._queue.close()
        await asyncio.to_thread(self._worker.join)

    def sever_if_stuck(self) -> None:
        """Cut the connection of a batch that takes too long: its outcome is then looked up."""
        since, session = self._busy_since, self._session
        if since is None or session is None:
            return
        if time.monotonic() - since > self._limits.transaction_seconds_max:
            _log.error("transaction_stuck", seconds=round(time.monotonic() - since, 1))
            session.sever()

    def _work(self) -> None:
        try:
            while batch := self._queue.take(self._limits.batch_operations_max):
                self._busy_since = started = time.monotonic()
                ready = self._ready(batch, started)
                self._busy_count = len(ready)
                if ready:
                    for part in _apart(ready):
                        self._run(part)
                    self._measure(time.monotonic() - started)
                self._busy_since, self._busy_count = None, 0
                if pause_seconds := _pause_seconds(ready):
                    time.sleep(pause_seconds)
        finally:
            self._closing = True
            self._refuse_rest()
            self._drop_session()

    def _ready(self, batch: Iterable[Waiting], now: float) -> list[Waiting]:
        """Leave out those that nobody waits for any more: nothing was done for them yet."""
        ready: list[Waiting] = []
        late: list[Answer] = []
        for waiting in batch:
            if waiting.future.cancelled():
                continue
            if waiting.deadline is not None and waiting.deadline <= now:
                late.append((waiting, failures.deadline_passed()))
            else:
                ready.append(waiting)
        self._answer(late)
        return ready

    def _run(self, batch: list[Waiting]) -> None:
        """Carry a batch out and answer it, whatever happens."""
        try:
            self._commit(batch)
        except Failure as failure:
            self._answer([(waiting, failure) for waiting in batch])
        except Exception as error:
            self._isolate(batch, error)

    def _commit(self, batch: list[Waiting]) -> None:
        """Carry a batch out, again if others were in its way. Raises Failure for all of it."""
        lost = False
        for attempt in range(1, self._limits.attempts_max + 1):
            if self._session is None or self._session.connection.closed:
                session = self._connect()
                # That can take long, and what is late must not be begun.
                batch = self._ready(batch, time.monotonic())
                if not batch:
                    return
            else:
                session = self._session
            operations = [waiting.operation for waiting in batch]
            try:
                outcomes: list[Outcome] | None = transact(session, operations, self._rules)
            except BatchFault as fault:
                if fault.fault is Fault.REFUSED:
                    raise
                _log.warning(
                    "batch_fault", fault=fault.fault.name, attempt=attempt, error=str(fault)
                )
                lost = fault.fault is Fault.LOST
                outcomes = self._recover(fault, attempt)
            if outcomes is not None:
                self._answer(list(zip(batch, outcomes, strict=True)))
                return
            batch = self._ready(batch, time.monotonic())
            if not batch:
                return
        if lost:
            raise failures.database_unavailable()
        if len(batch) > 1:
            raise RuntimeError(f"gave up after {self._limits.attempts_max} attempts")
        raise failures.contended()

    def _recover(self, fault: BatchFault, attempt: int) -> list[Outcome] | None:
        """The outcomes of a batch that was committed after all; None if nothing was written.

        Raises Failure if neither can be said.
        """
        if fault.fault is Fault.RETRY:
            time.sleep(random.uniform(0, 0.002) * 2**attempt)
            return None
        self._drop_session()
        if fault.fault is Fault.LOST:
            return None
        if fault.unresolved is None:
            raise failures.outcome_unknown()
        return fault.unresolved.outcomes if self._committed(fault.unresolved) else None

    def _committed(self, unresolved: Unresolved) -> bool:
        """Whether a COMMIT whose answer was lost went through. Raises Failure if it can't tell."""
        give_up = time.monotonic() + self._limits.database_wait_seconds
        pause = 0.01
        while time.monotonic() < give_up:
            try:
                self._session = self._session or self._open_session()
                committed = self._session.transaction_committed(
                    unresolved.transaction_id, unresolved.evidence
                )
            except psycopg.Error:
                committed = None
                self._drop_session()
            if committed is not None:
                _log.info("outcome_resolved", committed=committed)
                return committed
            time.sleep(pause)
            pause = min(pause * 2, 0.25)
        raise failures.outcome_unknown()

    def _isolate(self, batch: Sequence[Waiting], cause: Exception) -> None:
        """Find the operation that cannot be carried out, so that it harms no other."""
        if len(batch) > 1:
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                self._run(list(half))
            return
        error_id = secrets.token_hex(8)
        kind = type(batch[0].operation).__name__
        _log.error("operation_failed", error_id=error_id, operation=kind, exc_info=cause)
        self._answer([(batch[0], failures.internal(error_id))])

    def _connect(self) -> Session:
        """A new session. Raises Failure if the database stays away.

        Once it has been away for long, each batch tries but once, so that callers are told at once.
        """
        pause = 0.02
        while True:
            try:
                self._session = self._open_session()
            except psycopg.Error as error:
                now = time.monotonic()
                self._down_since = self._down_since or now
                if now - self._down_since > self._limits.database_wait_seconds or self._closing:
                    raise failures.database_unavailable() from error
            else:
                self._down_since = None
                return self._session
            time.sleep(pause)
            pause = min(pause * 2, 0.25)

    def _drop_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _refuse_rest(self) -> None:
        rest = self._queue.rest()
        self._answer([(waiting, failures.shutting_down()) for waiting in rest])

    def _measure(self, seconds: float) -> None:
        """Keep a moving average of what a batch takes, for the estimate of the wait."""
        self._batch_seconds += 0.2 * (seconds - self._batch_seconds)

    def _answer(self, answers: list[Answer]) -> None:
        """Hand all answers to the event loop at once."""
        if answers:
            with suppress(RuntimeError):  # The loop is gone, and every waiter with it.
                self._loop.call_soon_threadsafe(_deliver, answers)


def _pause_seconds(batch: Sequence[Waiting]) -> float:
    """How long not to begin a batch after this one, so that the next is larger.

    A transaction costs about as much as answering three calls, whatever is in it. Where many call
    one by one, the event loop has its hands full with their calls meanwhile. What came in a Batch
    shares a transaction anyway, and a few callers would only wait.
    """
    calls = sum(isinstance(each.future, asyncio.Future) for each in batch)
    if calls < _PAUSE_CALLS_MIN or calls < len(batch) or calls > _PAUSE_CALLS_MAX:
        return 0
    return min(calls * _PAUSE_SECONDS_EACH, _PAUSE_SECONDS_MAX)


def _parts(many: Sequence[Waiting], operations_max: int) -> Iterable[Part]:
    """Cut what is too much for one batch. A chain stays whole."""
    part: list[Waiting] = []
    total = 0
    for waiting in many:
        more = count(waiting.operation)
        if part and total + more > operations_max:
            yield part, total
            part, total = [], 0
        part.append(waiting)
        total += more
    yield part, total


def _apart(batch: list[Waiting]) -> Iterable[list[Waiting]]:
    """A rebuild is carried out alone: it is decided by sums that others would change."""
    for is_rebuild, group in groupby(batch, lambda each: isinstance(each.operation, Rebuild)):
        waiting = list(group)
        yield from [[each] for each in waiting] if is_rebuild else [waiting]


def _deliver(answers: Iterable[Answer]) -> None:
    for waiting, answer in answers:
        if waiting.future.done():
            continue
        if isinstance(answer, Failure):
            waiting.future.set_exception(answer)
        else:
            waiting.future.set_result(answer)
