"""Each message of a stream is let in as a call of its own would be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceStub
from meterhold_server.core.credentials import ApiKey, Scope
from support.keys import bearer, make_key, revoke
from support.service import service

GIFT = pb.BatchOperation(
    grant_once=pb.GrantOnceRequest(account="bob", idempotency_key="gift", amount_micros=9)
)
DEBIT = pb.BatchOperation(
    debit_once=pb.DebitOnceRequest(account="bob", idempotency_key="job", amount_micros=5)
)


@pytest.fixture
async def channel(database_url: str) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        service(database_url, auth="keys") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return MeteringServiceStub(channel)


class Asking:
    """A stream, and what it is answered."""

    def __init__(self, stub: Any, key: ApiKey | None) -> None:
        self._stream = stub.Stream(metadata=bearer(key) if key else ())
        self._id = 0

    async def ask(self, *operations: pb.BatchOperation) -> pb.StreamResponse:
        self._id += 1
        batch = pb.BatchRequest(operations=operations)
        await self._stream.write(pb.StreamRequest(id=self._id, batch=batch))
        response: pb.StreamResponse = await self._stream.read()
        return response


async def test_a_stranger_gets_no_stream(stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await Asking(stub, None).ask(GIFT)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_each_operation_needs_the_scope_of_its_call(stub: Any, database_url: str) -> None:
    granting = Asking(stub, make_key(database_url, "default", Scope.GRANT))
    answer = await granting.ask(GIFT, DEBIT)
    assert [result.WhichOneof("result") for result in answer.batch.results] == [
        "grant_once",
        "error",
    ]
    assert answer.batch.results[1].error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]


async def test_a_message_that_comes_too_soon_is_refused_and_the_next_is_not(
    stub: Any, database_url: str
) -> None:
    asking = Asking(stub, make_key(database_url, operations_per_second_max=2))
    assert len((await asking.ask(GIFT, DEBIT)).batch.results) == 2
    refused = await asking.ask(GIFT, DEBIT)
    assert refused.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    async with asyncio.timeout(10):
        while not (answer := await asking.ask(DEBIT)).HasField("batch"):
            pass
    assert answer.batch.results[0].debit_once.replayed


async def test_what_cannot_be_parsed_counts_as_a_message(
    channel: grpc.aio.Channel, database_url: str
) -> None:
    key = make_key(database_url, operations_per_second_max=1)
    send: Any = channel.stream_stream("/meterhold.v1.MeteringService/Stream")
    stream = send(metadata=bearer(key))
    codes = []
    for _ in range(2):
        await stream.write(b"\xff")
        response = pb.StreamResponse.FromString(await stream.read())
        codes.append((response.id, response.error.code))
    assert codes == [
        (0, grpc.StatusCode.INVALID_ARGUMENT.value[0]),
        (0, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]),
    ]


async def test_a_revoked_key_ends_its_streams(stub: Any, database_url: str) -> None:
    key = make_key(database_url)
    asking = Asking(stub, key)
    assert (await asking.ask(GIFT)).HasField("batch")
    revoke(database_url, key.credential_id)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asyncio.wait_for(_go_on(asking), 10)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def _go_on(asking: Asking) -> None:
    while True:
        await asking.ask(DEBIT)
