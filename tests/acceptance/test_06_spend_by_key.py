"""Row 6: charges are attributed to an API key, and what each key has spent can be asked for.

A cap that is checked and held with the account is not there yet: today the caller checks the report
before the work, which is right as long as the work of a key is not run at once.
"""

from __future__ import annotations

import pytest

import meterhold
from meterhold import Label


async def _spent(client: meterhold.AsyncClient, key: str) -> int:
    report = await client.spend_report("alice", labels={"key": key})
    return report.total.charged_micros - report.total.refunded_micros


async def test_every_kind_of_charge_is_attributed(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 1000, idempotency_key="start")
    laptop, phone = {"key": "laptop"}, {"key": "phone"}
    await client.debit("alice", 10, labels=laptop)
    await client.debit_once("alice", 20, idempotency_key="call", labels=phone)
    await client.reserve("alice", 100, reservation_id="job", labels=laptop)
    await client.settle("alice", 30, reservation_id="job", labels=laptop, keep_open=True)
    await client.settle("alice", 40, reservation_id="job", labels=laptop)
    await client.debit("alice", 5)

    report = await client.spend_report("alice", group_by=[Label("key")])
    assert [(row.values, row.charged_micros, row.charge_count) for row in report.rows] == [
        (("laptop",), 80, 3),
        (("phone",), 20, 1),
        (("",), 5, 1),
    ]
    assert report.total.charged_micros == (await client.balance("alice")).spent_micros == 105


async def test_a_replay_is_not_attributed_again(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 1000, idempotency_key="start")
    for key in ("laptop", "phone"):
        await client.debit_once("alice", 20, idempotency_key="call", labels={"key": key})
    assert await _spent(client, "laptop") == 20
    assert await _spent(client, "phone") == 0


async def test_a_refusal_is_not_attributed(client: meterhold.AsyncClient) -> None:
    await client.grant_once("alice", 10, idempotency_key="start")
    with pytest.raises(meterhold.InsufficientCredits):
        await client.debit("alice", 20, labels={"key": "laptop"})
    assert await _spent(client, "laptop") == 0


async def test_the_spend_of_a_key_drives_a_cap(client: meterhold.AsyncClient) -> None:
    """What is refunded may be spent again."""
    cap_micros, cost_micros = 100, 40
    await client.grant_once("alice", 1000, idempotency_key="start")
    for _ in range(2):
        assert await _spent(client, "laptop") + cost_micros <= cap_micros
        done = await client.debit("alice", cost_micros, labels={"key": "laptop"})
    assert await _spent(client, "laptop") + cost_micros > cap_micros
    assert await _spent(client, "phone") + cost_micros <= cap_micros

    await client.refund_charge("alice", idempotency_key="refund", entry_seq=done.entry.seq)
    assert await _spent(client, "laptop") + cost_micros <= cap_micros
