"""`hold` on the stand-ins: the same client code, with the rules in memory or with a script."""

from __future__ import annotations

from datetime import timedelta

import pytest

import meterhold
import meterhold.testing


def test_a_block_is_charged_by_the_real_rules() -> None:
    memory = meterhold.testing.InMemory()
    with memory.client() as client:
        client.grant_once("alice", 100, idempotency_key="order")
        with client.hold("alice", 60) as hold:
            hold.charge(20)
            hold.capture(5)
        assert client.balance("alice").available_micros == 75

        with client.hold("alice", 60, heartbeat=False) as late:
            memory.advance(timedelta(hours=1))
            late.charge(7)
        assert isinstance(late.result, meterhold.SettleResult)
        assert late.result.late
        assert client.balance("alice").available_micros == 68

        back = client.refund_charge(
            "alice", idempotency_key="back", reservation_id=hold.reservation_id
        )
        assert (back.refunded_micros, back.balance.available_micros) == (20, 88)
    memory.verify()


async def test_a_block_of_the_twin() -> None:
    memory = meterhold.testing.InMemory()
    async with memory.async_client() as client:
        await client.grant_once("alice", 100, idempotency_key="order")
        async with client.hold("alice", 60) as hold:
            hold.charge(20)
        assert (await client.balance("alice")).available_micros == 80
    memory.verify()


def test_a_script_can_refuse_the_end_of_a_block() -> None:
    stub = meterhold.testing.Stub()
    stub.answers("reserve", held_micros=60)
    stub.fails("settle", meterhold.ReservationReleased)
    with (
        stub.client() as client,
        pytest.raises(meterhold.ReservationReleased),
        client.hold("alice", 60) as hold,
    ):
        hold.charge(5)
    assert [call.method for call in stub.calls] == ["reserve", "settle"]
