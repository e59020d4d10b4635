"""Concurrent calls go to the server together, and no caller can tell."""

from __future__ import annotations

import asyncio
import ctypes
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio
import pytest

import meterhold
from client.memory_server import START, AfterAll, Instead, MemoryServer
from client.scripted_server import Abort, Hang, error_info
from meterhold import AsyncClient, Client, _coalescing
from meterhold._coalescer import forget_all
from meterhold._coalescing import ALONE_MAX, OPERATIONS_MAX, PATIENCE_SECONDS, Waiting
from meterhold._replay import Attempts
from meterhold.v1 import metering_service_pb2 as pb
from support.waiting import until
from testing.calls import Asked, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

Code = grpc.StatusCode
THREADS: Final = 300
NO_TRANSPORT_RETRY: Final = (("grpc-retry-pushback-ms", "-1"),)
OVERLOADED: Final = Abort(
    Code.UNAVAILABLE, "overloaded", (error_info("OVERLOADED"),), NO_TRANSPORT_RETRY
)
UNKNOWN: Final = Abort(
    Code.UNAVAILABLE, "unknown", (error_info("OUTCOME_UNKNOWN", "UNKNOWN"),), NO_TRANSPORT_RETRY
)
LOST: Final = Abort(Code.UNAVAILABLE, trailing_metadata=NO_TRANSPORT_RETRY)


class Crowd:
    """Makes calls of either client at the same time. Each is a future."""

    def __init__(self, client: Client | AsyncClient, pool: ThreadPoolExecutor) -> None:
        self.client = client
        self._pool = pool

    def start(self, method: str, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        call: Any = getattr(self.client, method)
        if isinstance(self.client, AsyncClient):
            task: asyncio.Future[Any] = asyncio.ensure_future(call(*args, **kwargs))
            return task
        loop = asyncio.get_running_loop()
        made: asyncio.Future[Any] = loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))
        return made

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return await self.start(method, *args, **kwargs)

    def debits(self, number: int, **kwargs: Any) -> list[asyncio.Future[Any]]:
        """So many debits of 1, each with a key of its own."""
        return [
            self.start("debit_once", "alice", 1, idempotency_key=f"key-{n}", **kwargs)
            for n in range(number)
        ]


@pytest.fixture
def server() -> Iterator[MemoryServer]:
    """Where alice has 1000."""
    with MemoryServer() as server:
        with server.memory.client() as client:
            client.grant_once("alice", 1000, idempotency_key="gift")
        yield server
    server.memory.verify()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def options() -> dict[str, Any]:
    """Arguments of the client that `crowd` has."""
    return {}


@pytest.fixture
async def crowd(
    kind: str, server: MemoryServer, pool: ThreadPoolExecutor, options: dict[str, Any]
) -> AsyncIterator[Crowd]:
    if kind == "sync":
        with Client(server.target, **options) as client:
            yield Crowd(client, pool)
    else:
        async with AsyncClient(server.target, **options) as async_client:
            yield Crowd(async_client, pool)


async def fill(crowd: Crowd, server: MemoryServer) -> list[asyncio.Future[Any]]:
    """As many calls under way as may go by themselves; they wait for the gate."""
    server.gate.clear()
    calls = []
    for number in range(ALONE_MAX):
        calls.append(crowd.start("debit_once", "alice", 1, idempotency_key=f"first-{number}"))
        await until(lambda: len(server.messages) == len(calls))
    return calls


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes beyond what may be under way."""
    monkeypatch.setattr(_coalescing, "PATIENCE_SECONDS", 60.0)


class TestWhatGoesTogether:
    async def test_a_lone_call_goes_by_itself(self, crowd: Crowd, server: MemoryServer) -> None:
        await crowd.call("reserve", "alice", 5, reservation_id="job")
        await crowd.call("settle", "alice", 3, reservation_id="job")
        await crowd.call("debit", "alice", 1)
        assert server.methods == ["Reserve", "Settle", "Debit"]

    async def test_calls_gather_while_others_are_under_way(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        first = await fill(crowd, server)
        rest = crowd.debits(100)
        await until(lambda: waiting_count(crowd) == 100)
        server.gate.set()
        answers = await asyncio.gather(*first, *rest)
        assert sorted(answer.entry.seq for answer in answers) == list(range(2, 102 + len(first)))
        assert server.methods == ["DebitOnce"] * ALONE_MAX + ["Batch"]
        assert server.operations == len(answers)

    async def test_a_burst_is_few_messages(self, crowd: Crowd, server: MemoryServer) -> None:
        answers = await asyncio.gather(*crowd.debits(THREADS))
        assert {answer.status for answer in answers} == {meterhold.DebitStatus.DEBITED}
        assert server.operations == THREADS
        assert max(message.number for message in server.messages) <= OPERATIONS_MAX
        assert len(server.messages) < THREADS / 3

    async def test_a_lone_call_after_a_burst_goes_by_itself(
        self, crowd: Crowd, server: MemoryServer
    ) -> None:
        await asyncio.gather(*crowd.debits(50))
        await crowd.call("debit", "alice", 1)
        assert server.methods[-1] == "Debit"

    async def test_all_that_change_balances_every_day_go_together(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        for number in range(3):
            await crowd.call("reserve", "alice", 10, reservation_id=f"job-{number}")
        server.messages.clear()
        first = await fill(crowd, server)
        rest = [
            crowd.start("reserve", "alice", 5, reservation_id="job"),
            crowd.start("settle", "alice", 5, reservation_id="job-0"),
            crowd.start("release", "alice", reservation_id="job-1"),
            crowd.start("extend", "alice", reservation_id="job-2", add_amount_micros=5),
            crowd.start("debit", "alice", 5),
            crowd.start("debit_once", "alice", 5, idempotency_key="a"),
            crowd.start("grant_once", "alice", 5, idempotency_key="a"),
        ]
        await until(lambda: waiting_count(crowd) == len(rest))
        server.gate.set()
        answers = await asyncio.gather(*first, *rest)
        assert [type(answer).__name__ for answer in answers[ALONE_MAX:]] == [
            "ReserveResult", "SettleResult", "ReleaseResult", "ExtendResult", "DebitResult",
            "DebitResult", "GrantResult",
        ]  # fmt: skip
        assert server.methods[ALONE_MAX:] == ["Batch"]

    @pytest.mark.parametrize(
        ("method", "args", "kwargs"),
        [
            ("debit", ("alice", 1), {"request_id": None}),
            ("debit", ("alice", 1), {"metadata": {"large": "x" * 20_000}}),
            ("debit", ("alice", 1), {"timeout_seconds": PATIENCE_SECONDS}),
            ("refund_charge", ("alice",), {"idempotency_key": "a", "entry_seq": 1}),
            ("revoke_grant", ("none",), {}),
            ("reinstate_grant", ("none",), {}),
            ("balance", ("alice",), {}),
            ("get_reservation", ("alice",), {"reservation_id": "job"}),
            ("configure_account", ("alice",), {}),
        ],
        ids=str,
    )
    async def test_others_go_by_themselves_and_at_once(
        self,
        crowd: Crowd,
        server: MemoryServer,
        monkeypatch: pytest.MonkeyPatch,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        patient(monkeypatch)
        first = await fill(crowd, server)
        others = [crowd.start(method, *args, **kwargs) for _ in range(2)]
        await until(lambda: len(server.messages) == len(first) + 2)
        server.gate.set()
        await asyncio.gather(*first, *others, return_exceptions=True)
        assert "Batch" not in server.methods

    @pytest.mark.parametrize("options", [{"coalesce": False}])
    async def test_it_can_be_turned_off(self, crowd: Crowd, server: MemoryServer) -> None:
        await asyncio.gather(*crowd.debits(50))
        assert server.methods == ["DebitOnce"] * 50

    async def test_one_message_that_hangs_does_not_stop_the_others(
        self, crowd: Crowd, server: MemoryServer
    ) -> None:
        server.faults.extend([Hang()] * ALONE_MAX)
        hanging = crowd.debits(1, timeout_seconds=2.0)
        for number in range(1, ALONE_MAX):
            await until(lambda: len(server.messages) == number)  # noqa: B023
            hanging += [crowd.start("debit", "alice", 1, timeout_seconds=2.0)]
        await until(lambda: not server.faults)
        started = time.monotonic()
        await asyncio.gather(*(crowd.start("debit", "alice", 1) for _ in range(100)))
        assert time.monotonic() - started < 1.0
        assert not any(each.done() for each in hanging)
        await asyncio.gather(*hanging, return_exceptions=True)

    @pytest.mark.parametrize("options", [{"api_key": "secret"}])
    async def test_the_key_of_the_api_goes_with_every_message(
        self, crowd: Crowd, server: MemoryServer
    ) -> None:
        await asyncio.gather(*crowd.debits(20))
        assert "Batch" in server.methods
        assert {each.metadata["authorization"] for each in server.messages} == {"Bearer secret"}


def waiting_count(crowd: Crowd) -> int:
    """How many calls are gathered and not sent."""
    calls: Any = crowd.client._calls
    return len(calls._coalescer._waiting)


class TestEachHasItsOwn:
    async def test_answer_and_refusal(self, crowd: Crowd, server: MemoryServer) -> None:
        """Random scripts at the same time, and one after the other by a client that sends alone."""
        chance = random.Random(random.getrandbits(64))
        scripts = [script(f"caller-{number}", chance) for number in range(40)]
        found = await asyncio.gather(*(play(crowd, each) for each in scripts))
        assert "Batch" in server.methods
        seen: Counter[str] = Counter()
        with MemoryServer() as other, Client(other.target, coalesce=False) as client:
            alone = Crowd(client, ThreadPoolExecutor(1))
            for asked, answers in zip(scripts, found, strict=True):
                assert await play(alone, asked) == answers
                seen.update(map(told, answers))
            assert "Batch" not in other.methods
        assert len(seen) > 15, f"the calls have become monotonous: {seen}"

    async def test_error_with_all_that_it_says(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        first = await fill(crowd, server)
        rest = [
            crowd.start("debit", "alice", 5000, request_id="a"),
            crowd.start("debit", "alice\n", -1, request_id="b"),
            crowd.start("settle", "alice", 1, reservation_id="none"),
            crowd.start("debit", "alice", 1, request_id="c"),
        ]
        await until(lambda: waiting_count(crowd) == len(rest))
        server.gate.set()
        answers = await asyncio.gather(*first, *rest, return_exceptions=True)
        told_: list[Any] = answers[ALONE_MAX:]
        too_little, invalid, missing, debited = told_
        assert isinstance(too_little, meterhold.InsufficientCredits)
        assert too_little.available_micros in range(1000 - len(first), 1000)
        assert (too_little.code, too_little.applied) == ("FAILED_PRECONDITION", "NO")
        assert (too_little.call, too_little.key) == ("Debit", "a")
        assert isinstance(invalid, meterhold.InvalidRequest)
        assert [field for field, _ in invalid.field_violations] == ["account", "amount_micros"]
        assert isinstance(missing, meterhold.ReservationNotFound)
        assert missing.reservation_id == "none"
        assert debited.status is meterhold.DebitStatus.DEBITED

    async def test_deadline(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_coalescing, "ALONE_MAX", 1)
        monkeypatch.setattr(_coalescing, "MESSAGES_UNDER_WAY_MAX", 1)
        first = crowd.debits(1)
        await until(lambda: len(server.messages) == 1)
        await asyncio.gather(*first)
        server.gate.clear()
        blocking = crowd.start("debit", "alice", 1)
        await until(lambda: len(server.messages) == 2)
        short = crowd.start("debit", "alice", 1, request_id="short", timeout_seconds=0.4)
        long = crowd.start("debit", "alice", 1, request_id="long", timeout_seconds=10)
        await until(lambda: server.methods[-1] == "Batch")
        assert server.messages[-1].seconds_remaining == pytest.approx(3, abs=0.5)
        with pytest.raises(meterhold.OutcomeUnknown) as raised:
            await short
        assert (raised.value.code, raised.value.key) == ("DEADLINE_EXCEEDED", "short")
        assert not long.done()
        server.gate.set()
        assert (await long).status is meterhold.DebitStatus.DEBITED
        await blocking

    async def test_deadline_while_it_is_not_even_sent(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        monkeypatch.setattr(_coalescing, "_SECONDS_MIN", 0.0)
        first = await fill(crowd, server)
        if isinstance(crowd.client, Client):
            started = time.monotonic()
            with pytest.raises(meterhold.OutcomeUnknown):
                await crowd.call("debit", "alice", 1, timeout_seconds=0.2)
            assert time.monotonic() - started < 2
        server.gate.set()
        await asyncio.gather(*first)
        assert server.operations == len(first)


METHODS: Final = {
    *("reserve", "settle", "release", "extend", "debit", "debit_once", "grant_once"),
    *("balance", "get_reservation", "list_entries", "list_lots"),
}


def script(name: str, chance: random.Random) -> list[Asked]:
    """Random calls about accounts that no other script knows."""
    caller = Caller(random.Random(chance.getrandbits(64)), name, START)
    calls = [caller.call() for _ in range(40)]
    return [each for each in calls if each.method in METHODS]


async def play(crowd: Crowd, asked: list[Asked]) -> list[Any]:
    return [await answer(crowd, each) for each in asked]


async def answer(crowd: Crowd, asked: Asked) -> Any:
    """What a call answers, or all that it is refused with."""
    try:
        if asked.method.startswith("list_"):
            found = getattr(crowd.client, asked.method)(**asked.arguments)
            is_sync = isinstance(crowd.client, Client)
            return list(found) if is_sync else [item async for item in found]
        return await crowd.call(asked.method, **asked.arguments)
    except meterhold.MeterholdError as error:
        return type(error), vars(error) | {"message": str(error)}


def told(answer: Any) -> str:
    if isinstance(answer, tuple):
        return str(answer[1]["reason"])
    return f"{type(answer).__name__} {getattr(answer, 'replayed', '')}"


class TestWhatFails:
    async def test_an_answer_that_is_lost_is_asked_for_again_by_each(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        first = await fill(crowd, server)
        rest = crowd.debits(30)
        await until(lambda: waiting_count(crowd) == len(rest))
        server.faults.append(AfterAll(LOST))
        server.gate.set()
        answers = await asyncio.gather(*rest)
        assert all(answer.replayed for answer in answers)
        assert sorted(answer.entry.key for answer in answers) == sorted(
            f"key-{number}" for number in range(30)
        )
        await asyncio.gather(*first)

    @pytest.mark.parametrize("options", [{"attempt_timeout_seconds": 0.4}])
    async def test_an_answer_that_does_not_come_is_asked_for_again_by_each(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        first = await fill(crowd, server)
        rest = crowd.debits(30)
        await until(lambda: waiting_count(crowd) == len(rest))
        server.faults.append(AfterAll(Hang()))
        server.gate.set()
        answers = await asyncio.gather(*rest)
        assert all(answer.replayed for answer in answers)
        await asyncio.gather(*first)

    async def test_in_the_end_nobody_knows(self, crowd: Crowd, server: MemoryServer) -> None:
        server.faults.extend([LOST] * 10_000)
        calls = crowd.debits(20, timeout_seconds=0.5)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in answers} == {meterhold.OutcomeUnknown}
        keys = {each.key for each in answers if isinstance(each, meterhold.MeterholdError)}
        assert keys == {f"key-{number}" for number in range(20)}
        server.faults.clear()

    async def test_an_operation_that_is_unavailable_is_sent_again(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As the transport does with a call of its own."""
        answers = await self._together(crowd, server, monkeypatch, [Instead(OVERLOADED)], 5)
        assert not any(answer.replayed for answer in answers)

    async def test_it_is_sent_four_times_at_most(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = await self._together(crowd, server, monkeypatch, [Instead(OVERLOADED)] * 99, 2)
        assert {type(answer) for answer in answers} == {meterhold.Unavailable}
        assert {(each.reason, each.applied) for each in answers} == {("OVERLOADED", "NO")}
        assert 2 < server.operations - ALONE_MAX <= 2 * 4

    async def test_a_server_in_trouble_is_left_alone(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = await self._together(crowd, server, monkeypatch, [Instead(OVERLOADED)] * 99, 60)
        assert {type(answer) for answer in answers} == {meterhold.Unavailable}
        assert 60 < server.operations - ALONE_MAX < 60 + 20

    async def test_what_may_have_been_done_is_replayed(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = await self._together(crowd, server, monkeypatch, [Instead(UNKNOWN)], 5)
        assert not any(answer.replayed for answer in answers)

    async def _together(
        self,
        crowd: Crowd,
        server: MemoryServer,
        monkeypatch: pytest.MonkeyPatch,
        faults: list[Instead],
        number: int,
    ) -> list[Any]:
        """So many debits in one Batch, which the first fault befalls."""
        patient(monkeypatch)
        first = await fill(crowd, server)
        rest = crowd.debits(number)
        await until(lambda: waiting_count(crowd) == len(rest))
        server.faults.extend(faults)
        server.gate.set()
        await asyncio.gather(*first)
        answers = await asyncio.gather(*rest, return_exceptions=True)
        assert "Batch" in server.methods
        return answers

    async def test_an_older_server_gets_calls_one_by_one(
        self, crowd: Crowd, server: MemoryServer
    ) -> None:
        server.instead_of_batch = Abort(Code.UNIMPLEMENTED, "Method not found!")
        await asyncio.gather(*crowd.debits(30))
        refused = server.batches_refused
        assert refused
        for round_ in range(3):
            await asyncio.gather(
                *(crowd.start("debit", "alice", 1, request_id=f"{round_}-{n}") for n in range(30))
            )
        assert server.batches_refused == refused
        assert server.methods == ["DebitOnce"] * 30 + ["Debit"] * 90

    async def test_a_batch_that_somebody_forbids_is_sent_as_calls(
        self, crowd: Crowd, server: MemoryServer
    ) -> None:
        server.instead_of_batch = Abort(Code.PERMISSION_DENIED, "no such method for you")
        answers = await asyncio.gather(*crowd.debits(30))
        assert {answer.status for answer in answers} == {meterhold.DebitStatus.DEBITED}
        assert server.batches_refused

    async def test_what_the_transport_sends_again_says_so(
        self, crowd: Crowd, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        first = await fill(crowd, server)
        rest = crowd.debits(5)
        await until(lambda: waiting_count(crowd) == len(rest))
        server.faults.append(Abort(Code.UNAVAILABLE))
        server.gate.set()
        await asyncio.gather(*first, *rest)
        attempts = [each.metadata.get("grpc-previous-rpc-attempts") for each in server.messages]
        assert attempts[-2:] == [None, "1"]


class TestCallersThatGo:
    async def test_a_cancelled_one_harms_no_other(
        self, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        async with AsyncClient(server.target) as client:
            crowd = Crowd(client, ThreadPoolExecutor(1))
            first = await fill(crowd, server)
            unsent = crowd.debits(10)
            await until(lambda: waiting_count(crowd) == 10)
            unsent[3].cancel()
            server.gate.set()
            answers = await asyncio.gather(*first, *unsent, return_exceptions=True)
        cancelled = [isinstance(each, asyncio.CancelledError) for each in answers]
        assert cancelled == [False] * (len(first) + 3) + [True] + [False] * 6
        assert server.operations == len(first) + 9

    async def test_one_that_is_cancelled_when_it_is_sent_is_carried_out(
        self, server: MemoryServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patient(monkeypatch)
        async with AsyncClient(server.target) as client:
            crowd = Crowd(client, ThreadPoolExecutor(1))
            first = await fill(crowd, server)
            first[0].cancel()
            sent = crowd.debits(10)
            await until(lambda: server.methods[-1] == "Batch")
            sent[3].cancel()
            server.gate.set()
            answers = await asyncio.gather(*sent, return_exceptions=True)
            assert sum(isinstance(each, asyncio.CancelledError) for each in answers) == 1
            assert (await client.debit_once("alice", 1, idempotency_key="key-3")).replayed
            await asyncio.gather(*first, return_exceptions=True)

    async def test_an_interrupt_in_one_thread_harms_no_other(
        self, server: MemoryServer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Client(server.target) as client:
            crowd = Crowd(client, pool)
            first = await fill(crowd, server)
            interrupted: list[BaseException] = []
            thread = threading.Thread(target=_interrupted, args=(client, interrupted))
            thread.start()
            rest = crowd.debits(10)
            await until(lambda: server.operations == len(first) + 11)
            assert thread.ident is not None
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(KeyboardInterrupt)
            )
            await until(lambda: interrupted)
            server.gate.set()
            answers = await asyncio.gather(*first, *rest)
            thread.join()
        assert {answer.replayed for answer in answers} == {False}
        assert isinstance(interrupted[0], KeyboardInterrupt)

    @pytest.mark.parametrize("sent", [False, True])
    async def test_closing_ends_all_that_is_under_way(
        self,
        kind: str,
        crowd: Crowd,
        server: MemoryServer,
        monkeypatch: pytest.MonkeyPatch,
        sent: bool,
    ) -> None:
        if not sent:
            patient(monkeypatch)
        first = await fill(crowd, server)
        rest = crowd.debits(10)
        if sent:
            await until(lambda: server.operations == len(first) + len(rest))
        else:
            await until(lambda: waiting_count(crowd) == len(rest))
        if isinstance(crowd.client, Client):
            await asyncio.to_thread(crowd.client.close)
        else:
            await crowd.client.aclose()
        answers = await asyncio.gather(*first, *rest, return_exceptions=True)
        server.gate.set()
        if kind == "async":
            assert {type(each) for each in answers} == {asyncio.CancelledError}
        elif sent:
            assert {type(each) for each in answers} == {meterhold.OutcomeUnknown}
        else:
            ended = {type(each) for each in answers[len(first) :]}
            assert ended == {meterhold.Unavailable}
            assert all("closed" in str(each) for each in answers[len(first) :])


def _interrupted(client: Client, raised: list[BaseException]) -> None:
    try:
        client.debit_once("alice", 1, idempotency_key="interrupted")
    except KeyboardInterrupt as error:
        raised.append(error)


async def test_a_process_that_was_forked_begins_anew(
    server: MemoryServer, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its parent had under way never ends there."""
    patient(monkeypatch)
    with Client(server.target) as client:
        crowd = Crowd(client, pool)
        first = await fill(crowd, server)
        server.gate.set()
        client._calls._coalescer._under_way["of the parent"] = 1000  # type: ignore[union-attr]
        await asyncio.gather(*first)
        forget_all()
        assert await crowd.call("debit", "alice", 1, timeout_seconds=5)


async def test_a_closed_channel_of_the_caller_is_an_error_for_each(
    server: MemoryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_coalescing, "ALONE_MAX", 0)
    channel = grpc.aio.insecure_channel(server.target)
    client = AsyncClient(channel=channel)
    await client.debit("alice", 1)
    await channel.close()
    answers = await asyncio.gather(
        *(client.debit("alice", 1) for _ in range(20)), return_exceptions=True
    )
    assert {type(each) for each in answers} == {grpc.aio.UsageError}


def test_a_message_has_as_long_as_the_call_that_has_most() -> None:
    attempts = [Attempts("key", 20.0, seconds) for seconds in (0.2, 3.0, 1.0)]
    for each in attempts:
        each.begin()
    future: Any = None
    waiting = [Waiting(pb.DebitRequest(), each, future) for each in attempts]
    assert _coalescing.begin(waiting) == pytest.approx(3.0, abs=0.1)
    refusal = meterhold.InsufficientCredits("too little", applied="NO")
    attempts[0].pause_seconds(meterhold.OutcomeUnknown("late", code="DEADLINE_EXCEEDED"))
    attempts[0].begin()
    # Its own attempts last 0.2 s, and so does what is lost; the message it went with lasts 3 s.
    assert attempts[0].pause_seconds(refusal) == pytest.approx(3.2, abs=0.1)


def test_a_refusal_is_confirmed_when_all_that_went_with_an_attempt_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server may begin a call as late as any other of its message."""
    seconds = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    attempts = Attempts("key", 20.0, 3.0)
    attempts.begin()
    attempts.sent_until(seconds + 5.0)
    seconds += 3.0
    attempts.pause_seconds(meterhold.OutcomeUnknown("late", code="DEADLINE_EXCEEDED"))
    attempts.begin()
    refusal = meterhold.InsufficientCredits("too little", applied="NO")
    # 2 s until the message is over, and 3 that it may have been on its way.
    assert attempts.pause_seconds(refusal) == pytest.approx(5.0)
