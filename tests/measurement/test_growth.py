"""A loaded ledger is one that the service could have written, and goes on with."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

import meterhold
from benchmarks import growth, load, publishing, rounds
from benchmarks.ledgers import Accounts, hold, load_ledger
from benchmarks.results import Round
from meterhold_server.storage.verify import verify
from support.service import service

BIG = Accounts("big-", 1, 50)
HOLDERS = Accounts("holder-", 3, 1, timedelta(days=1))


async def test_it_verifies_and_works(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        assert load_ledger(connection, BIG, HOLDERS) == 53
        assert verify(database_url).clean
        hold(connection, HOLDERS, "due", until=timedelta(), within=timedelta())
    found = verify(database_url)
    assert (found.accounts, found.entries, found.clean) == (4, 53, True)
    async with service(database_url) as address, meterhold.AsyncClient(address) as client:
        assert (await client.debit("big-0", 5)).entry.seq == 51
        await client.settle("holder-1", 400, reservation_id="live")
        balance = await client.balance("holder-1")
        assert (balance.held_micros, balance.spent_micros) == (0, 400)
    assert verify(database_url).clean


def in_this_process(module: str, orders: load.Orders, watched: rounds.Watched) -> Round:
    """A round that starts no process for the load, which takes longer than the load."""
    costs = ("server_cpu_microseconds", "database_cpu_microseconds", "wal_bytes")
    return asyncio.run(load.measure(orders)) | dict.fromkeys(costs, 1.0)


@pytest.mark.slow
def test_a_small_run_of_the_growth_finds_its_ratios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "LOADS", growth.LOADS[:1])
    monkeypatch.setattr(rounds, "run", in_this_process)
    sizes = ["--entries", "100", "--accounts", "10", "--due", "10", "--callers", "4"]
    times = ["--rounds", "1", "--seconds", "0.2", "--results", str(tmp_path)]
    assert growth.main([*sizes, *times]) == 0
    kept = json.loads((tmp_path / publishing.GROWTH).read_text())
    assert set(kept["ratios"]) == {"slowest load", "balance"}
    operations, due, sweeps, tables = kept["sheets"]
    assert {row[0] for row in operations["rows"]} >= {"Debit", "Balance, all entries"}
    assert {row[0] for row in due["rows"]} == {"first", "second"}
    assert {row[2] for row in sweeps["rows"] if "at once" in row[0]} == {"10"}
    assert "entry" in {row[0] for row in tables["rows"]}
