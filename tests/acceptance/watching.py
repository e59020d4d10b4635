"""What a caller sees of an account through the client, and how it waits for what time brings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import meterhold
from meterhold import EntryKind
from support.waiting import until


async def amounts(
    client: meterhold.AsyncClient, account: str = "alice"
) -> list[tuple[EntryKind, int]]:
    """The kinds and signed amounts of the whole ledger, oldest first."""
    entries = client.list_entries(account, oldest_first=True)
    return [(entry.kind, entry.amount_micros) async for entry in entries]


async def lots_left(
    client: meterhold.AsyncClient, account: str = "alice"
) -> list[tuple[str, int, int]]:
    """Of each lot with credits left, in spend order: key, available, held. Allowances have none."""
    balance = await client.balance(account, include_lots=True)
    return [(lot.idempotency_key, lot.available_micros, lot.held_micros) for lot in balance.lots]


async def database_time(client: meterhold.AsyncClient) -> datetime:
    """The time that decides what is due."""
    return (await client.get_stats()).read_time


async def until_balance(client: meterhold.AsyncClient, account: str, **expected: Any) -> None:
    """Read the balance until these of its numbers are as expected."""

    async def shown() -> bool:
        balance = await client.balance(account)
        return all(getattr(balance, name) == value for name, value in expected.items())

    await until(shown)
