"""Row 17: work at a fixed price, metered work, and units of the caller's own.

There is no price table in the server yet: the caller computes what a charge is, in integers, and
says with `usage` and `labels` what it was for.
"""

from __future__ import annotations

import pytest

import meterhold
from meterhold import InsufficientCredits, Label, SpendDimension, Usage

CREDIT = 1_000_000
"""Micros."""
IMAGE_MICROS = 50 * CREDIT
OUTPUT_MICROS_PER_1000_TOKENS = 15_001


def _metered_micros(output_tokens: int) -> int:
    """Rounded up to the micro."""
    return -(-output_tokens * OUTPUT_MICROS_PER_1000_TOKENS // 1000)


async def test_fixed_and_metered_work_on_one_balance(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 100 * CREDIT, idempotency_key="order")
    await client.debit("alice", IMAGE_MICROS, labels={"operation": "image"})
    await client.reserve("alice", _metered_micros(4096), reservation_id="chat")
    usage = Usage(model="large", output_tokens=333)
    done = await client.settle(
        "alice",
        _metered_micros(333),
        reservation_id="chat",
        usage=usage,
        labels={"operation": "chat"},
    )

    assert done.charged_micros == 4996, "4995.333 rounded up"
    assert done.balance.available_micros == 50 * CREDIT - 4996
    assert (await client.get_entry("alice", seq=done.entry_seq)).usage == usage
    report = await client.spend_report("alice", group_by=[Label("operation"), SpendDimension.MODEL])
    assert [(row.values, row.charged_micros) for row in report.rows] == [
        (("image", ""), IMAGE_MICROS),
        (("chat", "large"), 4996),
    ]


async def test_units_are_counted_apart_and_never_converted(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 5 * CREDIT, idempotency_key="order")
    await client.grant_once("alice", 90, idempotency_key="gpu", unit="gpu_seconds")
    await client.debit("alice", 80, unit="gpu_seconds")

    for unit, amount, available in (("gpu_seconds", 11, 10), ("images", 1, 0)):
        with pytest.raises(InsufficientCredits) as refused:
            await client.debit("alice", amount, unit=unit)
        assert refused.value.available_micros == available
    assert (await client.balance("alice")).available_micros == 5 * CREDIT
    units = [(a.unit, a.balance.available_micros) async for a in client.list_accounts("alice")]
    assert units == [("credits", 5 * CREDIT), ("gpu_seconds", 10)]
