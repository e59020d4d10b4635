"""A load, and the proof that the ledger says what its callers were told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import meterhold
from meterhold_server.storage.verify import verify
from robustness.connections import clients
from robustness.load import ACCOUNTS, EntryName, Load

_CALLERS: Final = 16


@asynccontextmanager
async def checked_load(
    address: str, database_url: str, *, timeout_seconds: float = 10.0
) -> AsyncIterator[Load]:
    """Callers at work, whose books are compared with the ledger at the end.

    `timeout_seconds` is what the client has for a call, with all its retries.
    """
    load = Load()
    async with clients(address, _CALLERS, retries=True, timeout_seconds=timeout_seconds) as callers:
        async with asyncio.TaskGroup() as running:
            for number, client in enumerate(callers):
                running.create_task(load.run(number, client))
            yield load
            load.stop()
        await load.resolve(callers[0])
        written, held = await entries(callers[0]), await holds(callers[0])
    assert written == load.expected_entries()
    assert held == load.expected_holds()
    assert verify(database_url).violations == ()


async def entries(client: meterhold.AsyncClient) -> dict[EntryName, list[int]]:
    """The amounts of all entries, by what names them: more than one amount is a double charge."""
    found: dict[EntryName, list[int]] = defaultdict(list)
    for account in ACCOUNTS:
        async for entry in client.list_entries(account, page_size=1000, timeout_seconds=10):
            name = (account, entry.kind, entry.reservation_id, entry.key)
            found[name].append(entry.amount_micros)
    return found


async def holds(client: meterhold.AsyncClient) -> set[tuple[str, str]]:
    return {
        (account, reservation.reservation_id)
        for account in ACCOUNTS
        async for reservation in client.list_reservations(
            account, page_size=1000, timeout_seconds=10
        )
    }
