"""Between client and server calls are cut, delayed and duplicated: each is done once, or not."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Final

import pytest

import meterhold
from meterhold_server.storage.verify import verify
from robustness.books import Book, Wrong, read_account
from robustness.callers import ACCOUNTS, Call, make, make_async, script, some_seconds, unknown
from support.call_proxy import CallFault, CallProxy
from support.connection_proxy import ConnectionFault, ConnectionProxy
from support.service import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))
CALLS: Final = 20_000
SYNC_CALLERS: Final = 8
ASYNC_CALLERS: Final = 32
CALLS_EACH: Final = CALLS // (SYNC_CALLERS + ASYNC_CALLERS)
CLIENTS: Final = 3
"""Of each kind: one at each address, and one at all of them. The first sends each call alone."""

ATTEMPT_SECONDS: Final = 0.3
CALL_SECONDS: Final = 5.0
CALL_CHANCES: Final = dict.fromkeys(CallFault, 0.025)
CONNECTION_CHANCES: Final = {
    ConnectionFault.RESET: 3.0,
    ConnectionFault.CLOSED: 3.0,
    ConnectionFault.STALLED: 3.0,
    ConnectionFault.OUTAGE: 2.0,
}
BYTES_BETWEEN_FAULTS: Final = 100_000
STALL_SECONDS_MAX: Final = 0.25
"""A client takes what has been on its way for longer than an attempt may last for lost."""

METHODS: Final = {
    *("reserve", "settle", "release", "extend", "debit", "debit_once", "grant_once", "balance"),
    *("get_reservation", "get_entry", "list_reservations", "list_entries", "list_lots"),
}


async def test_20_000_calls_through_bad_proxies_are_done_once_or_not(database_url: str) -> None:
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again
    with ServerProcess(database_url) as server:
        async with (
            CallProxy(server.address, seed=SEED, chances=CALL_CHANCES) as calls_proxy,
            ConnectionProxy(
                calls_proxy.address,
                seed=SEED,
                chances=CONNECTION_CHANCES,
                bytes_between_faults=BYTES_BETWEEN_FAULTS,
                seconds_max=STALL_SECONDS_MAX,
                listeners=2 * (CLIENTS - 1),
            ) as connections_proxy,
        ):
            calls = await _make_calls(connections_proxy.addresses)
            connections_proxy.calm()
            await calls_proxy.calm()
        _check_that_much_happened(calls, calls_proxy, connections_proxy)
        async with meterhold.AsyncClient(server.address) as client:
            await _resolve(client, calls)
            wrong = await _compare(client, calls)
    assert not wrong, _history(wrong, calls, calls_proxy)
    assert verify(database_url).violations == ()


async def _make_calls(addresses: Sequence[str]) -> list[Call]:
    """Let all callers make their calls, at once."""
    half = len(addresses) // 2
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(SYNC_CALLERS))
        clients = [
            stack.enter_context(
                meterhold.Client(
                    target,
                    timeout_seconds=CALL_SECONDS,
                    attempt_timeout_seconds=ATTEMPT_SECONDS,
                    coalesce=number > 0,
                )
            )
            for number, target in enumerate((*addresses[:half], addresses[:half]))
        ]
        async_clients = [
            await stack.enter_async_context(
                meterhold.AsyncClient(
                    target,
                    timeout_seconds=CALL_SECONDS,
                    attempt_timeout_seconds=ATTEMPT_SECONDS,
                    coalesce=number > 0,
                )
            )
            for number, target in enumerate((*addresses[half:], addresses[half:]))
        ]
        made = await asyncio.gather(
            *(
                loop.run_in_executor(pool, _be_caller, clients[number % CLIENTS], number)
                for number in range(SYNC_CALLERS)
            ),
            *(
                _be_async_caller(async_clients[number % CLIENTS], number)
                for number in range(ASYNC_CALLERS)
            ),
        )
    return [call for calls in made for call in calls]


def _be_caller(client: meterhold.Client, number: int) -> list[Call]:
    chance = random.Random(f"{SEED} sync {number}")
    made = []
    for call in script(f"sync-{number}", SEED, CALLS_EACH):
        make(client, call, some_seconds(chance))
        made.append(call)
    return made


async def _be_async_caller(client: meterhold.AsyncClient, number: int) -> list[Call]:
    chance = random.Random(f"{SEED} async {number}")
    made = []
    for call in script(f"async-{number}", SEED, CALLS_EACH):
        await make_async(client, call, some_seconds(chance))
        made.append(call)
    return made


def _check_that_much_happened(
    calls: list[Call], calls_proxy: CallProxy, connections_proxy: ConnectionProxy
) -> None:
    """Otherwise nothing was tested: every fault was met, and there was every kind of answer."""
    assert len(calls) == CALLS
    assert {call.method for call in calls} == METHODS
    assert all(calls_proxy.counts[fault] > 300 for fault in CallFault), calls_proxy.counts
    assert all(connections_proxy.counts[fault] > 1 for fault in ConnectionFault)
    assert connections_proxy.refused > 0
    came = Counter(
        event.method.rpartition("/")[2]
        for event in calls_proxy.events
        if event.what.startswith("came")
    )
    assert came["Batch"] > 300, came
    refusals = Counter(call.answer.reason for call in calls if call.told == "no")
    assert refusals["INSUFFICIENT_CREDITS"] > 300, refusals
    assert refusals["IDEMPOTENCY_MISMATCH"] > 100, refusals
    assert refusals["RESERVATION_SETTLED"] > 30, refusals
    replayed = [
        call
        for call in calls
        if call.told == "yes" and call.repeats is None and getattr(call.answer, "replayed", False)
    ]
    assert len(replayed) > 300
    assert len(unknown(calls)) > 20


async def _resolve(client: meterhold.AsyncClient, calls: Iterable[Call]) -> None:
    """Make what is unknown again, with the same key: then it is known."""
    resolved = unknown(calls)
    for call in resolved:
        await make_async(client, call)
        assert call.told != "unknown", call
    done = [getattr(call.answer, "replayed", False) for call in resolved]
    assert set(done) == {True, False}, "all were done, or none"


async def _compare(client: meterhold.AsyncClient, calls: Iterable[Call]) -> list[Wrong]:
    by_account: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_account[call.account].append(call)
    assert by_account.keys() <= {*ACCOUNTS}
    return [
        wrong
        for name in ACCOUNTS
        for wrong in Book(name, await read_account(client, name)).check(by_account[name])
    ]


def _history(wrong: list[Wrong], calls: Iterable[Call], proxy: CallProxy) -> str:
    """What happened to the calls that are concerned, as far as it fits on a screen or two."""
    lines = [f"METERHOLD_TEST_SEED={SEED}: {len(wrong)} differences"]
    for account, name, what in wrong[:5]:
        lines += ["", f"{account} {name} {what}"]
        lines += [str(call) for call in calls if name and call.name == name]
        lines += [
            f"  {seconds:.3f} {method.rpartition('/')[2]} {event}"
            for seconds, method, _, event in (proxy.events_of(name)[:60] if name else [])
        ]
    return "\n".join(lines)
