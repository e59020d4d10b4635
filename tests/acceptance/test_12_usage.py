"""Row 12: usage that has happened is recorded once and charged past the balance; then runs stop."""

from __future__ import annotations

import pytest

import meterhold
from meterhold import Label, Overage, SpendDimension, Usage

USAGE = Usage(
    provider="anthropic",
    model="large",
    input_tokens=1200,
    output_tokens=300,
    cache_read_tokens=4000,
    cache_write_tokens=50,
    provider_cost_micros=90,
    stop_reason="end_turn",
)
LABELS = {"run": "run-1", "message": "m-1", "workspace": "w-1", "session": "s-1"}


async def _record(
    client: meterhold.AsyncClient, usage_id: str, billed_micros: int
) -> meterhold.DebitResult:
    return await client.debit_once(
        "alice",
        billed_micros,
        idempotency_key=usage_id,
        overage=Overage.OVERDRAFT,
        labels=LABELS,
        usage=USAGE,
        metadata={"prompt": {"version": 3}},
    )


async def test_a_row_says_who_did_what_for_how_much(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    await _record(client, "usage-1", 120)
    row = await client.get_entry("alice", debit_key="usage-1")
    assert (row.amount_micros, row.usage, row.labels) == (-120, USAGE, LABELS)
    assert row.metadata == {"prompt": {"version": 3}}
    assert row.usage is not None
    assert row.usage.provider_cost_micros == 90, "what it cost, beside what is billed"


async def test_a_row_is_inserted_once(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    assert [(await _record(client, "usage-1", 120)).replayed for _ in range(2)] == [False, True]
    with pytest.raises(meterhold.IdempotencyMismatch):
        await _record(client, "usage-1", 121)
    assert (await client.balance("alice")).spent_micros == 120


async def test_past_the_balance_it_is_charged_and_the_next_run_refused(
    client: meterhold.AsyncClient,
) -> None:
    await client.grant_once("alice", 100, idempotency_key="start")
    done = await _record(client, "usage-1", 130)
    assert (done.balance.available_micros, done.balance.debt_micros) == (-30, 30)
    assert (await _record(client, "usage-2", 20)).balance.debt_micros == 50

    with pytest.raises(meterhold.InsufficientCredits) as refused:
        await client.reserve("alice", 1, reservation_id="run-2")
    assert (refused.value.available_micros, refused.value.reservable_micros) == (-50, 0)
    await client.grant_once("alice", 60, idempotency_key="top-up")
    assert (await client.reserve("alice", 10, reservation_id="run-2")).created


async def test_a_run_is_summed_by_model_and_message(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 500, idempotency_key="start")
    await _record(client, "usage-1", 120)
    await _record(client, "usage-2", 30)
    report = await client.spend_report(
        "alice",
        labels={"run": "run-1"},
        group_by=[SpendDimension.PROVIDER, SpendDimension.MODEL, Label("message")],
    )
    [row] = report.rows
    assert (row.values, row.charged_micros) == (("anthropic", "large", "m-1"), 150)
