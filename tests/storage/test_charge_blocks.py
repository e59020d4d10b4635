"""Reports say the same with blocks of charges as without, and verification knows wrong blocks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from core.book import ALICE
from core.strategies import BOB
from meterhold_server.core.charge_blocks import (
    BlockKey,
    BlockLabels,
    Cover,
    cover,
    labels_to_sum,
    whole_blocks,
)
from meterhold_server.core.model import EntryKind, account_id_of
from meterhold_server.storage import charge_blocks, reports
from meterhold_server.storage.charge_blocks import (
    accounts_with_due_blocks,
    due_blocks,
    make_block,
    read_blocks,
)
from meterhold_server.storage.checks import CHECKS
from meterhold_server.storage.connection import connect_reader, connect_summarizer
from meterhold_server.storage.exchange import Connection
from meterhold_server.storage.reports import Group, Spend, SpendQuery, read_spend
from meterhold_server.storage.spend_statement import Dimension
from meterhold_server.storage.time_range import ALL_SEQS
from meterhold_server.storage.verify import verify_account
from meterhold_server.storage.wrong_blocks import remove_wrong_blocks

from .made_up import START, Row, ledger, regular, store, store_account
from .walk import GROUPS, some_labels, some_time, walked

ID = account_id_of(ALICE)
SIZES = (8, 32)

Owner = psycopg.Connection[Any]


@pytest.fixture
def chance() -> random.Random:
    """Seeded by what pytest-randomly prints."""
    return random.Random(random.getrandbits(64))


@pytest.fixture
def reader(database_url: str) -> Iterator[Connection]:
    with connect_reader(database_url) as connection:
        yield connection


@pytest.fixture
def summarizer(database_url: str) -> Iterator[Connection]:
    with connect_summarizer(database_url) as connection:
        yield connection


@pytest.fixture
def owner(database_url: str) -> Iterator[Owner]:
    """May write what the application may not."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def some_labels_are_varied(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """In blocks as small as here every label is. Let chance say which, block by block."""

    def chosen(sums: Mapping[str, int], entry_count: int) -> BlockLabels:
        if chance.random() < 0.1:
            return BlockLabels(None, None)
        keys = sorted(key for key in sums if key)
        summed = tuple(key for key in keys if chance.random() < 0.7)
        varied = tuple(key for key in keys if key not in summed)
        return BlockLabels(summed, None if chance.random() < 0.1 else varied)

    monkeypatch.setattr(charge_blocks, "labels_to_sum", chosen)


def make_all(connection: Connection, seq: int, *sizes: int) -> list[BlockKey]:
    keys = list(whole_blocks(ID, seq, sizes or SIZES))
    assert all(make_block(connection, key) for key in keys)
    return keys


def blocks_taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many blocks each report takes from now on."""
    taken: list[int] = []

    def counted(*args: Any) -> Cover:
        found = cover(*args)
        taken.append(len(found.sums))
        return found

    monkeypatch.setattr(reports, "cover", counted)
    return taken


class TestReports:
    @pytest.mark.usefixtures("some_labels_are_varied")
    def test_are_those_of_a_walk_whatever_blocks_there_are(
        self,
        database_url: str,
        reader: Connection,
        summarizer: Connection,
        owner: Owner,
        chance: random.Random,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        rows = ledger(chance, ALICE, 300)
        store(database_url, [*rows, *ledger(chance, BOB, 40)])
        for size in SIZES:
            for key in whole_blocks(ID, 300, [size]):
                if chance.random() < 0.8:
                    assert make_block(summarizer, key)
        rows = self._refunded_since(rows, owner, chance)
        assert remove_wrong_blocks(summarizer, ID) == 0
        taken = blocks_taken(monkeypatch)
        for _ in range(150):
            wanted = SpendQuery(
                *("live", "credits", ID),
                tuple(chance.sample(GROUPS, chance.randint(0, 3))),
                chance.choice([1, 2, 50, 1000]),
                some_labels(chance),
                some_time(chance, rows),
                some_time(chance, rows),
            )
            found = read_spend(reader, wanted)
            assert found == walked(rows, wanted)._replace(read_time=found.read_time), wanted
        assert sum(taken) > 100, "next to none of these reports took any sums"

    def _refunded_since(self, rows: list[Row], owner: Owner, chance: random.Random) -> list[Row]:
        """Some charges are given back, or more of them, after their block was made."""
        changed = list[Row]()
        for row in rows:
            if chance.random() < 0.1:
                row = row._replace(refunded_micros=row.refunded_micros + chance.randint(1, 9))
                owner.execute(
                    "INSERT INTO charge_refund VALUES (%s, %s, %s) ON CONFLICT"
                    " (account_id, charge_seq) DO UPDATE SET refunded_micros = %s",
                    (ID, row.seq, row.refunded_micros, row.refunded_micros),
                )
            changed.append(row)
        return changed

    @pytest.mark.parametrize(
        ("group_by", "labels", "from_sums"),
        [
            ((), None, True),
            ((Group(Dimension.MODEL), Group(Dimension.DAY)), None, True),
            ((Group(Dimension.LABEL, "key"), Group(Dimension.WEEK)), None, True),
            ((Group(Dimension.LABEL, "never used"),), None, True),
            ((Group(Dimension.MONTH),), {"key": "key-1"}, True),
            ((Group(Dimension.LABEL, "key"),), {"key": "key-1"}, True),
            ((Group(Dimension.LABEL, "run"),), None, False),
            ((), {"run": "run-3"}, False),
            ((Group(Dimension.LABEL, "key"),), {"never used": ""}, False),
            ((Group(Dimension.LABEL, "key"), Group(Dimension.LABEL, "never used")), None, False),
        ],
    )
    def test_read_no_charge_that_a_block_has_summed_up(
        self,
        database_url: str,
        reader: Connection,
        summarizer: Connection,
        owner: Owner,
        group_by: tuple[Group, ...],
        labels: dict[str, str] | None,
        from_sums: bool,
    ) -> None:
        """Sums that were changed behind its back are believed, unless it has to read charges."""
        rows = regular(ALICE, 200)
        store(database_url, rows)
        make_all(summarizer, 200, 64)
        owner.execute("UPDATE charge_summary SET charged_micros = charged_micros + 1000000")
        wanted = SpendQuery("live", "credits", ID, group_by, 50, labels)
        found = read_spend(reader, wanted)
        off = found.total.charged_micros - walked(rows, wanted).total.charged_micros
        assert off in ((3_000_000, 6_000_000) if from_sums else (0,))

    def test_of_very_large_charges_are_exact(
        self, database_url: str, reader: Connection, summarizer: Connection
    ) -> None:
        rows = [row._replace(amount_micros=-(10**15)) for row in regular(ALICE, 64)]
        store(database_url, rows)
        make_all(summarizer, 64, 64)
        found = read_spend(reader, SpendQuery("live", "credits", ID, (), 50))
        assert found.total == Spend(64 * 10**15, 0, 64)


class TestMaking:
    def test_a_block_is_made_once(self, database_url: str, summarizer: Connection) -> None:
        store(database_url, regular(ALICE, 100))
        key = BlockKey(ID, 1, 64)
        assert make_block(summarizer, key)
        assert not make_block(summarizer, key)
        (found,) = read_blocks(summarizer, ID, ALL_SEQS)
        assert found.key == key
        assert found.labels == BlockLabels(("key",), ("run",))
        assert (found.first_time, found.last_time) == (START, START)

    def test_one_that_lacks_an_entry_is_left_alone(
        self, database_url: str, summarizer: Connection
    ) -> None:
        store(database_url, [row for row in regular(ALICE, 100) if row.seq != 7])
        assert not make_block(summarizer, BlockKey(ID, 1, 64))
        assert read_blocks(summarizer, ID, ALL_SEQS) == []

    def test_one_without_charges_is_made_too(
        self, database_url: str, summarizer: Connection, reader: Connection
    ) -> None:
        grants = [row._replace(kind=EntryKind.GRANT, amount_micros=5) for row in regular(ALICE, 8)]
        store(database_url, grants)
        make_all(summarizer, 8, 8)
        found = read_spend(reader, SpendQuery("live", "credits", ID, (), 50))
        assert found.total == Spend(0, 0, 0)

    def test_of_too_many_sums_nothing_is_kept(
        self, database_url: str, summarizer: Connection, owner: Owner
    ) -> None:
        varied = [row._replace(usage={"model": f"model-{row.seq}"}) for row in regular(ALICE, 64)]
        store(database_url, varied)
        make_all(summarizer, 64, 64)
        assert owner.execute("SELECT count(*) FROM charge_summary").fetchone() == (0,)
        (found,) = read_blocks(summarizer, ID, ALL_SEQS)
        assert found.labels == BlockLabels(None, None) == labels_to_sum({"": 64}, 64)
        assert remove_wrong_blocks(summarizer, ID) == 0

    def test_a_walk_finds_the_accounts_with_blocks_to_make(
        self, database_url: str, summarizer: Connection
    ) -> None:
        accounts = [ALICE._replace(account=f"user-{number}") for number in range(10)]
        ids = sorted(account_id_of(key) for key in accounts)
        with psycopg.connect(database_url) as connection:
            for key in accounts:
                store_account(connection, key, seq=7 if account_id_of(key) in ids[::3] else 8)
        due = list[tuple[str, int]]()
        after, chunks = None, 0
        while True:
            found, after = accounts_with_due_blocks(summarizer, after, 4, SIZES)
            due += found
            chunks += 1
            if after is None:
                break
        assert chunks == 3
        assert due == [(one, 8) for one in ids if one not in ids[::3]]

    def test_what_is_made_is_no_longer_due(self, database_url: str, summarizer: Connection) -> None:
        store(database_url, regular(ALICE, 70))
        assert accounts_with_due_blocks(summarizer, None, 10, SIZES) == ([(ID, 70)], None)
        keys = due_blocks(summarizer, ID, 70, SIZES)
        assert keys == list(whole_blocks(ID, 70, SIZES))
        for key in keys[1:]:
            make_block(summarizer, key)
        assert due_blocks(summarizer, ID, 70, SIZES) == keys[:1]
        make_block(summarizer, keys[0])
        assert accounts_with_due_blocks(summarizer, None, 10, SIZES) == ([], None)

    def test_no_accounts_are_none_to_look_at(self, summarizer: Connection) -> None:
        assert accounts_with_due_blocks(summarizer, None, 10, SIZES) == ([], None)


SUMS = "UPDATE charge_summary SET"
SECOND_BLOCK = "WHERE first_seq = 65"
DAMAGES = {
    "charged": f"{SUMS} charged_micros = charged_micros + 1 {SECOND_BLOCK} AND number = 1",
    "moved": f"{SUMS} charged_micros = charged_micros + CASE number WHEN 1 THEN 1 ELSE -1 END"
    f" {SECOND_BLOCK} AND label = 'key'",
    "count": f"{SUMS} charge_count = charge_count + 1 {SECOND_BLOCK} AND label = ''",
    "value": f"{SUMS} value = 'nobody' {SECOND_BLOCK} AND value = 'key-0'",
    "value forgotten": f"{SUMS} value = NULL {SECOND_BLOCK} AND value = 'key-0'",
    "day": f"{SUMS} day = day + 1 {SECOND_BLOCK} AND label = ''",
    "model": f"{SUMS} model = 'Large' {SECOND_BLOCK} AND label = ''",
    "provider": f"{SUMS} provider = '' {SECOND_BLOCK} AND label = ''",
    "label": f"{SUMS} label = 'run' {SECOND_BLOCK} AND label = 'key'",
    "sum lost": f"DELETE FROM charge_summary {SECOND_BLOCK} AND value = 'key-1'",
    "sums lost": f"DELETE FROM charge_summary {SECOND_BLOCK}",
    "sum of nothing": "INSERT INTO charge_summary SELECT account_id, first_seq, entry_count, label,"
    f" 99, 'key-7', day, model, provider, 1, 1 FROM charge_summary {SECOND_BLOCK} AND label = ''",
    "block lost": f"DELETE FROM charge_block {SECOND_BLOCK}",
    "block elsewhere": f"UPDATE charge_block SET first_seq = 66 {SECOND_BLOCK}",
    "begun later": f"UPDATE charge_block SET last_time = last_time + interval '1 s' {SECOND_BLOCK}",
    "ended earlier": "UPDATE charge_block SET first_time = first_time - interval '1 us'"
    f" {SECOND_BLOCK}",
    "label forgotten": f"UPDATE charge_block SET varied_labels = '{{}}' {SECOND_BLOCK}",
    "label believed": f"UPDATE charge_block SET summed_labels = '{{key,run}}' {SECOND_BLOCK}",
    "entry lost": "DELETE FROM entry WHERE seq = 70",
    "entry altered": "UPDATE entry SET amount_micros = amount_micros - 1 WHERE seq = 70",
    "kind altered": "UPDATE entry SET kind = 'EXPIRY' WHERE seq = 70",
    "time altered": "UPDATE entry SET create_time = create_time + interval '3 days' WHERE seq = 70",
}


class TestVerification:
    @pytest.fixture(autouse=True)
    def _blocks(self, database_url: str, summarizer: Connection, owner: Owner) -> None:
        store(database_url, regular(ALICE, 200))
        make_all(summarizer, 200, 64)
        owner.execute("ALTER TABLE entry DISABLE TRIGGER ALL")

    def _told(self, reader: Connection) -> list[str]:
        found = verify_account(reader, ID)
        assert found is not None
        return [each.what for each in found.differences if each.what.startswith("summary")]

    def test_sound_blocks_do_not_differ(self, reader: Connection, summarizer: Connection) -> None:
        assert self._told(reader) == []
        assert remove_wrong_blocks(summarizer, ID) == 0
        assert len(read_blocks(reader, ID, ALL_SEQS)) == 3

    def test_blocks_that_are_missing_do_not_either(self, reader: Connection, owner: Owner) -> None:
        owner.execute(f"WITH gone AS (DELETE FROM charge_block {SECOND_BLOCK})"
                      f" DELETE FROM charge_summary {SECOND_BLOCK}")  # fmt: skip
        assert self._told(reader) == []

    @pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
    def test_wrong_ones_are_found_removed_and_made_again(
        self, reader: Connection, summarizer: Connection, owner: Owner, damage: str
    ) -> None:
        assert owner.execute(damage.encode()).rowcount > 0
        told = self._told(reader)
        assert told
        assert set(told) <= {"summary of entries 65 to 128", "summary of entries 66 to 129"}
        others = owner.execute(
            "SELECT *, xmin FROM charge_summary WHERE first_seq NOT IN (65, 66) ORDER BY 1, 2, 3, 4"
        ).fetchall()

        assert remove_wrong_blocks(summarizer, ID) == len(told)
        assert self._told(reader) == []
        gone = "SELECT count(*) FROM charge_summary WHERE first_seq IN (65, 66)"
        assert owner.execute(gone.encode()).fetchone() == (0,)
        left = "SELECT *, xmin FROM charge_summary ORDER BY 1, 2, 3, 4"
        assert owner.execute(left.encode()).fetchall() == others

        assert due_blocks(summarizer, ID, 200, [64]) == [BlockKey(ID, 65, 64)]
        assert make_block(summarizer, BlockKey(ID, 65, 64)) == ("DELETE FROM entry" not in damage)
        assert self._told(reader) == []

    def test_a_sum_tells_what_is_stored_and_expected(
        self, reader: Connection, owner: Owner
    ) -> None:
        owner.execute(f"{SUMS} charged_micros = 7 {SECOND_BLOCK} AND value = 'key-0'")
        found = verify_account(reader, ID)
        assert found is not None
        (told,) = (each for each in found.differences if each.what.startswith("summary"))
        charged = sum(
            -row.amount_micros for row in regular(ALICE, 128) if row.seq > 64 and not row.seq % 2
        )
        assert told == (
            *("summary of entries 65 to 128", 7, charged),
            "the summary of entries 65 to 128 is not that of their charges",
        )

    def test_blocks_of_no_account_are_told(self, owner: Owner) -> None:
        owner.execute("DELETE FROM account")
        for table in ("charge_block", "charge_summary"):
            bounds = {"first": ID, "last": ID}
            query = CHECKS[f"{table} without account"]
            assert len(owner.execute(query.encode(), bounds).fetchall()) == 1
