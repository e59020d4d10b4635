"""Namespaces take turns in reading: laws of the lines, and what a flood does to the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import meterhold
from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.batching.reader import Reader, Reads
from meterhold_server.batching.turns import Turns
from meterhold_server.storage import pages
from meterhold_server.storage.connection import connect_reader_for_callers
from support.keys import make_key
from support.service import service
from support.waiting import until

steps = st.lists(st.sampled_from("abcd") | st.none(), max_size=60)


@given(steps)
def test_all_is_taken_once_each_line_keeps_its_order_and_nobody_waits_for_two_of_another(
    done: list[str | None],
) -> None:
    """A letter comes; None takes whose turn it is, if anybody waits."""
    turns: Turns[tuple[str, int]] = Turns()
    lines: dict[str, list[int]] = {}
    passed: dict[str, list[str]] = {}
    for number, step in enumerate([*done, *[None] * len(done)]):
        if step is not None:
            turns.put(step, (step, number))
            lines.setdefault(step, []).append(number)
            passed.setdefault(step, [])
        elif lines:
            name, taken = turns.take()
            assert taken == lines[name].pop(0)
            del passed[name]
            if lines[name]:
                passed[name] = []
            else:
                del lines[name]
            for other, before in passed.items():
                before += [name] if other != name else []
                assert len(before) == len(set(before)), f"{other} waited for two of {name}"
    assert not lines


def test_one_namespace_alone_is_served_as_it_came() -> None:
    turns: Turns[int] = Turns()
    for number in range(10):
        turns.put("a", number)
    assert [turns.take() for _ in range(10)] == list(range(10))


class Lines:
    """The namespaces of all reads: in the order in which they came, and in that of their turns."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.served: list[str] = []


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What is noted of every line from now on."""
    noted = Lines()
    names: dict[int, str] = {}
    put, take = Turns.put, Turns.take

    def noting_put(self: Turns[Any], namespace: str, waiting: Any) -> None:
        names[id(waiting)] = namespace
        put(self, namespace, waiting)
        noted.arrived.append(namespace)

    def noting_take(self: Turns[Any]) -> Any:
        taken = take(self)
        noted.served.append(names[id(taken)])
        return taken

    monkeypatch.setattr(Turns, "put", noting_put)
    monkeypatch.setattr(Turns, "take", noting_take)
    return noted


class Gate:
    """Reads that wait in their threads until they are let, and note who was served."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.entered = threading.Semaphore(0)
        self._open = threading.Event()

    def read(self, _: object, name: str) -> str:
        self.entered.release()
        assert self._open.wait(timeout=20)
        self.served.append(name)
        return name

    def open(self) -> None:
        self._open.set()


@asynccontextmanager
async def opened(database_url: str, **options: Any) -> AsyncIterator[Reader]:
    reader = Reader(database_url, connect=connect_reader_for_callers, **options)
    try:
        yield reader
    finally:
        await reader.close()


def start(reads: Reads, gate: Gate, name: str) -> asyncio.Task[str]:
    return asyncio.create_task(reads.run(gate.read, name))


WAYS: dict[str, Callable[[Reader, str], Reads]] = {
    "for callers": Reader.within,
    "of all": Reader.in_line,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("threads", [1, 2])
async def test_a_flood_from_one_namespace_does_not_stall_another(
    database_url: str, way: Callable[[Reader, str], Reads], threads: int, lines: Lines
) -> None:
    gate = Gate()
    async with opened(database_url, threads=threads) as reader:
        flood = [start(way(reader, "flood"), gate, "flood") for _ in range(200)]
        for _ in range(threads):
            await asyncio.to_thread(gate.entered.acquire)
        others = [start(way(reader, "other"), gate, "other") for _ in range(5)]
        third = start(way(reader, "third"), gate, "third")
        await asyncio.sleep(0)
        gate.open()
        assert len(await asyncio.gather(*flood, *others, third)) == 206
    waited = lines.served[threads:]  # The first were under way already.
    assert waited.index("third") < 3
    assert waited[: 2 * 5 + 1].count("other") == 5


async def test_who_has_left_takes_the_place_of_nobody(database_url: str) -> None:
    gate = Gate()
    async with opened(database_url, threads=1) as reader:
        first = start(reader.in_line("a"), gate, "first")
        await asyncio.to_thread(gate.entered.acquire)
        gone = [start(reader.in_line("a"), gate, "gone") for _ in range(5)]
        last = start(reader.in_line("b"), gate, "last")
        await asyncio.sleep(0)
        for each in gone:
            each.cancel()
        gate.open()
        assert [await first, await last] == ["first", "last"]
        assert await reader.in_line("a").run(gate.read, "again") == "again"
    assert gate.served == ["first", "last", "again"]


async def test_lines_that_one_namespace_has_filled_are_open_to_the_others(
    database_url: str,
) -> None:
    gate = Gate()
    async with opened(database_url, threads=1, waiting_reads_max=20) as reader:
        waiting = [start(reader.in_line("flood"), gate, "flood") for _ in range(20)]
        await asyncio.sleep(0)
        with pytest.raises(Failure) as refused:
            await reader.in_line("flood").run(gate.read, "one more")
        assert refused.value.reason is FailureReason.OVERLOADED
        assert refused.value.retry_after_seconds
        waiting += [start(reader.in_line(f"other-{n}"), gate, "other") for n in range(20)]
        await asyncio.sleep(0)
        with pytest.raises(Failure) as refused:
            await reader.in_line("third").run(gate.read, "too many")
        assert refused.value.reason is FailureReason.OVERLOADED, "there is a bound for all"
        gate.open()
        await asyncio.gather(*waiting)
        assert await reader.in_line("flood").run(gate.read, "now") == "now"
        assert reader._waiting_in == {}, "namespaces that have gone are forgotten"


async def test_a_server_answers_one_namespace_while_another_asks_for_much(
    database_url: str, monkeypatch: pytest.MonkeyPatch, lines: Lines
) -> None:
    gate = Gate()
    read_account = pages.read_account

    def gated(connection: Any, account_id: str) -> Any:
        gate.read(connection, account_id)
        return read_account(connection, account_id)

    monkeypatch.setattr("meterhold_server.rpc.service.read_account", gated)
    keys = {name: make_key(database_url, name).text for name in ("flood", "other")}
    async with (
        service(database_url, auth="keys") as address,
        meterhold.AsyncClient(address, api_key=keys["flood"]) as flood,
        meterhold.AsyncClient(address, api_key=keys["other"]) as other,
    ):
        calls = [asyncio.create_task(flood.balance("alice")) for _ in range(100)]
        await until(lambda: lines.arrived.count("flood") == 100)
        calls.append(asyncio.create_task(other.balance("alice")))
        await until(lambda: "other" in lines.arrived)
        gate.open()
        await asyncio.gather(*calls)
    served = [name for name in lines.served if name]  # Credentials are read for no namespace.
    assert served.index("other") < 2 + 2, "two were under way, and one of the flood was next"
