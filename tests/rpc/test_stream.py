"""Stream on a real server: Batches one after another, each answered when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio
import pytest
import structlog.testing
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from meterhold.v1 import metering_service_pb2 as pb
from meterhold_server.batching import failures
from meterhold_server.batching.failures import Failure
from meterhold_server.core.model import AccountKey, Rules
from meterhold_server.core.operations import Operation
from meterhold_server.rpc import batch as batch_servicer
from meterhold_server.rpc.access import OpenAccess
from meterhold_server.rpc.handlers import BATCH_BYTES_MAX, LogCalls
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.server import RpcServer
from meterhold_server.rpc.service import Service
from meterhold_server.rpc.stream import BATCHES_UNDER_WAY_MAX
from meterhold_server.rpc.units import OPERATIONS_MAX
from meterhold_server.storage.verify import verify
from rpc.answers import METHODS, Told, call, refusal, told
from rpc.batches import alone, of_call, refused
from support.engines import Observer
from support.service import service
from support.waiting import until

ALICE: Final = AccountKey("default", "alice", "credits")


def grant(key: str, micros: int, account: str = "alice") -> pb.GrantOnceRequest:
    return pb.GrantOnceRequest(account=account, idempotency_key=key, amount_micros=micros)


def debit(key: str, micros: int = 1, account: str = "alice") -> pb.DebitRequest:
    return pb.DebitRequest(account=account, request_id=key, amount_micros=micros)


def batch(*requests: Message) -> pb.BatchRequest:
    return pb.BatchRequest(operations=map(alone, requests))


def asked(id_: int, *requests: Message, seconds: float = 0.0) -> pb.StreamRequest:
    timeout = Duration()
    timeout.FromTimedelta(timedelta(seconds=seconds))
    return pb.StreamRequest(id=id_, batch=batch(*requests), timeout=timeout if seconds else None)


class Sender:
    """One stream, beneath the client library: bytes in, answers out."""

    def __init__(self, channel: grpc.aio.Channel, **options: Any) -> None:
        open_: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/meterhold.v1.MeteringService/Stream"
        )
        self.call = open_(**options)
        self.told: Told | None = None

    async def send(self, *requests: pb.StreamRequest | bytes) -> None:
        for request in requests:
            data = request if isinstance(request, bytes) else request.SerializeToString()
            await self.call.write(data)

    async def read(self) -> pb.StreamResponse:
        data = await self.call.read()
        assert isinstance(data, bytes), "the stream has ended"
        return pb.StreamResponse.FromString(data)

    async def rest(self) -> dict[int, pb.StreamResponse]:
        """All answers until the end, by their ids. `told` is what it ended with, if not well."""
        answers = {}
        try:
            while isinstance(data := await self.call.read(), bytes):
                answer = pb.StreamResponse.FromString(data)
                assert answer.id not in answers
                answers[answer.id] = answer
        except grpc.aio.AioRpcError as error:
            self.told = told(error)
        return answers

    async def end(self) -> dict[int, pb.StreamResponse]:
        """Send no more. Answers what was still to be answered; the stream ends well."""
        await self.call.done_writing()
        answers = await self.rest()
        assert self.told is None
        return answers


def reasons(answer: pb.StreamResponse) -> list[str]:
    """The reason of each operation's error; empty for a response."""
    assert answer.HasField("batch"), answer
    return [
        refused(each.error).reason if each.HasField("error") else ""
        for each in answer.batch.results
    ]


@pytest.fixture
async def channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", 32 * 1024 * 1024)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        yield channel


class TestBatchesOfAStream:
    async def test_each_is_answered_by_its_id(self, channel: grpc.aio.Channel) -> None:
        caller = Sender(channel)
        await caller.send(asked(7, grant("gift", 10), debit("a", 3), debit("b", 30)))
        first = await caller.read()
        assert (first.id, reasons(first)) == (7, ["", "", "INSUFFICIENT_CREDITS"])
        assert first.batch.results[1].debit.balance.available_micros == 7
        await caller.send(asked(2, debit("c", 7)), asked(2**63 - 1, grant("more", 1, "bob")))
        answers = await caller.end()
        assert {number: reasons(answer) for number, answer in answers.items()} == {
            2: [""], 2**63 - 1: [""],
        }  # fmt: skip

    async def test_they_are_begun_in_their_order(
        self, channel: grpc.aio.Channel, database_url: str
    ) -> None:
        caller = Sender(channel)
        await caller.send(asked(1, grant("gift", 1000)))
        await caller.send(*(asked(n, debit(f"{n}-a"), debit(f"{n}-b")) for n in range(2, 101)))
        answers = await caller.end()
        seqs = [
            result.debit.entry.seq for n in range(2, 101) for result in answers[n].batch.results
        ]
        assert seqs == list(range(2, 200))
        assert verify(database_url).clean

    async def test_one_that_is_sent_again_is_replayed(self, channel: grpc.aio.Channel) -> None:
        first, second = Sender(channel), Sender(channel)
        request = asked(1, grant("gift", 10), debit("a"), debit("b", 50))
        await first.send(request)
        once = (await first.end())[1].batch.results
        await second.send(request)
        again = (await second.end())[1].batch.results
        assert [each.debit.replayed for each in (once[1], again[1])] == [False, True]
        assert again[1].debit.entry == once[1].debit.entry
        assert refused(again[2].error).reason == "INSUFFICIENT_CREDITS"

    async def test_an_empty_stream_ends_well(self, channel: grpc.aio.Channel) -> None:
        assert await Sender(channel).end() == {}


WRONG: Final[dict[str, tuple[pb.StreamRequest | bytes, str]]] = {
    "id_unset": (pb.StreamRequest(batch=batch(debit("a"))), "id"),
    "id_negative": (asked(-1, debit("a")), "id"),
    "timeout_negative": (asked(5, debit("a"), seconds=-1), "timeout"),
    "timeout_too_long": (asked(5, debit("a"), seconds=30.000001), "timeout"),
    "no_batch": (pb.StreamRequest(id=5), "operations"),
    "no_operations": (pb.StreamRequest(id=5, batch=pb.BatchRequest()), "operations"),
    "too_many": (asked(5, *[debit("a")] * (OPERATIONS_MAX + 1)), "operations"),
    "empty_operation": (
        pb.StreamRequest(id=5, batch=pb.BatchRequest(operations=[pb.BatchOperation()])),
        "operations[0]",
    ),
    "last_linked": (
        pb.StreamRequest(
            id=5,
            batch=pb.BatchRequest(operations=[pb.BatchOperation(debit=debit("a"), linked=True)]),
        ),
        "operations[0]",
    ),
    "no_message": (b"\xff\xff", "request"),
    "no_utf_8": (asked(5, debit("~mark~")).SerializeToString().replace(b"~", b"\xff"), "request"),
    "too_large": (b"\0" * (BATCH_BYTES_MAX + 1), "request"),
}


class TestOneThatIsRefused:
    @pytest.mark.parametrize("name", WRONG)
    async def test_harms_no_other(self, channel: grpc.aio.Channel, name: str) -> None:
        request, field = WRONG[name]
        caller = Sender(channel)
        await caller.send(asked(1, grant("gift", 10)), request, asked(9, debit("z")))
        answers = await caller.end()
        number = 0 if isinstance(request, bytes) else request.id
        assert set(answers) == {1, 9, number}
        assert reasons(answers[9]) == [""]
        error = refused(answers[number].error)
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
        assert error.metadata["applied"] == "NO"
        assert {field for field, _ in error.violations} == {field}

    @pytest.mark.parametrize("name", ["no_operations", "too_many", "empty_operation"])
    async def test_is_told_what_the_call_is_told(
        self, channel: grpc.aio.Channel, name: str
    ) -> None:
        request, _ = WRONG[name]
        assert isinstance(request, pb.StreamRequest)
        caller = Sender(channel)
        await caller.send(request)
        answer = (await caller.end())[5]
        alone_ = await refusal(channel, METHODS["Batch"], request.batch)
        assert refused(answer.error) == of_call(alone_)

    async def test_by_a_bug_is_told_so_and_logged(self) -> None:
        def fail() -> list[Any]:
            raise LookupError("the password is swordfish")

        with structlog.testing.capture_logs() as logs:
            async with gated(answer=fail) as (channel, engine):
                engine.gate.set()
                caller = Sender(channel)
                await caller.send(asked(1, debit("a")))
                error = refused((await caller.end())[1].error)
        assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")
        assert "swordfish" not in repr(error)
        (logged,) = [event for event in logs if event["event"] == "call_failed"]
        assert logged["error_id"] == error.metadata["errorId"]

    async def test_a_full_server_refuses_each_operation(self) -> None:
        async with gated(answer=lambda: [failures.overloaded(5, 1)]) as (channel, engine):
            engine.gate.set()
            caller = Sender(channel)
            await caller.send(asked(1, debit("a")))
            assert reasons((await caller.end())[1]) == ["OVERLOADED"]


class GatedEngine:
    """Carries nothing out, and answers nothing before its gate is open."""

    def __init__(self, answer: Callable[[], list[Any]]) -> None:
        self.gate = asyncio.Event()
        self.begun = 0
        self.dropped = 0
        self._answer = answer

    async def submit_many(
        self, operations: Sequence[Operation], deadline: float, order: int | None
    ) -> list[Failure]:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        return self._answer()


@asynccontextmanager
async def gated(
    *,
    answer: Callable[[], list[Any]] = lambda: [failures.database_unavailable()],
    log_calls: LogCalls = "none",
) -> AsyncIterator[tuple[grpc.aio.Channel, GatedEngine]]:
    async with gated_server(answer, log_calls) as (channel, engine, _):
        yield channel, engine


@asynccontextmanager
async def gated_server(
    answer: Callable[[], list[Any]], log_calls: LogCalls = "none"
) -> AsyncIterator[tuple[grpc.aio.Channel, GatedEngine, Callable[[], asyncio.Task[None]]]]:
    """A channel to a real server in front of a GatedEngine, and what stops the server."""
    gated_engine = GatedEngine(answer)
    engine: Any = gated_engine
    no_reader: Any = None
    service = Service(engine, no_reader, Caller("default", Rules()), *[no_reader] * 4)
    server = RpcServer(OpenAccess(service), reflect=False, log_calls=log_calls, share_port=False)
    port = server.listen("127.0.0.1:0", None)
    await server.start()
    stopped: list[asyncio.Task[None]] = []

    def stop() -> asyncio.Task[None]:
        stopped.append(asyncio.create_task(server.stop(notice_seconds=0, grace_seconds=10)))
        return stopped[0]

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel, gated_engine, stop
    await (stopped[0] if stopped else stop())


def failed() -> list[Any]:
    return [failures.database_unavailable()]


class TestManyUnderWay:
    async def test_the_server_reads_no_further(self) -> None:
        async with gated() as (channel, engine):
            caller = Sender(channel)
            more = 3
            await caller.send(
                *(asked(n, debit("a")) for n in range(1, BATCHES_UNDER_WAY_MAX + more + 1))
            )
            await until(lambda: engine.begun >= BATCHES_UNDER_WAY_MAX)
            # What another call is answered meanwhile, a further batch would have been begun by.
            await call(channel, METHODS["Settle"], b"")
            assert engine.begun == BATCHES_UNDER_WAY_MAX
            engine.gate.set()
            assert len(await caller.end()) == BATCHES_UNDER_WAY_MAX + more
            assert engine.begun == BATCHES_UNDER_WAY_MAX + more

    async def test_what_is_refused_as_a_whole_does_not_wait_for_those_before(
        self, channel: grpc.aio.Channel, database_url: str
    ) -> None:
        caller = Sender(channel)
        await caller.send(asked(1, grant("gift", 10)))
        await caller.read()
        observer = Observer(database_url)
        observer.lock(ALICE)
        await caller.send(asked(2, debit("a")))
        await until(observer.blocked)
        await caller.send(asked(3))
        assert (await caller.read()).id == 3
        observer.let_go()
        observer.close()
        answers = await caller.end()
        assert reasons(answers[2]) == [""]

    async def test_each_may_count_on_those_before(self, database_url: str) -> None:
        """A gift is spent by the next Batch, which does not wait for the answer."""
        async with (
            service(database_url, lanes=8, sweep=False) as many_lanes,
            grpc.aio.insecure_channel(many_lanes) as channel,
        ):
            caller = Sender(channel)
            for number in range(0, 40, 2):
                await caller.send(asked(number + 1, grant(f"gift-{number}", 10)))
                await caller.send(asked(number + 2, debit(f"all-{number}", 10)))
            answers = await caller.end()
            assert [reasons(answers[number + 1]) for number in range(40)] == [[""]] * 40


class TestAServerThatStops:
    async def test_answers_what_it_has_read_and_says_so(self) -> None:
        async with gated_server(failed) as (channel, engine, stop):
            caller = Sender(channel)
            await caller.send(*(asked(n, debit("a")) for n in (1, 2, 3)))
            await until(lambda: engine.begun == 3)
            stopping = stop()
            engine.gate.set()
            answers = await caller.rest()
            assert list(map(reasons, answers.values())) == [["DATABASE_UNAVAILABLE"]] * 3
            assert caller.told is not None
            assert caller.told.code == "UNAVAILABLE"
            assert (caller.told.reason, caller.told.applied) == ("SHUTTING_DOWN", "NO")
            await stopping

    async def test_ends_an_idle_stream_at_once(self) -> None:
        async with gated_server(failed) as (channel, _, stop):
            caller = Sender(channel)
            await caller.call.initial_metadata()
            stopping = stop()
            assert await caller.rest() == {}
            assert caller.told is not None
            assert caller.told.reason == "SHUTTING_DOWN"
            await stopping

    async def test_reads_no_further(self) -> None:
        async with gated_server(failed) as (channel, engine, stop):
            caller = Sender(channel)
            full = BATCHES_UNDER_WAY_MAX
            await caller.send(*(asked(n, debit("a")) for n in range(1, full + 6)))
            await until(lambda: engine.begun == full)
            stopping = stop()
            await asyncio.sleep(0)
            engine.gate.set()
            assert set(await caller.rest()) == set(range(1, full + 1))
            assert engine.begun == full
            await stopping


class TestACallerThatGoes:
    async def test_drops_its_waiters(self) -> None:
        async with gated() as (channel, engine):
            caller = Sender(channel)
            await caller.send(asked(1, debit("a")), asked(2, debit("a")))
            await until(lambda: engine.begun == 2)
            caller.call.cancel()
            await until(lambda: engine.dropped == 2)

    async def test_does_not_undo_what_is_in_a_batch(self, address: str, database_url: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            await call(channel, METHODS["GrantOnce"], grant("gift", 10))
            observer = Observer(database_url)
            observer.lock(ALICE)
            caller = Sender(channel)
            await caller.send(asked(1, debit("begun")))
            await until(observer.blocked)
            await caller.send(asked(2, debit("waiting")))
            caller.call.cancel()
            await call(channel, METHODS["Settle"], b"")
            observer.let_go()
            await until(lambda: len(observer.entries(ALICE)) == 2)
            answer = await call(channel, METHODS["Debit"], debit("next"))
            assert isinstance(answer, bytes)
            assert pb.DebitResponse.FromString(answer).entry.seq == 3
            observer.close()

    async def test_whose_deadline_passes(self) -> None:
        async with gated() as (channel, engine):
            caller = Sender(channel, timeout=0.2)
            await caller.send(asked(1, debit("a")))
            assert await caller.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: engine.dropped == 1)


class TestTimeouts:
    async def test_a_batch_has_its_own(self) -> None:
        async with gated() as (channel, engine):
            caller = Sender(channel)
            await caller.send(asked(1, debit("a"), seconds=0.05), asked(2, debit("a")))
            first = await caller.read()
            assert (first.id, reasons(first)) == (1, ["OUTCOME_UNKNOWN"])
            await until(lambda: engine.dropped == 1)
            engine.gate.set()
            assert reasons((await caller.end())[2]) == ["DATABASE_UNAVAILABLE"]

    async def test_without_one_it_is_that_of_any_call(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batch_servicer, "CALL_SECONDS_MAX", 0.05)
        async with gated() as (channel, _):
            caller = Sender(channel)
            await caller.send(asked(1, debit("a")))
            assert reasons((await caller.end())[1]) == ["OUTCOME_UNKNOWN"]


async def test_a_debit_without_a_key_is_not_taken_on_again(
    channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await call(channel, METHODS["GrantOnce"], grant("gift", 10))
    monkeypatch.setattr(batch_servicer, "was_sent_before", lambda context: True)
    caller = Sender(channel)
    await caller.send(asked(1, debit(""), debit("key"), debit("other", 50)))
    answer = (await caller.end())[1]
    assert reasons(answer) == ["OUTCOME_UNKNOWN", "", "INSUFFICIENT_CREDITS"]
    applied = [refused(answer.batch.results[n].error).metadata["applied"] for n in (0, 2)]
    assert applied == ["UNKNOWN", "UNKNOWN"]


async def test_a_stream_is_logged_when_it_ends() -> None:
    with structlog.testing.capture_logs() as logs:
        async with gated(log_calls="all") as (channel, engine):
            engine.gate.set()
            caller = Sender(channel, metadata=(("x-request-id", "mine"),))
            await caller.send(asked(1, debit("a")), asked(2, debit("a")))
            await caller.end()
    (logged,) = [event for event in logs if event["event"] == "call"]
    assert (logged["method"], logged["request_id"], logged["code"]) == ("Stream", "mine", "OK")
