"""`python -m benchmarks.verify`: how long a verification of a large ledger takes.

The database is the embedded one in a fresh folder on disk, and shares the machine with nothing
else. Charges are summed up first, so that the sums are verified too; only large accounts have any,
as with `--each 1000000`. Exit code 1 if it takes longer than `--seconds-max`, or finds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import Final

import psycopg

from benchmarks import servers
from benchmarks.ledgers import Accounts, load_ledger
from meterhold_server.batching.reader import summarizer
from meterhold_server.storage.verify import verify
from meterhold_server.workers.summarizer import Summarizer

ENTRIES_OF_ACCOUNT: Final = 100


def main() -> int:
    options = _options()
    with servers.database() as database:
        url = database.create_migrated("verify")
        started = time.perf_counter()
        with psycopg.connect(url, autocommit=True) as connection:
            accounts = -(-options.entries // options.each)
            entries = load_ledger(connection, Accounts("user-", accounts, options.each))
        blocks = asyncio.run(_summarize(url))
        loaded = time.perf_counter()
        print(
            f"loaded {entries:,} entries, and summed {blocks:,} blocks up, in"
            f" {loaded - started:.1f} s",
            flush=True,
        )
        found = verify(url)
        seconds = time.perf_counter() - loaded
    print(
        f"verified {found.accounts:,} accounts, {found.entries:,} entries in {seconds:.1f} s:"
        f" {entries / seconds:,.0f} entries/s, {len(found.differences)} differences"
    )
    for violation in found.violations[:10]:
        print(violation)
    return 0 if found.clean and seconds <= options.seconds_max else 1


async def _summarize(url: str) -> int:
    """Answers how many blocks there are then."""
    connections = summarizer(url)
    try:
        return (await Summarizer(connections).run_once()).blocks_made
    finally:
        await connections.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000, help="how many (10000000)")
    parser.add_argument(
        "--each", type=int, default=ENTRIES_OF_ACCOUNT, help="entries of an account (100)"
    )
    parser.add_argument("--seconds-max", type=float, default=120.0, help="the bound (120)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
