"""A Batch whose answer is lost is sent again as it was, until each operation has an answer."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from typing import Final

import grpc
import grpc.aio
import pytest

import meterhold
from meterhold.v1 import metering_service_pb2 as pb
from meterhold_server.storage.verify import verify
from rpc.answers import METHODS, Told, call
from rpc.batches import alone, refused
from support.call_proxy import CallFault, CallProxy
from support.service import service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))
BATCHES: Final = 60
ATTEMPT_SECONDS: Final = 0.5
GRANTED: Final = 10**9
CHANCES: Final = dict.fromkeys(CallFault, 0.08)


def batch(number: int) -> pb.BatchRequest:
    """Ten keyed debits of 1 each, and a chain that moves 5, one in four of which is refused."""
    debits = [
        alone(
            pb.DebitOnceRequest(
                account="alice", idempotency_key=f"{number}-{step}", amount_micros=1
            )
        )
        for step in range(10)
    ]
    key = f"{number}-move"
    taken = pb.DebitOnceRequest(account="alice", idempotency_key=key, amount_micros=5)
    given = pb.GrantOnceRequest(account="bob", idempotency_key=key, amount_micros=5)
    chain = [alone(taken), alone(given)]
    if number % 4 == 0:
        never = pb.DebitRequest(account="nobody", amount_micros=1, request_id="never")
        chain.append(alone(never))
    for operation in chain[:-1]:
        operation.linked = True
    return pb.BatchRequest(operations=[*debits[:5], *chain, *debits[5:]])


async def test_each_operation_is_done_once_and_each_chain_whole(database_url: str) -> None:
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again
    async with (
        service(database_url) as address,
        meterhold.AsyncClient(address) as client,
        CallProxy(address, seed=SEED, chances=CHANCES) as proxy,
        grpc.aio.insecure_channel(proxy.address, options=[("grpc.enable_retries", 0)]) as channel,
    ):
        await client.grant_once("alice", GRANTED, idempotency_key="gift")
        sent = [batch(number) for number in range(BATCHES)]
        answered = await asyncio.gather(*(_until_answered(channel, each) for each in sent))
        await proxy.calm()
        assert sum(proxy.counts.values()) > BATCHES // 4, "too little went wrong"
        for number, results in enumerate(answered):
            chain = results[5:8] if number % 4 == 0 else results[5:7]
            refusals = [_reason(result) for result in chain]
            if number % 4 == 0:
                assert refusals == ["CHAIN_REFUSED", "CHAIN_REFUSED", "INSUFFICIENT_CREDITS"]
            else:
                assert refusals == ["", ""]
            others = [*results[:5], *results[5 + len(chain) :]]
            assert [_reason(result) for result in others] == [""] * 10
        moved = 5 * sum(number % 4 != 0 for number in range(BATCHES))
        assert (await client.balance("alice")).available_micros == GRANTED - 10 * BATCHES - moved
        assert (await client.balance("bob")).available_micros == moved
    assert verify(database_url).clean


async def _until_answered(
    channel: grpc.aio.Channel, request: pb.BatchRequest
) -> Sequence[pb.BatchResult]:
    """Send the very same again, as long as nobody can tell what became of it."""
    while True:
        answer = await call(channel, METHODS["Batch"], request, timeout=ATTEMPT_SECONDS)
        if isinstance(answer, Told):
            continue
        results = pb.BatchResponse.FromString(answer).results
        if not any(_is_passing(result) for result in results):
            return results


def _is_passing(result: pb.BatchResult) -> bool:
    """Whether an operation was not done for now, or may have been."""
    return _reason(result) in ("OUTCOME_UNKNOWN", "OVERLOADED", "DEADLINE_PASSED")


def _reason(result: pb.BatchResult) -> str:
    return refused(result.error).reason if result.HasField("error") else ""
