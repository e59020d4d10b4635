"""Namespaces are served in turn: laws of the queue, and what a flood does to the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.book import debit
from meterhold_server.batching.engine import Engine
from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.batching.fair_queue import FairQueue, Waiting
from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import GrantOnce
from meterhold_server.core.outcomes import Outcome
from support.engines import Observer, running
from support.waiting import until

FLOOD = AccountKey("flood", "alice", "credits")
OTHER = AccountKey("other", "bob", "credits")
NOBODY: Any = None


@dataclass(frozen=True)
class Put:
    """So many operations of a namespace that came together."""

    namespace: str
    count: int


@dataclass(frozen=True)
class Take:
    """A batch with so much room."""

    room: int


puts = st.builds(Put, st.sampled_from("abcd"), st.integers(1, 9))
steps = st.lists(puts | st.builds(Take, st.integers(1, 20)), max_size=60)


@dataclass
class Run:
    """A queue, and beside it what was put into it and is not taken yet."""

    queue: FairQueue = field(default_factory=FairQueue)
    lines: dict[str, list[list[Waiting]]] = field(default_factory=dict)

    def put(self, step: Put) -> None:
        account = AccountKey(step.namespace, "alice", "credits")
        part = [Waiting(debit(1, account=account), NOBODY, None) for _ in range(step.count)]
        self.queue.put((part, step.count))
        self.lines.setdefault(step.namespace, []).append(part)

    @property
    def waiting_count(self) -> int:
        return sum(len(part) for line in self.lines.values() for part in line)

    def take(self, room: int) -> list[list[Waiting]]:
        """What one batch takes, part by part. Checks that it takes parts whole and in order."""
        batch = self.queue.take(room)
        parts = []
        while batch:
            line = self.lines[batch[0].operation.account.namespace]
            part = line.pop(0)
            assert batch[: len(part)] == part
            batch = batch[len(part) :]
            parts.append(part)
        return parts


def run_of(done: Sequence[Put | Take]) -> Run:
    run = Run()
    for step in done:
        if isinstance(step, Put):
            run.put(step)
        elif run.waiting_count:
            run.take(step.room)
    return run


@given(steps)
def test_all_is_taken_once_and_each_namespace_keeps_its_order(done: list[Put | Take]) -> None:
    run = run_of(done)
    run.queue.close()
    while run.take(7):
        pass
    assert run.waiting_count == 0
    assert run.queue.waiting_count == 0
    assert run.queue.take(7) == [], "and so for ever"


@given(steps, st.integers(1, 20))
def test_a_batch_has_no_more_than_there_is_room_for(done: list[Put | Take], room: int) -> None:
    """But for the first part, which nobody else could take either."""
    run = run_of([*done, Put("a", 1)])
    parts = run.take(room)
    assert len(parts) == 1 or sum(map(len, parts)) <= room


@given(steps, st.integers(4, 20))
def test_each_namespace_that_waits_has_a_turn_before_another_has_its_second(
    done: list[Put | Take], room: int
) -> None:
    singles = [Put(step.namespace, 1) if isinstance(step, Put) else step for step in done]
    run = run_of([*singles, Put("a", 1)])
    waiting = {namespace: len(line) for namespace, line in run.lines.items() if line}
    taken = Counter(part[0].operation.account.namespace for part in run.take(room))
    rounds = max(taken.values())
    for namespace, count in waiting.items():
        assert taken[namespace] >= min(count, rounds - 1)


@given(steps)
def test_what_is_ahead_is_no_more_than_all_that_waits(done: list[Put | Take]) -> None:
    run = run_of(done)
    assert run.queue.waiting_count == run.waiting_count
    for namespace in "abcd":
        own = sum(map(len, run.lines.get(namespace, [])))
        assert own <= run.queue.ahead_of(namespace) <= run.waiting_count
    assert run.queue.ahead_of("nobody has come from here") == 0


def test_one_namespace_alone_is_served_as_it_came() -> None:
    run = run_of([Put("a", 1)] * 10)
    assert run.queue.ahead_of("a") == 10
    assert [len(run.take(4)) for _ in range(3)] == [4, 4, 2]


def test_what_is_too_large_for_what_is_left_comes_first_the_next_time() -> None:
    run = run_of([Put("a", 1), Put("b", 9), Put("c", 1), Put("c", 1)])
    assert [[len(part) for part in run.take(9)] for _ in range(2)] == [[1, 1, 1], [9]]


def test_namespaces_that_have_gone_are_forgotten() -> None:
    run = Run()
    for number in range(5000):
        run.put(Put(f"tenant-{number}", 1))
        run.take(1)
    assert len(run.queue._lines) <= 1024


async def occupied(engine: Engine, observer: Observer) -> asyncio.Future[Outcome]:
    """A lane that waits for the account of the flood, until `let_go`."""
    for account in (FLOOD, OTHER):
        await engine.submit(GrantOnce(account, f"gift-{account.namespace}", 10_000))
    observer.lock(FLOOD)
    first = engine.submit(debit(1, account=FLOOD))
    await until(observer.blocked)
    return first


async def test_a_flood_from_one_namespace_does_not_stall_another(
    database_url: str, observer: Observer
) -> None:
    """Both get half of each batch, whoever was first."""
    async with running(database_url, LaneLimits(batch_operations_max=10)) as engine:
        first = await occupied(engine, observer)
        order: list[str] = []
        waiting = []
        for account, count in ((FLOOD, 300), (OTHER, 20)):
            for _ in range(count):
                future = engine.submit(debit(1, account=account))
                future.add_done_callback(partial(_note, order, account.namespace))
                waiting.append(future)
        observer.let_go()
        await asyncio.gather(first, *waiting)
    assert order.index("other") < 10
    last = len(order) - 1 - order[::-1].index("other")
    assert last < 50, "20 of them take four batches, and not those of 300 before them"


def _note(order: list[str], name: str, _: object) -> None:
    order.append(name)


async def test_a_queue_that_one_namespace_has_filled_is_open_to_the_others(
    database_url: str, observer: Observer
) -> None:
    limits = LaneLimits(queue_operations_max=50, batch_operations_max=10)
    async with running(database_url, limits) as engine:
        waiting = [await occupied(engine, observer)]
        waiting += [engine.submit(debit(1, account=FLOOD)) for _ in range(50)]
        with pytest.raises(Failure) as refused:
            engine.submit(debit(1, account=FLOOD))
        assert refused.value.reason is FailureReason.OVERLOADED
        waiting += [engine.submit(debit(1, account=OTHER)) for _ in range(50)]
        third = AccountKey("third", "carol", "credits")
        with pytest.raises(Failure) as refused:
            engine.submit(debit(1, account=third))
        assert refused.value.reason is FailureReason.OVERLOADED, "there is a bound for all"
        observer.let_go()
        await asyncio.gather(*waiting)
