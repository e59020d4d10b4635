"""A Batch is answered as its calls are, in memory and by the real service."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import meterhold
from meterhold.testing import InMemory
from meterhold.testing._channel import AioChannel, Channel, Context
from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceStub
from meterhold_server.storage.verify import verify
from rpc.answers import METHODS, call, told
from rpc.batches import FIELDS, Refused, alone, of_call, refused
from support.service import service

from .calls import Caller
from .conftest import SetClock

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SKIPPED: Final = ("get", "list", "balance", "spend", "verify", "rebuild")
_ROUNDS: Final = 12
_CALLS_OF_A_ROUND: Final = 60


class Call(NamedTuple):
    """A call as it went over the wire, and what it was answered."""

    method: str
    request: Message
    answer: Message | Refused


class Recorder(InMemory):
    """A service in memory that remembers the calls of its clients."""

    def __init__(self) -> None:
        super().__init__(now=_START)
        self.calls: list[Call] = []

    def _answer(self, method: str, request: bytes, context: Context, /) -> bytes:
        name = method.rpartition("/")[2]
        described = METHODS[name]
        parsed = GetMessageClass(described.input_type).FromString(request)
        try:
            response = super()._answer(method, request, context)
        except grpc.aio.AioRpcError as error:
            self.calls.append(Call(name, parsed, of_call(told(error))))
            raise
        answer = GetMessageClass(described.output_type).FromString(response)
        self.calls.append(Call(name, parsed, answer))
        return response


class Twin(InMemory):
    """A service in memory that is called as it is over the wire."""

    def ask(self, method: str, request: Message) -> bytes:
        path = f"/{METHODS[method].containing_service.full_name}/{method}"
        return self._answer(path, request.SerializeToString(), Context(30, ()))


def runs(recorder: Recorder) -> Iterator[list[Call]]:
    """Calls that change something, those together that a Batch can carry at one time."""
    client = recorder.client()
    for number in range(_ROUNDS):
        caller = Caller(random.Random(random.getrandbits(64)), f"round-{number}", recorder.now)
        for _ in range(_CALLS_OF_A_ROUND):
            if pause := caller.pause():
                yield _taken(recorder)
                recorder.advance(pause)
            asked = caller.call()
            if asked.method.startswith(_SKIPPED):
                continue
            if configures := asked.method.startswith("configure"):
                yield _taken(recorder)
            with suppress(meterhold.MeterholdError):
                getattr(client, asked.method)(**asked.arguments)
            if configures:
                yield _taken(recorder)
        yield _taken(recorder)


def _taken(recorder: Recorder) -> list[Call]:
    calls, recorder.calls = recorder.calls, []
    return calls


def batch_of(calls: list[Call]) -> pb.BatchRequest | None:
    """The Batch of the same operations; None if there are none, or one is not for a Batch."""
    if not calls or any(each.request.DESCRIPTOR.full_name not in FIELDS for each in calls):
        return None
    return pb.BatchRequest(operations=[alone(each.request) for each in calls])


def results(answer: bytes) -> list[Message | Refused]:
    return [_result(each) for each in pb.BatchResponse.FromString(answer).results]


def _result(of: pb.BatchResult) -> Message | Refused:
    kind = of.WhichOneof("result")
    assert kind is not None
    response: Message = getattr(of, kind)
    return refused(of.error) if kind == "error" else response


def _shown(of: Message | Refused) -> str:
    return of.reason if isinstance(of, Refused) else of.DESCRIPTOR.name


def test_a_batch_is_answered_as_its_calls() -> None:
    recorder, twin = Recorder(), Twin(now=_START)
    seen: Counter[str] = Counter()
    for calls in runs(recorder):
        twin.advance(recorder.now - twin.now)
        if request := batch_of(calls):
            answered = results(twin.ask("Batch", request))
            assert answered == [each.answer for each in calls]
            seen.update(map(_shown, answered))
            continue
        for each in calls:
            if not isinstance(each.answer, Refused):
                twin.ask(each.method, each.request)
    twin.verify()
    assert len(seen) > 15, f"the calls have become monotonous: {seen}"


async def test_a_stream_is_answered_in_memory() -> None:
    grant = pb.GrantOnceRequest(account="alice", idempotency_key="gift", amount_micros=5)
    debit = pb.DebitRequest(account="alice", request_id="a", amount_micros=2)
    asked = [
        pb.StreamRequest(id=1, batch=pb.BatchRequest(operations=[alone(grant)])),
        pb.StreamRequest(id=2, batch=pb.BatchRequest()),
        pb.StreamRequest(id=3, batch=pb.BatchRequest(operations=[alone(debit), alone(debit)])),
    ]
    memory = InMemory()
    channel: Any = Channel(memory._answer)
    answers = list(MeteringServiceStub(channel).Stream(iter(asked)))
    assert [answer.id for answer in answers] == [1, 2, 3]
    assert refused(answers[1].error).reason == "INVALID_FIELD"
    assert [each.debit.replayed for each in answers[2].batch.results] == [False, True]

    async def again() -> AsyncIterator[pb.StreamRequest]:
        for request in asked[1:]:
            yield request

    aio_channel: Any = AioChannel(memory._answer)
    stub: Any = MeteringServiceStub(aio_channel)
    assert [answer.id async for answer in stub.Stream(again())] == [2, 3]
    memory.verify()


@pytest.mark.slow
async def test_a_batch_with_chains_is_answered_as_by_the_real_service(
    database_url: str, set_clock: SetClock
) -> None:
    """Both get the same messages at the same times, to the last field and the last word."""
    recorder, twin = Recorder(), Twin(now=_START)
    seen: Counter[str] = Counter()
    set_clock(_START)
    async with (
        service(database_url, sweep=False) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        for calls in runs(recorder):
            twin.advance(recorder.now - twin.now)
            set_clock(twin.now)
            if request := batch_of(calls):
                for operation in request.operations[:-1]:
                    operation.linked = random.random() < 0.15
                answer = await call(channel, METHODS["Batch"], request)
                assert isinstance(answer, bytes), answer
                assert results(answer) == results(twin.ask("Batch", request)), request
                seen.update(map(_shown, results(answer)))
                continue
            for each in calls:
                if not isinstance(each.answer, Refused):
                    twin.ask(each.method, each.request)
                    assert isinstance(
                        await call(channel, METHODS[each.method], each.request), bytes
                    )
    twin.verify()
    assert verify(database_url).clean
    assert len(seen) > 15, f"the calls have become monotonous: {seen}"
