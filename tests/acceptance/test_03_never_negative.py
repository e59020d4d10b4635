"""Row 3: a debit passes only if it is covered, and no race takes an account below zero."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import meterhold
from meterhold import InsufficientCredits
from support.service import service

THREADS = 20


def _debit_at_once(addresses: list[str]) -> list[meterhold.DebitResult | InsufficientCredits]:
    """What each of the threads got: all debit 7 at the same time, each by a client of its own."""
    start = threading.Barrier(THREADS)

    def debit(number: int) -> meterhold.DebitResult | InsufficientCredits:
        with meterhold.Client(addresses[number % len(addresses)]) as client:
            start.wait()
            try:
                return client.debit("alice", 7)
            except InsufficientCredits as refused:
                return refused

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(debit, range(THREADS)))


async def test_of_debits_at_once_exactly_those_that_fit_pass(
    client: meterhold.AsyncClient, address: str, database_url: str
) -> None:
    await client.grant_once("alice", 100, idempotency_key="start")
    async with service(database_url) as other:
        answers = await asyncio.to_thread(_debit_at_once, [address, other])

    passed = [answer for answer in answers if isinstance(answer, meterhold.DebitResult)]
    refused = [answer for answer in answers if isinstance(answer, InsufficientCredits)]
    assert (len(passed), len(refused)) == (100 // 7, THREADS - 100 // 7)
    assert min(done.balance.available_micros for done in passed) == 100 % 7
    assert {refusal.available_micros for refusal in refused} == {100 % 7}
    assert (await client.balance("alice")).available_micros == 100 % 7


async def test_exactly_what_is_left_passes(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 100, idempotency_key="start")
    with pytest.raises(InsufficientCredits):
        await client.debit("alice", 101)
    assert (await client.debit("alice", 100)).balance.available_micros == 0


@pytest.mark.parametrize("amount", [0, -1, -(10**15)])
async def test_a_debit_of_nothing_or_less_mints_nothing(
    client: meterhold.AsyncClient, amount: int
) -> None:
    await client.grant_once("alice", 100, idempotency_key="start")
    with pytest.raises(meterhold.InvalidRequest):
        await client.debit("alice", amount)
    balance = await client.balance("alice")
    assert (balance.available_micros, balance.ledger_seq) == (100, 1)
