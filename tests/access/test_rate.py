"""How often a key may come, as its callers meet it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

import meterhold
from meterhold.v1 import metering_service_pb2 as metering
from meterhold_server.core.credentials import Scope
from rpc.answers import METHODS, Told, call, refusal
from support.keys import bearer, make_key
from support.service import service

BALANCE = metering.BalanceRequest(account="alice")


@pytest.fixture
async def channel(database_url: str) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        service(database_url, auth="keys") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield channel


async def test_more_than_its_rate_is_refused_with_the_time_to_wait(
    channel: grpc.aio.Channel, database_url: str
) -> None:
    key = make_key(database_url, operations_per_second_max=2)
    answers = [await call(channel, METHODS["Balance"], BALANCE, bearer(key)) for _ in range(2)]
    assert all(isinstance(answer, bytes) for answer in answers)
    told = await refusal(channel, METHODS["Balance"], BALANCE, bearer(key))
    assert (told.code, told.reason, told.applied) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "NO")
    assert told.retry_seconds is not None
    assert 0 < told.retry_seconds <= 0.5
    assert told.info.metadata["operationsPerSecondMax"] == "2"


async def test_its_quota_is_told_by_the_key_s_id(
    channel: grpc.aio.Channel, database_url: str
) -> None:
    key = make_key(database_url, operations_per_second_max=1)
    send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/meterhold.v1.MeteringService/Balance"
    )
    await send(BALANCE.SerializeToString(), metadata=bearer(key))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await send(BALANCE.SerializeToString(), metadata=bearer(key))
    trailing = dict(raised.value.trailing_metadata() or ())
    status = status_pb2.Status()
    data = trailing["grpc-status-details-bin"]
    status.ParseFromString(data if isinstance(data, bytes) else data.encode())
    [quota] = [
        error_details_pb2.QuotaFailure.FromString(detail.value)
        for detail in status.details
        if detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR)
    ]
    assert [each.subject for each in quota.violations] == [f"credential:{key.credential_id}"]


async def test_each_operation_of_a_batch_counts(
    channel: grpc.aio.Channel, database_url: str
) -> None:
    """A message passes whole, and what comes after it waits for what it took too much."""
    key = make_key(database_url, operations_per_second_max=10)
    release = metering.ReleaseRequest(account="alice", reservation_id="none")
    batch = metering.BatchRequest(operations=[metering.BatchOperation(release=release)] * 500)
    assert isinstance(await call(channel, METHODS["Batch"], batch, bearer(key)), bytes)
    told = await refusal(channel, METHODS["Balance"], BALANCE, bearer(key))
    assert told.reason == "RATE_LIMITED"
    assert told.retry_seconds is not None
    assert 40 < told.retry_seconds <= 49.1


async def test_each_key_has_a_rate_of_its_own(channel: grpc.aio.Channel, database_url: str) -> None:
    limited = make_key(database_url, operations_per_second_max=1)
    others = [make_key(database_url, operations_per_second_max=1), make_key(database_url)]
    await call(channel, METHODS["Balance"], BALANCE, bearer(limited))
    told = await call(channel, METHODS["Balance"], BALANCE, bearer(limited))
    assert isinstance(told, Told)
    for key in others:
        assert isinstance(await call(channel, METHODS["Balance"], BALANCE, bearer(key)), bytes)


async def test_a_call_that_is_not_allowed_takes_nothing_of_it(
    channel: grpc.aio.Channel, database_url: str
) -> None:
    key = make_key(database_url, "default", Scope.READ, operations_per_second_max=1)
    grant = metering.GrantOnceRequest(account="alice", idempotency_key="x", amount_micros=5)
    for _ in range(5):
        told = await refusal(channel, METHODS["GrantOnce"], grant, bearer(key))
        assert told.reason == "SCOPE_MISSING"
    assert isinstance(await call(channel, METHODS["Balance"], BALANCE, bearer(key)), bytes)


async def test_the_client_says_how_long_to_wait(database_url: str) -> None:
    key = make_key(database_url, operations_per_second_max=1)
    async with (
        service(database_url, auth="keys") as address,
        meterhold.AsyncClient(address, api_key=key.text) as client,
    ):
        await client.balance("alice")
        with pytest.raises(meterhold.RateLimited) as raised:
            await client.balance("alice")
    assert raised.value.operations_per_second_max == 1
    assert raised.value.retry_delay_seconds
    assert raised.value.applied == "NO"
