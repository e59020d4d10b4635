"""The summarizer: every full block is summed up, once, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from structlog.testing import capture_logs

import meterhold
from core.book import ALICE
from core.strategies import BOB
from meterhold_server.batching.failures import Failure
from meterhold_server.batching.reader import Reader, summarizer
from meterhold_server.core.charge_blocks import BlockKey
from meterhold_server.core.model import account_id_of
from meterhold_server.storage import charge_blocks
from meterhold_server.storage.exchange import Connection
from meterhold_server.workers import summarizer as worker
from meterhold_server.workers.summarizer import Summarized, Summarizer
from storage.made_up import ledger, regular, store
from support.engines import Observer
from support.service import service
from support.waiting import until

SIZES = (8, 32)
CAROL = ALICE._replace(account="carol")


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    """Alice has 100 entries, Bob 40, and Carol too few for any block."""
    chance = random.Random(random.getrandbits(64))
    for key, count in {ALICE: 100, BOB: 40, CAROL: 7}.items():
        store(database_url, ledger(chance, key, count))
    connected = Observer(database_url)
    yield connected
    connected.close()


@pytest.fixture
async def connections(database_url: str) -> AsyncIterator[Reader]:
    opened = summarizer(database_url)
    yield opened
    await opened.close()


@pytest.fixture
def summarizing(connections: Reader) -> Summarizer:
    return Summarizer(connections, chunk_accounts=2, entry_counts=SIZES)


def made(observer: Observer) -> list[tuple[int, int]]:
    """The sizes of blocks, and how many there are of each."""
    rows = observer.ask("SELECT entry_count, count(*) FROM charge_block GROUP BY 1 ORDER BY 1")
    return [(size, count) for size, count in rows]


async def test_it_makes_every_full_block_and_no_other(
    summarizing: Summarizer, observer: Observer
) -> None:
    assert await summarizing.run_once() == Summarized(accounts=2, blocks_made=12 + 3 + 5 + 1)
    assert made(observer) == [(8, 12 + 5), (32, 3 + 1)]
    assert await summarizing.run_once() == Summarized(), "there is nothing more to do"


async def test_any_number_may_run_at_once(
    database_url: str, summarizing: Summarizer, observer: Observer
) -> None:
    others = [summarizer(database_url) for _ in range(3)]
    walks = [Summarizer(other, entry_counts=SIZES).run_once() for other in others]
    done = await asyncio.gather(summarizing.run_once(), *walks)
    for other in others:
        await other.close()
    assert sum(each.blocks_made for each in done) == 21
    assert sum(each.blocks_failed for each in done) == 0
    assert made(observer) == [(8, 17), (32, 4)]
    sums = observer.ask(
        "SELECT count(*), count(DISTINCT (account_id, first_seq, entry_count, label, value, day,"
        " model, provider)) FROM charge_summary"
    )
    assert sums[0][0] == sums[0][1], "each sum is there once"


async def test_a_block_that_lacks_an_entry_waits_for_its_repair(
    database_url: str, summarizing: Summarizer, observer: Observer
) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute("ALTER TABLE entry DISABLE TRIGGER ALL")
        lost = "DELETE FROM entry WHERE account_id = %s AND seq = 33 RETURNING *"
        row = owner.execute(lost, [account_id_of(ALICE)]).fetchone()
    assert row is not None
    first = await summarizing.run_once()
    assert first == Summarized(accounts=2, blocks_made=19, blocks_skipped=2)
    assert await summarizing.run_once() == Summarized(accounts=1, blocks_skipped=2)
    with psycopg.connect(database_url) as owner:
        owner.execute(
            "INSERT INTO entry (account_id, seq, kind, amount_micros, remaining_after_micros,"
            " create_time, parts) VALUES (%s, 33, 'CORRECTION', -1, 0, now(), '[]')",
            [account_id_of(ALICE)],
        )
    assert await summarizing.run_once() == Summarized(accounts=1, blocks_made=2)


async def test_a_block_that_cannot_be_made_does_not_stop_the_others(
    summarizing: Summarizer, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(connection: Connection, key: BlockKey) -> bool:
        if key == BlockKey(account_id_of(BOB), 9, 8):
            raise psycopg.errors.NumericValueOutOfRange("too large")
        return charge_blocks.make_block(connection, key)

    monkeypatch.setattr(worker, "make_block", failing)
    with capture_logs() as logs:
        done = await summarizing.run_once()
    assert done == Summarized(accounts=2, blocks_made=20, blocks_failed=1)
    (logged,) = logs
    assert logged["event"] == "summary_failed"
    assert (logged["account_id"], logged["first_seq"]) == (account_id_of(BOB), 9)


async def test_it_runs_by_itself_until_it_is_stopped(
    connections: Reader, observer: Observer
) -> None:
    background = Summarizer(connections, interval_seconds=0.001, entry_counts=SIZES)
    with capture_logs() as logs:
        background.start()
        await until(lambda: made(observer) == [(8, 17), (32, 4)])
        await until(lambda: [log["event"] for log in logs] == ["summarized"])
        await background.stop()
    await background.stop()


async def test_a_server_runs_it_beside_its_calls(database_url: str) -> None:
    rows = regular(ALICE, 4100)
    store(database_url, rows)
    observer = Observer(database_url)
    async with (
        service(database_url, namespace=ALICE.namespace) as address,
        meterhold.AsyncClient(address) as client,
    ):
        await until(lambda: made(observer) == [(4096, 1)])
        report = await client.spend_report(ALICE.account, group_by=[meterhold.Label("key")])
    observer.close()
    assert report.total.charge_count == 4100
    assert {row.values: row.charged_micros for row in report.rows} == {
        (f"key-{n}",): -sum(row.amount_micros for row in rows if row.seq % 2 == n) for n in (0, 1)
    }


@pytest.mark.parametrize("summarize", [True, False])
async def test_a_server_can_be_told_not_to(
    database_url: str, monkeypatch: pytest.MonkeyPatch, summarize: bool
) -> None:
    started: list[Summarizer] = []
    monkeypatch.setattr(Summarizer, "start", lambda self: started.append(self))
    async with service(database_url, summarize=summarize):
        assert len(started) == summarize


async def test_it_goes_on_when_the_database_is_back(
    connections: Reader, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [True]

    def chunk(connection: Connection, *args: object) -> object:
        if away[0]:
            raise psycopg.OperationalError("the line is dead")
        return charge_blocks.accounts_with_due_blocks(connection, None, 10, SIZES)

    monkeypatch.setattr(worker, "accounts_with_due_blocks", chunk)
    background = Summarizer(connections, interval_seconds=0.001, entry_counts=SIZES)
    with pytest.raises(Failure):
        await background.run_once()
    with capture_logs() as logs:
        background.start()
        await until(lambda: any(log["event"] == "summary_failed" for log in logs))
        assert made(observer) == []
        away.clear()
        away.append(False)
        await until(lambda: made(observer) == [(8, 17), (32, 4)])
        await background.stop()
