"""The seven calls, and the reads, through the client library and a real server."""

from __future__ import annotations

import meterhold


async def test_a_job_is_reserved_and_settled(client: meterhold.AsyncClient) -> None:
    granted = await client.grant_once("alice", 500, idempotency_key="order-1")
    held = await client.reserve("alice", 200, reservation_id="job-1")
    settled = await client.settle("alice", 150, reservation_id="job-1")
    assert (granted.balance.available_micros, held.balance.available_micros) == (500, 300)
    assert (settled.charged_micros, settled.released_micros) == (150, 50)
    assert settled.balance.available_micros == settled.balance.remaining_micros == 350
