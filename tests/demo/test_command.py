"""The whole demo, as a stranger runs it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import meterhold
from support.database import open_folder

pytestmark = pytest.mark.slow

SECONDS_MAX = 60
COMMAND = (sys.executable, "-m", "meterhold_server", "demo", "--allow-unsafe-database")


def environment(**settings: str) -> dict[str, str]:
    """Ours, without what would set up another Meterhold or another terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METERHOLD_")}
    return kept | {"COLUMNS": "80", "TERM": "dumb"} | settings


def demo(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--requests", "150", "--accounts", "8", *arguments],
        env=environment(METERHOLD_DATABASE_URL=database_url),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def test_every_credit_is_accounted_for_and_a_database_takes_more_than_one_run(
    database_url: str,
) -> None:
    done = demo(database_url)

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "8 accounts" in done.stdout
    assert "every invariant holds" in done.stdout
    assert "every answer and balance agrees" in done.stdout
    sums = re.search(r"^([\d,]+) = (.+) micros$", done.stdout, re.MULTILINE)
    assert sums
    granted, *parts = (int(number.replace(",", "")) for number in (sums[1], *sums[2].split(" + ")))
    assert granted == sum(parts) > 0
    counts = dict(re.findall(r"│ ([a-z :]+?) +│ +([\d,]+) │", done.stdout))
    assert counts["requests"] == "150"
    assert (
        sum(int(counts[name]) for name in ("refused: too little left", "settled", "crashed")) == 150
    )

    again = demo(database_url, "--seed", "7")

    assert again.returncode == 0
    assert "16 accounts, " in again.stdout


async def test_a_ledger_that_was_tampered_with_fails(
    client: meterhold.AsyncClient, database_url: str
) -> None:
    await client.grant_once("alice", 1000, idempotency_key="paid")
    await client.reserve("alice", 100, reservation_id="job")
    await client.settle("alice", 60, reservation_id="job")
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE reservation SET captured_micros = captured_micros + 1")

    done = await asyncio.to_thread(demo, database_url)

    assert done.returncode == 1
    assert "9 accounts, " in done.stdout
    assert "1 violations" in done.stdout
    assert "account 'alice' (credits): reservation 'job' charged 61" in done.stdout


def test_a_malformed_trace_fails_before_anything_starts(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,many,44\n")

    done = demo("postgresql://nowhere.invalid/", "--trace", str(trace))

    assert done.returncode == 1
    assert done.stdout == ""
    assert "trace.csv, line 2, ContextTokens: 'many' is not" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(number: signal.Signals) -> None:
    with (
        open_folder() as folder,
        subprocess.Popen(
            COMMAND, env=environment(TMPDIR=str(folder)), stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert any("A server on" in line for line in process.stdout)
        assert list(folder.iterdir()) != []
        process.send_signal(number)

        assert "Interrupted" in process.stdout.read()
        assert process.wait(SECONDS_MAX) == 130
        assert list(folder.iterdir()) == []
