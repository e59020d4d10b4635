"""`python -m benchmarks.reports`: what reads take in a ledger of ten million entries.

Half of the entries are those of one account over a year, and half those of accounts with 1 000
entries each, written in turns. Amounts are made up: the books of this ledger need not be right.
Every read is the server's own function on a connection of its reader; its statements are run under
EXPLAIN ANALYZE for the time in the database, and without it for the time that a client sees. The
one account is reported on charge by charge first, and then with the sums that the summarizer makes.
Ends with exit code 1 if a median is over its budget, or if a read of one account scans the ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from meterhold_server.batching.reader import Reader
from meterhold_server.core.model import AccountKey, EntryKind, account_id_of
from meterhold_server.embedded import EmbeddedPostgres
from meterhold_server.storage import migrate
from meterhold_server.storage.connection import connect_reader, connect_summarizer
from meterhold_server.storage.entry_pages import EntryFilter, page_of_entries
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.pages import read_account
from meterhold_server.storage.reports import Group, SpendQuery, read_spend, read_stats
from meterhold_server.storage.spend_statement import Dimension
from meterhold_server.workers.summarizer import Summarizer

NAMESPACE: Final = "default"
UNIT: Final = "credits"
START: Final = datetime(2025, 1, 1, tzinfo=UTC)
YEAR: Final = timedelta(days=365)
MONTH: Final = timedelta(days=30)
ENTRIES_OF_AN_ACCOUNT: Final = 1000
PAGE: Final = 50
PAGE_MILLISECONDS: Final = 5.0
REPORT_MILLISECONDS: Final = 100.0

# An entry of each shape for each n. Few are of other kinds than charges; three are corrections, and
# one in a million has the label `incident`.
_LOAD: Final = """
    INSERT INTO entry
    SELECT account_id, shape.seq, kind, amount, 1000000000000 - shape.seq * 1000,
        %(start)s::timestamptz + n * (%(year)s::interval / %(half)s::float8),
        CASE WHEN kind = 'CAPTURE' THEN 'job-' || n END, NULL,
        CASE WHEN kind IN ('REFUND', 'EXPIRY') THEN 1 END,
        jsonb_build_array(jsonb_build_array(1, abs(amount))),
        jsonb_build_object('key', 'key-' || n %% 20, 'run', 'run-' || n / 100)
            || CASE WHEN n %% 1000000 = 500000 THEN '{"incident": "7"}'::jsonb ELSE '{}' END,
        jsonb_build_object('provider', 'acme', 'model', 'model-' || n %% 7,
            'input_tokens', n %% 5000, 'output_tokens', n %% 700),
        NULL, NULL
    FROM generate_series(1, %(half)s::bigint) AS n
    CROSS JOIN LATERAL (SELECT CASE
        WHEN n %% (%(half)s / 3) = 1 THEN 'CORRECTION' WHEN n %% 1000 = 1 THEN 'GRANT'
        WHEN n %% 1000 = 2 THEN 'REFUND' WHEN n %% 5000 = 3 THEN 'EXPIRY'
        WHEN n %% 5000 = 4 THEN 'EXPIRY_CHARGE' WHEN n %% 3 = 0 THEN 'CAPTURE' ELSE 'DEBIT'
    END AS kind) AS kinds
    CROSS JOIN LATERAL (SELECT (n %% 900 + 100)
        * CASE WHEN kind IN ('GRANT', 'REFUND') THEN 1 ELSE -1 END AS amount) AS amounts
    CROSS JOIN LATERAL (VALUES (%(big)s::uuid, n),
        ((%(ids)s::uuid[])[n %% %(accounts)s + 1], (n - 1) / %(accounts)s + 1)
    ) AS shape (account_id, seq)
"""
_ACCOUNTS: Final = """
    INSERT INTO account (account_id, namespace, account, unit, seq, granted_micros, spent_micros,
        expired_micros, revoked_micros, refunded_micros, held_micros, held_on_credit_micros,
        lots_available_micros, debt_micros, credit_limit_micros, holds_use_credit, create_time)
    SELECT id, %(namespace)s, name, %(unit)s, seq, 1000000000000000, seq * 500, 0, 0, 0, 0, 0,
        1000000000000000 - seq * 500, 0, 0, false, %(start)s
    FROM unnest(%(ids)s::uuid[], %(names)s::text[], %(seqs)s::bigint[]) AS made (id, name, seq)
"""
_REFUNDS: Final = """
    INSERT INTO charge_refund
    SELECT account_id, seq, 5 FROM entry WHERE kind = 'DEBIT' AND seq %% 100 = 5
"""
_SCANS: Final = re.compile(r"Seq Scan on entry\b")
BY_KEY_AND_MODEL: Final = (Group(Dimension.LABEL, "key"), Group(Dimension.MODEL))

_TIME: Final = re.compile(r"Execution Time: ([0-9.]+) ms")


class Ledger(NamedTuple):
    """What was loaded: how many entries the one account has, and the ids of the others."""

    entries: int
    big: str
    ordinary: list[str]


class Read(NamedTuple):
    """A read, with choices of its own each time, and the milliseconds that its median may take."""

    name: str
    run: Callable[[Any], Any]
    budget: float | None
    of_one_account: bool = True


class Found(NamedTuple):
    """Milliseconds in the database and as a client sees them, and the plans of the last run."""

    database: list[float]
    client: list[float]
    plans: list[str]


class Explaining:
    """Stands for a connection: runs each query under EXPLAIN ANALYZE first."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self.plans: list[str] = []

    def execute(
        self, query: str | bytes, named: Any = None, *, prepare: bool | None = None
    ) -> psycopg.Cursor[Any]:
        text = query.decode() if isinstance(query, bytes) else query
        if text.lstrip().startswith(("SELECT", "WITH")):
            explain = f"EXPLAIN (ANALYZE, BUFFERS) {text}".encode()
            rows = self._connection.execute(explain, named, prepare=False).fetchall()
            self.plans.append("\n".join(row[0] for row in rows))
        return self._connection.execute(text.encode(), named, prepare=prepare)

    def transaction(self) -> Any:
        return self._connection.transaction()

    @property
    def milliseconds(self) -> float:
        return sum(float(found[1]) for plan in self.plans if (found := _TIME.search(plan)))


def main() -> int:
    options = _options()
    console = Console(width=120)
    with _database(options.directory) as url:
        started = time.perf_counter()
        ledger = _ledger(url, options.entries)
        console.print(
            f"{options.entries:,} entries loaded in {time.perf_counter() - started:.0f} s"
        )
        _show_sizes(url, console)
        _forget_sums(url)
        reads = _reads(ledger)
        found = {read.name: _measure(url, read, options.rounds) for read in reads}
        _summarize(url, console)
        with_sums = _reads_with_sums(ledger)
        found |= {read.name: _measure(url, read, options.rounds) for read in with_sums}
        reads += with_sums
        _show_insert_costs(url, console)
    if not options.quiet:
        for name, one in found.items():
            console.print(f"\n[bold]{name}[/bold]")
            for plan in one.plans:
                console.print(plan, markup=False, highlight=False, soft_wrap=True)
    console.print(_table(reads, found))
    wrong = [text for read in reads for text in _faults(read, found[read.name])]
    for text in wrong:
        console.print(text, style="red")
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reports", description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000, help="in all (10 million)")
    parser.add_argument("--rounds", type=int, default=30, help="runs of each read (30)")
    parser.add_argument("--directory", type=Path, help="keep the ledger here, or use it again")
    parser.add_argument("--quiet", action="store_true", help="print no plans")
    options = parser.parse_args()
    if options.entries < 20 * ENTRIES_OF_AN_ACCOUNT:
        parser.error(f"at least {20 * ENTRIES_OF_AN_ACCOUNT} entries are needed")
    return options


@contextmanager
def _database(kept: Path | None) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="meterhold-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        with EmbeddedPostgres.start(kept or Path(folder) / "postgres") as postgres:
            migrate.upgrade(postgres.url)
            yield postgres.url


def _ledger(url: str, entries: int) -> Ledger:
    """What is there already, if it is what was asked for, or a new one."""
    half = entries // 2
    accounts = half // ENTRIES_OF_AN_ACCOUNT
    names = ["big", *(f"ordinary-{number}" for number in range(accounts))]
    ids = [account_id_of(AccountKey(NAMESPACE, name, UNIT)) for name in names]
    named = {"start": START, "year": YEAR, "namespace": NAMESPACE, "unit": UNIT, "half": half}
    ledger = Ledger(half, ids[0], ids[1:])
    with psycopg.connect(url, autocommit=True) as connection:
        found = connection.execute("SELECT max(seq) FROM account").fetchone()
        if found and found[0] is not None:
            if found[0] != half:
                sys.exit(f"the directory has a ledger of {2 * found[0]} entries")
            return ledger
        connection.execute("SET synchronous_commit = off")
        of_entries = {"big": ids[0], "ids": ids[1:], "accounts": accounts}
        connection.execute(_LOAD, named | of_entries)
        seqs = [half, *[ENTRIES_OF_AN_ACCOUNT] * accounts]
        connection.execute(_ACCOUNTS, named | {"ids": ids, "names": names, "seqs": seqs})
        connection.execute(_REFUNDS, {})
        for table in ("entry", "account", "charge_refund"):
            connection.execute(f"VACUUM (ANALYZE) {table}".encode())
        connection.execute("CHECKPOINT")
    return ledger


def _reads(ledger: Ledger) -> list[Read]:
    choose = random.Random(7)

    def one() -> str:
        return choose.choice(ledger.ordinary)

    def balance(connection: Any) -> Any:
        return read_account(connection, choose.choice([ledger.big, one()]))

    def page(wanted: EntryFilter, *, deep: bool = False) -> Callable[[Any], Any]:
        return lambda connection: page_of_entries(
            connection,
            ledger.big,
            wanted,
            oldest_first=False,
            after_seq=choose.randint(PAGE, ledger.entries) if deep else None,
            limit=PAGE,
        )

    def page_of_an_hour(connection: Any) -> Any:
        start = _begin(choose)
        wanted = EntryFilter(start_time=start, end_time=start + timedelta(hours=1))
        return page(wanted)(connection)

    def stats(connection: Any) -> Any:
        return read_stats(connection, NAMESPACE, UNIT)

    kinds = {
        "corrections (3 there are)": EntryKind.CORRECTION,
        "grants": EntryKind.GRANT,
        "captures": EntryKind.CAPTURE,
        "allowances (none)": EntryKind.ALLOWANCE,
    }
    incident = EntryFilter(labels={"incident": "7"})
    grant_of_a_key = EntryFilter((EntryKind.GRANT,), {"key": "key-1"})
    in_a_month = ledger.entries * 30 // 365
    return [
        Read("balance", balance, PAGE_MILLISECONDS),
        Read("page, first", page(EntryFilter()), PAGE_MILLISECONDS),
        Read("page, deep", page(EntryFilter(), deep=True), PAGE_MILLISECONDS),
        *(
            Read(f"page of {name}", page(EntryFilter((kind,)), deep=True), PAGE_MILLISECONDS)
            for name, kind in kinds.items()
        ),
        Read("page by a rare label", page(incident, deep=True), PAGE_MILLISECONDS),
        Read("page by kind and label", page(grant_of_a_key, deep=True), PAGE_MILLISECONDS),
        Read("page of an hour", page_of_an_hour, PAGE_MILLISECONDS),
        Read(
            f"month of an ordinary account ({ENTRIES_OF_AN_ACCOUNT * 30 // 365} entries)",
            _month_of(choose, one, *BY_KEY_AND_MODEL),
            REPORT_MILLISECONDS,
        ),
        Read(
            f"month of the big account, charge by charge ({in_a_month:,} entries)",
            _month_of(choose, lambda: ledger.big, *BY_KEY_AND_MODEL),
            None,
        ),
        Read(
            f"month of all accounts ({2 * in_a_month:,} entries)",
            _month_of(choose, lambda: None, Group(Dimension.ACCOUNT)),
            None,
            of_one_account=False,
        ),
        Read("stats", stats, None, of_one_account=False),
    ]


def _reads_with_sums(ledger: Ledger) -> list[Read]:
    """The reports of the big account when the summarizer has been there."""
    choose = random.Random(8)
    by_day, by_model = Group(Dimension.DAY), Group(Dimension.MODEL)
    by_key, by_run = Group(Dimension.LABEL, "key"), Group(Dimension.LABEL, "run")
    groupings: dict[str, tuple[Group, ...]] = {
        "nothing": (),
        "day": (by_day,),
        "week and provider": (Group(Dimension.WEEK), Group(Dimension.PROVIDER)),
        "month": (Group(Dimension.MONTH),),
        "model and day": (by_model, by_day),
        "key": (by_key,),
        "key and model": BY_KEY_AND_MODEL,
        "key, model and day": (by_key, by_model, by_day),
        "run": (by_run,),
        "a label that is not there": (Group(Dimension.LABEL, "workspace"),),
    }

    def month(*group_by: Group, labels: dict[str, str] | None = None) -> Callable[[Any], Any]:
        return _month_of(choose, lambda: ledger.big, *group_by, labels=labels)

    def year(connection: Any) -> Any:
        wanted = SpendQuery(NAMESPACE, UNIT, ledger.big, (by_model,), PAGE)
        return read_spend(connection, wanted)

    one_key = {"key": "key-1"}
    return [
        *(
            Read(f"summed month by {name}", month(*group_by), REPORT_MILLISECONDS)
            for name, group_by in groupings.items()
        ),
        Read("summed month of a key by day", month(by_day, labels=one_key), REPORT_MILLISECONDS),
        Read("month of a key by run: two labels", month(by_run, labels=one_key), None),
        Read(f"summed year by model ({ledger.entries:,} entries)", year, None),
    ]


def _begin(choose: random.Random) -> datetime:
    return START + choose.random() * (YEAR - MONTH)


def _month_of(
    choose: random.Random,
    of: Callable[[], str | None],
    *group_by: Group,
    labels: dict[str, str] | None = None,
) -> Callable[[Any], Any]:
    def read(connection: Any) -> Any:
        start = _begin(choose)
        wanted = SpendQuery(NAMESPACE, UNIT, of(), group_by, PAGE, labels, start, start + MONTH)
        return read_spend(connection, wanted)

    return read


def _forget_sums(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("TRUNCATE charge_block, charge_summary")


def _summarize(url: str, console: Console) -> None:
    """Sum all full blocks up, and look for more once they are there. Print what that takes."""
    taken: list[tuple[float, float, int]] = []
    opened: list[Connection] = []

    def connect(of: str) -> Connection:
        opened.append(connect_summarizer(of))
        return opened[-1]

    async def walk() -> None:
        reader = Reader(url, threads=1, connect=connect, seconds_max=3600)
        try:
            await reader.run(lambda connection: connection.execute("SELECT").close())
            backend = psutil.Process(opened[0].info.backend_pid)
            for _ in range(2):
                before, started = backend.cpu_times(), time.perf_counter()
                done = await Summarizer(reader).run_once()
                after = backend.cpu_times()
                cpu = after.user + after.system - before.user - before.system
                taken.append((time.perf_counter() - started, cpu, done.blocks_made))
        finally:
            await reader.close()

    asyncio.run(walk())
    (seconds, cpu, blocks), (again, _, _) = taken
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT (SELECT sum(entry_count) FROM charge_block WHERE entry_count ="
            " (SELECT min(entry_count) FROM charge_block)), (SELECT count(*) FROM charge_summary),"
            " pg_total_relation_size('charge_block') + pg_total_relation_size('charge_summary')"
        ).fetchone()
        for table in ("charge_block", "charge_summary"):
            connection.execute(f"VACUUM (ANALYZE) {table}".encode())
    assert row is not None
    entries, sums, size = map(int, row)
    console.print(
        f"{entries:,} entries summed up in {blocks:,} blocks in {seconds:.0f} s, {cpu:.0f} s of CPU"
        f" in the database: {cpu / entries * 1e6:.1f} s a million; {sums:,} sums take"
        f" {size / 2**20:,.0f} MiB, {size / entries:.0f} bytes an entry; a walk that finds nothing"
        f" to do took {again * 1000:.0f} ms"
    )


def _measure(url: str, read: Read, rounds: int) -> Found:
    found = Found([], [], [])
    with connect_reader(url) as connection:
        for _ in range(rounds):
            explaining = Explaining(connection)
            read.run(explaining)
            found.database.append(explaining.milliseconds)
            found.plans[:] = explaining.plans
        for _ in range(rounds):
            started = time.perf_counter()
            read.run(connection)
            found.client.append((time.perf_counter() - started) * 1000)
    return found


def _faults(read: Read, found: Found) -> Iterator[str]:
    median = statistics.median(found.database)
    if read.budget is not None and median > read.budget:
        yield f"{read.name}: {median:.1f} ms, over {read.budget:g} ms"
    if read.of_one_account and any(map(_SCANS.search, found.plans)):
        yield f"{read.name}: scans the whole ledger"


def _table(reads: list[Read], found: dict[str, Found]) -> Table:
    table = Table(title="milliseconds, median and worst", caption="budgets are for medians")
    table.add_column("read", no_wrap=True)
    for heading in ("database", "worst", "client", "worst", "budget"):
        table.add_column(heading, justify="right")
    for read in reads:
        database, client, _ = found[read.name]
        table.add_row(
            read.name,
            f"{statistics.median(database):.2f}",
            f"{max(database):.2f}",
            f"{statistics.median(client):.2f}",
            f"{max(client):.2f}",
            f"{read.budget:g}" if read.budget else "",
        )
    return table


def _show_sizes(url: str, console: Console) -> None:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relname LIKE '%entry%'"
            " AND relkind IN ('r', 'i') ORDER BY 2 DESC"
        ).fetchall()
    for name, size in rows:
        console.print(f"{name}: {size / 2**20:,.2f} MiB")


def _show_insert_costs(url: str, console: Console) -> None:
    """Debits into copies of the table with the primary key alone, and with all indexes."""
    copies = {
        "bare": "LIKE entry INCLUDING CONSTRAINTS, PRIMARY KEY (account_id, seq)",
        "indexed": "LIKE entry INCLUDING ALL",
    }
    taken: dict[str, list[float]] = {name: [] for name in copies}
    with psycopg.connect(url, autocommit=True) as connection:
        for name, definition in copies.items():
            connection.execute(f"DROP TABLE IF EXISTS {name}".encode())
            connection.execute(f"CREATE TABLE {name} ({definition})".encode())
        for batch in range(400):
            for name in random.sample(sorted(copies), 2):
                debits = (
                    f"INSERT INTO {name} SELECT * FROM entry WHERE kind = 'DEBIT' AND account_id ="
                    f" %s AND seq BETWEEN {batch * 90 + 1} AND {batch * 90 + 90}"
                )
                explain = f"EXPLAIN (ANALYZE, BUFFERS, WAL) {debits}".encode()
                rows = connection.execute(explain, [_big()]).fetchall()
                plan = "\n".join(row[0] for row in rows)
                match = _TIME.search(plan)
                assert match is not None
                taken[name].append(float(match[1]))
        rows = connection.execute(
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index"
            " WHERE indrelid = 'indexed'::regclass"
        ).fetchall()
    bare, indexed = (statistics.median(taken[name]) for name in copies)
    console.print(
        f"a batch of 60 debits: {bare:.3f} ms with the primary key alone, {indexed:.3f} ms with all"
        f" indexes; then they have " + ", ".join(f"{name} {size} bytes" for name, size in rows)
    )


def _big() -> str:
    return account_id_of(AccountKey(NAMESPACE, "big", UNIT))


if __name__ == "__main__":
    sys.exit(main())
