"""Row 14: one answer with what was granted and used, what remains, is reserved and available."""

from __future__ import annotations

from datetime import timedelta

import meterhold
from acceptance.watching import database_time, until_balance
from meterhold import Overage


async def test_the_numbers_of_an_account_with_a_history(client: meterhold.AsyncClient) -> None:
    soon = await database_time(client) + timedelta(seconds=1)
    await client.grant_once("alice", 1000, idempotency_key="order")
    await client.grant_once("alice", 70, idempotency_key="trial", expire_time=soon, priority=60)
    await client.debit_once("alice", 300, idempotency_key="call")
    await client.refund_charge("alice", 50, idempotency_key="back", entry_seq=3)
    await client.reserve("alice", 200, reservation_id="run")
    await client.settle("alice", 80, reservation_id="run", keep_open=True, capture_id="turn-1")
    await client.revoke_grant("order", amount_micros=100)
    await client.grant_once(
        "alice", 40, idempotency_key="later", effective_time=soon + timedelta(days=1)
    )
    await until_balance(client, "alice", expired_micros=70)

    balance = await client.balance("alice")
    granted, used = balance.granted_micros, balance.spent_micros
    assert (granted, used, balance.refunded_micros) == (1070, 380, 50)
    assert (balance.expired_micros, balance.revoked_micros) == (70, 100)
    assert balance.remaining_micros == 1070 - 380 + 50 - 70 - 100
    assert balance.held_micros == 120, "reserved"
    assert balance.available_micros == balance.remaining_micros - 120
    assert (balance.debt_micros, balance.pending_micros) == (0, 40)
    assert balance.ledger_seq == 7


async def test_lots_and_grants_to_come_on_request(client: meterhold.AsyncClient) -> None:
    now = await database_time(client)
    await client.grant_once("alice", 1000, idempotency_key="order")
    for days in (2, 1):
        await client.grant_once(
            "alice", days, idempotency_key=f"in {days}", effective_time=now + timedelta(days=days)
        )
    balance = await client.balance("alice", include_lots=True)
    assert [lot.idempotency_key for lot in balance.lots] == ["order"]
    assert [(lot.idempotency_key, lot.seq) for lot in balance.pending] == [("in 1", 0), ("in 2", 0)]
    assert (balance.available_micros, balance.pending_micros) == (1000, 3)
    plain = await client.balance("alice")
    assert (plain.lots, plain.pending) == ((), ())


async def test_an_account_in_debt_within_its_credit(client: meterhold.AsyncClient) -> None:
    await client.configure_account("alice", credit_limit_micros=100)
    await client.debit("alice", 100)
    done = await client.debit("alice", 30, overage=Overage.OVERDRAFT)
    assert (done.balance.available_micros, done.balance.debt_micros) == (-130, 130)
    assert done.balance.credit_limit_micros == 100


async def test_an_unknown_account_is_all_zeros(client: meterhold.AsyncClient) -> None:
    balance = await client.balance("nobody", include_lots=True)
    assert balance == meterhold.Balance(
        ledger_seq=0,
        available_micros=0,
        held_micros=0,
        remaining_micros=0,
        granted_micros=0,
        spent_micros=0,
        expired_micros=0,
        revoked_micros=0,
        refunded_micros=0,
        debt_micros=0,
        credit_limit_micros=0,
    )
    assert (await client.get_account("nobody")).create_time is None


async def test_a_writer_reads_what_it_wrote(client: meterhold.AsyncClient) -> None:
    granted = await client.grant_once("alice", 500, idempotency_key="start")
    seq = granted.balance.ledger_seq
    assert await client.balance("alice", min_seq=seq) == granted.balance
