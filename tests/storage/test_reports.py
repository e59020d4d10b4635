"""Reports and filtered pages say the same as going through the whole ledger by hand."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from core.book import ALICE, debit, grant
from core.strategies import BOB
from meterhold_server.core.model import AccountKey, EntryKind, account_id_of
from meterhold_server.storage import entry_pages
from meterhold_server.storage.connection import connect_reader
from meterhold_server.storage.entry_pages import EntryFilter, page_of_entries
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.reports import (
    Group,
    Spend,
    SpendQuery,
    read_spend,
    read_stats,
)
from meterhold_server.storage.time_range import ALL_SEQS, CLOCK_STEP, NO_SEQS, Seqs, seqs_between

from .made_up import START, Row, ledger, store, store_account
from .stored import Stored
from .walk import GROUPS, some_labels, some_time, walked

ID = account_id_of(ALICE)
ZOE = ALICE._replace(account="zoë")
OF_OTHERS = [ALICE._replace(namespace="test"), ALICE._replace(unit="tokens")]


@pytest.fixture
def chance() -> random.Random:
    """Seeded by what pytest-randomly prints."""
    return random.Random(random.getrandbits(64))


@pytest.fixture
def rows(database_url: str, chance: random.Random) -> list[Row]:
    """What is in the database: some of everything, of several accounts."""
    made = [
        row
        for key, count in {ALICE: 400, BOB: 60, ZOE: 20, **dict.fromkeys(OF_OTHERS, 30)}.items()
        for row in ledger(chance, key, count)
    ]
    store(database_url, made)
    return made


@pytest.fixture
def reader(database_url: str) -> Iterator[Connection]:
    with connect_reader(database_url) as connection:
        yield connection


class TestRangeOfTime:
    def test_it_has_all_of_that_time_and_little_else(
        self, reader: Connection, rows: list[Row], chance: random.Random
    ) -> None:
        for _ in range(60):
            start, end = some_time(chance, rows), some_time(chance, rows)
            found = seqs_between(reader, ID, start, end)
            for row in (row for row in rows if row.account == ALICE):
                inside = found.first <= row.seq <= found.last
                if (not start or row.create_time >= start) and (not end or row.create_time < end):
                    assert inside, (row, start, end)
                elif inside:
                    far = 2 * CLOCK_STEP
                    assert not start or row.create_time >= start - far
                    assert not end or row.create_time < end + far

    def test_it_allows_for_clocks_that_were_set_back_by_an_hour(
        self, database_url: str, reader: Connection
    ) -> None:
        """Each hour was lived through twice."""
        times = [
            START + timedelta(hours=hour + again, minutes=minute) - again * timedelta(minutes=59)
            for hour in range(0, 40, 2)
            for again in (0, 1)
            for minute in range(0, 60, 7)
        ]
        [template] = ledger(random.Random(1), ALICE, 1)
        stored = [
            template._replace(seq=seq, create_time=at, refunded_micros=0)
            for seq, at in enumerate(times, 1)
        ]
        store(database_url, stored)
        for start in times[::7]:
            for end in times[::40]:
                found = seqs_between(reader, ID, start, end)
                inside = [seq for seq, at in enumerate(times, 1) if start <= at < end]
                assert all(found.first <= seq <= found.last for seq in inside)

    def test_of_all_times_is_the_whole_ledger(self, reader: Connection, rows: list[Row]) -> None:
        assert seqs_between(reader, ID, None, None) == Seqs(1, 400)

    def test_of_an_unknown_account_is_empty(self, reader: Connection, rows: list[Row]) -> None:
        assert seqs_between(reader, account_id_of(AccountKey("live", "x", "y")), None, None) == (
            NO_SEQS
        )

    def test_of_an_account_without_entries_is_empty(self, database_url: str) -> None:
        with connect_reader(database_url) as connection:
            with Stored(database_url).session.connection as writer:
                store_account(writer, ALICE)
            found = seqs_between(connection, ID, START, START + CLOCK_STEP)
        assert found.last < found.first

    @pytest.mark.parametrize("oldest_first", [True, False])
    def test_parts_of_it_follow_each_other(self, oldest_first: bool) -> None:
        everything, seen = Seqs(3, 40), list[int]()
        rest = everything
        while rest.first <= rest.last:
            part = rest.at_most(7, oldest_first=oldest_first)
            seen += range(part.first, part.last + 1)
            rest = rest.beyond(part.last if oldest_first else part.first, oldest_first=oldest_first)
        assert sorted(seen) == list(range(3, 41))

    @pytest.mark.parametrize("seq", [1, 2**63 - 1])
    @pytest.mark.parametrize("oldest_first", [True, False])
    def test_a_forged_position_is_within_int64(self, seq: int, oldest_first: bool) -> None:
        found = ALL_SEQS.beyond(seq, oldest_first=oldest_first)
        assert all(-(2**63) <= bound < 2**63 for bound in found)


class TestFilteredPages:
    @pytest.mark.parametrize("looked_at", [1, 7, 1000])
    def test_together_have_every_entry_that_matches(
        self,
        reader: Connection,
        rows: list[Row],
        chance: random.Random,
        monkeypatch: pytest.MonkeyPatch,
        looked_at: int,
    ) -> None:
        monkeypatch.setattr(entry_pages, "LOOKED_AT_MAX", looked_at)
        monkeypatch.setattr(entry_pages, "SCATTERED_MAX", looked_at)
        for _ in range(25):
            kinds = tuple(chance.sample(list(EntryKind), chance.choice([0, 1, 1, 2, 10])))
            wanted = EntryFilter(
                kinds, some_labels(chance), some_time(chance, rows), some_time(chance, rows)
            )
            expected = [
                row.seq
                for row in rows
                if row.account == ALICE
                and (not kinds or row.kind in kinds)
                and all((row.labels or {}).get(k) == v for k, v in (wanted.labels or {}).items())
                and (not wanted.start_time or row.create_time >= wanted.start_time)
                and (not wanted.end_time or row.create_time < wanted.end_time)
            ]
            limit = chance.choice([1, 3, 50, 1000])
            assert turned(reader, wanted, limit, oldest_first=True) == expected
            assert turned(reader, wanted, limit, oldest_first=False) == expected[::-1]

    def test_of_rare_kinds_are_full(self, reader: Connection, rows: list[Row]) -> None:
        """They are found, not looked for, so that no page is short but the last."""
        kinds = (EntryKind.GRANT, EntryKind.CORRECTION, EntryKind.GRANT)
        page = page_of_entries(
            reader, ID, EntryFilter(kinds), oldest_first=False, after_seq=None, limit=3
        )
        assert len(page.entries) == 3

    def test_one_that_finds_nothing_says_where_it_stopped(
        self, reader: Connection, rows: list[Row], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(entry_pages, "LOOKED_AT_MAX", 150)
        wanted = EntryFilter(labels={"key": "nobody's"})
        seqs = []
        after = None
        while True:
            page = page_of_entries(
                reader, ID, wanted, oldest_first=False, after_seq=after, limit=50
            )
            assert page.entries == []
            after = page.next_after_seq
            seqs.append(after)
            if after is None:
                break
        assert seqs == [251, 101, None]


def turned(
    connection: Connection, wanted: EntryFilter, limit: int, *, oldest_first: bool
) -> list[int]:
    """The seqs of all pages. Each goes on behind the last, and only the last has no next."""
    seqs = list[int]()
    after = None
    while True:
        page = page_of_entries(
            connection, ID, wanted, oldest_first=oldest_first, after_seq=after, limit=limit
        )
        assert len(page.entries) <= limit
        seqs += [entry.seq for entry in page.entries]
        if page.next_after_seq is None:
            return seqs
        if after is not None:
            assert page.next_after_seq > after if oldest_first else page.next_after_seq < after
        after = page.next_after_seq


class TestSpend:
    def test_sums_are_those_of_a_walk_through_the_ledger(
        self, reader: Connection, rows: list[Row], chance: random.Random
    ) -> None:
        for _ in range(80):
            wanted = SpendQuery(
                "live",
                "credits",
                chance.choice([ID, None]),
                tuple(chance.sample(GROUPS, chance.randint(0, 3))),
                chance.choice([1, 2, 50, 1000]),
                some_labels(chance),
                some_time(chance, rows),
                some_time(chance, rows),
            )
            found = read_spend(reader, wanted)
            assert found == walked(rows, wanted)._replace(read_time=found.read_time), wanted

    def test_of_nothing_are_zeros(self, reader: Connection) -> None:
        for group_by in ((), (GROUPS[0],)):
            found = read_spend(reader, SpendQuery("live", "credits", ID, group_by, 50))
            assert found[1:] == ([], Spend(0, 0, 0), 0)

    def test_are_exact_past_int64(self, database_url: str, reader: Connection) -> None:
        [template] = ledger(random.Random(1), ALICE, 1)
        large = template._replace(kind=EntryKind.DEBIT, refunded_micros=0, create_time=START)
        large = large._replace(amount_micros=-(9 * 10**18 + 1))
        store(database_url, [large._replace(seq=seq) for seq in (1, 2, 3)])
        found = read_spend(reader, SpendQuery("live", "credits", ID, (), 50))
        assert found.total == Spend(27 * 10**18 + 3, 0, 3)

    def test_read_time_is_the_database_s(self, reader: Connection) -> None:
        found = read_spend(reader, SpendQuery("live", "credits", None, (), 50))
        assert abs(found.read_time - datetime.now(UTC)) < timedelta(minutes=1)


class TestStats:
    def test_are_the_sums_of_the_accounts_of_the_unit(
        self, database_url: str, reader: Connection, chance: random.Random
    ) -> None:
        names = ("spent", "expired", "revoked", "refunded", "held", "pending")
        made = []
        with Stored(database_url).session.connection as writer:
            for number in range(20):
                totals = {name: chance.randint(0, 10**6) for name in names}
                totals["granted"] = 10**7
                made.append(totals)
                store_account(writer, AccountKey("live", f"user-{number}", "credits"), **totals)
            for other in OF_OTHERS:
                store_account(writer, other, granted=5)
        found = read_stats(reader, "live", "credits")
        assert found.account_count == 20
        for name in (*names, "granted"):
            assert getattr(found, f"{name}_micros") == sum(totals[name] for totals in made)
        assert found.outstanding_micros == sum(
            t["granted"] + t["refunded"] - t["spent"] - t["expired"] - t["revoked"] for t in made
        )

    def test_are_exact_past_int64(self, database_url: str, reader: Connection) -> None:
        with Stored(database_url).session.connection as writer:
            for number in range(3):
                key = AccountKey("live", f"user-{number}", "credits")
                store_account(writer, key, granted=9 * 10**18)
        assert read_stats(reader, "live", "credits").granted_micros == 27 * 10**18

    def test_of_nobody_are_zeros(self, reader: Connection) -> None:
        assert set(read_stats(reader, "live", "credits")[1:]) == {0}


class Planned:
    """Stands for a connection, and keeps the plans of the statements that it runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.plans: list[str] = []

    def execute(self, query: str | bytes, named: Any = None, **_: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else query
        if " entry" in text:
            explain = f"EXPLAIN (COSTS OFF) {text}".encode()
            rows = self._connection.execute(explain, named, prepare=False).fetchall()
            self.plans.append("\n".join(row[0] for row in rows))
        return self._connection.execute(text.encode(), named)

    def transaction(self) -> Any:
        return self._connection.transaction()


class TestIndexes:
    @pytest.mark.parametrize("analyzed", [False, True])
    @pytest.mark.parametrize(
        ("wanted", "indexes"),
        [
            (EntryFilter(), {"pk_entry"}),
            (EntryFilter((EntryKind.DEBIT,)), {"pk_entry"}),
            (EntryFilter(labels={"key": "a"}), {"pk_entry"}),
            (EntryFilter(start_time=START, end_time=START), {"pk_entry"}),
            (EntryFilter((EntryKind.GRANT,)), {"pk_entry", "ix_entry_rare_kinds"}),
            (EntryFilter((EntryKind.GRANT,), {"key": "a"}), {"pk_entry", "ix_entry_rare_kinds"}),
        ],
    )
    def test_a_page_looks_entries_up(
        self,
        database_url: str,
        reader: Connection,
        rows: list[Row],
        wanted: EntryFilter,
        indexes: set[str],
        analyzed: bool,
    ) -> None:
        """Whether the planner knows how many there are or not."""
        with psycopg.connect(database_url) as owner:
            owner.execute("ANALYZE" if analyzed else "SELECT")
        planned: Any = Planned(reader)
        page_of_entries(planned, ID, wanted, oldest_first=False, after_seq=None, limit=50)
        self._check(planned.plans, indexes)

    @pytest.mark.parametrize("group", GROUPS)
    def test_a_report_of_an_account_looks_its_entries_up(
        self, reader: Connection, rows: list[Row], group: Group
    ) -> None:
        planned: Any = Planned(reader)
        wanted = SpendQuery("live", "credits", ID, (group,), 50, start_time=START)
        read_spend(planned, wanted)
        self._check(planned.plans, {"pk_entry"})

    def _check(self, plans: list[str], indexes: set[str]) -> None:
        text = "\n".join(plans)
        assert set(re.findall(r"using (\w*entry\w*) on", text)) <= indexes, text
        assert ("ix_entry_rare_kinds" in text) == ("ix_entry_rare_kinds" in indexes), text
        assert "Scan on entry" not in text

    def test_charges_do_not_touch_the_index_of_rare_kinds(self, whole: Stored) -> None:
        def size() -> Any:
            query = "SELECT pg_relation_size('ix_entry_rare_kinds')"
            row = whole.session.connection.execute(query).fetchone()
            return row[0] if row else None

        whole.do_all([grant("order", 10**6)])
        before = size()
        for _ in range(20):
            whole.do_all([debit(1) for _ in range(100)])
        assert size() == before
        for number in range(20):
            whole.do_all([grant(f"order-{number}-{n}", 1) for n in range(50)])
        assert size() > before
