"""Reads: one account by its key, and pages that neither miss nor repeat a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from core.book import ALICE, debit, debit_once, grant, release, reserve, settle
from core.strategies import BOB
from meterhold_server.core.funds import spend_key
from meterhold_server.core.model import (
    ClaimKind,
    Entry,
    EntryKind,
    Lot,
    LotCategory,
    Reservation,
    ReservationState,
    account_id_of,
)
from meterhold_server.storage import pages
from meterhold_server.storage.connection import connect_reader
from meterhold_server.storage.entry_pages import EntryFilter, EntryPage, page_of_entries
from meterhold_server.storage.exchange import Connection

from .stored import Stored

ID = account_id_of(ALICE)
SIZES = range(1, 14)


@pytest.fixture
def reader(whole: Stored) -> Iterator[Connection]:
    """A connection for reads, to a ledger with some of everything in it."""
    whole.do_all([grant("spent", 3), debit(3)])
    for number in range(4):
        whole.do_all(
            [
                grant(
                    f"gift-{number}",
                    20,
                    category=list(LotCategory)[number % 2],
                    priority=50 - 10 * (number % 3),
                ),
                grant(f"gift-{number}-bob", 20, account=BOB),
                # three of one instant, so that a page has to begin between them
                *(reserve(f"job-{number}-{letter}", 2) for letter in "cab"),
                settle(f"job-{number}-a", 1),
                release(f"job-{number}-b"),
                debit(1),
            ]
        )
    whole.do_all([debit_once("key", 1)])
    with connect_reader(whole.url) as connection:
        yield connection


def entries(
    connection: Connection,
    limit: int,
    after: Entry | None = None,
    *,
    kinds: tuple[EntryKind, ...] = (),
    oldest_first: bool = False,
) -> list[Entry]:
    found = page_of_entries(
        connection,
        ID,
        EntryFilter(kinds),
        oldest_first=oldest_first,
        after_seq=after.seq if after else None,
        limit=limit,
    )
    assert found.next_after_seq in (None, *(entry.seq for entry in found.entries[-1:]))
    return found.entries


def reservations(
    connection: Connection,
    limit: int,
    after: Reservation | None = None,
    *,
    states: tuple[ReservationState, ...] = (),
) -> list[Reservation]:
    start = (after.create_time, after.reservation_id) if after else None
    return pages.page_of_reservations(connection, ID, states=states, after=start, limit=limit)


def lots(
    connection: Connection, limit: int, after: Lot | None = None, *, include_spent: bool = True
) -> list[Lot]:
    return pages.page_of_lots(
        connection,
        ID,
        include_spent=include_spent,
        after_seq=after.seq if after else None,
        limit=limit,
    )


def turned(page: Callable[..., list[Any]], connection: Connection, limit: int) -> list[Any]:
    """All rows, page by page, until one is not full."""
    rows: list[Any] = []
    while found := page(connection, limit, rows[-1] if rows else None):
        assert len(found) <= limit
        rows += found
        if len(found) < limit:
            break
    return rows


class TestPages:
    @pytest.mark.parametrize("page", [entries, reservations, lots])
    def test_of_every_size_hold_the_same_rows(
        self, reader: Connection, page: Callable[..., list[Any]]
    ) -> None:
        whole = page(reader, 1000)
        assert len(whole) >= 4
        for size in SIZES:
            assert turned(page, reader, size) == whole

    def test_of_entries_are_newest_first_or_oldest_first(self, reader: Connection) -> None:
        newest = [entry.seq for entry in entries(reader, 1000)]
        assert newest == list(range(len(newest), 0, -1))

        def oldest(*arguments: Any) -> list[Entry]:
            return entries(*arguments, oldest_first=True)

        assert [entry.seq for entry in turned(oldest, reader, 3)] == newest[::-1]

    def test_of_reservations_are_newest_first(self, reader: Connection) -> None:
        found = [(one.create_time, one.reservation_id) for one in reservations(reader, 1000)]
        assert found == sorted(found, reverse=True)
        assert len({create_time for create_time, _ in found}) == 4

    def test_of_lots_are_newest_first(self, reader: Connection) -> None:
        found = [lot.seq for lot in lots(reader, 1000)]
        assert found == sorted(found, reverse=True)

    @pytest.mark.parametrize("page", [entries, reservations, lots])
    def test_begun_stay_the_same_while_rows_are_added(
        self, reader: Connection, whole: Stored, page: Callable[..., list[Any]]
    ) -> None:
        before = page(reader, 1000)
        rows: list[Any] = page(reader, 2)
        while found := page(reader, 2, rows[-1]):
            number = len(rows)
            whole.do_all([grant(f"more-{number}", 5), reserve(f"more-{number}", 1)])
            rows += found
        assert [key_of(row) for row in rows] == [key_of(row) for row in before]

    @pytest.mark.parametrize(
        "kinds", [(EntryKind.DEBIT,), (EntryKind.GRANT, EntryKind.CAPTURE), (EntryKind.EXPIRY,)]
    )
    def test_of_some_kinds_of_entries(
        self, reader: Connection, kinds: tuple[EntryKind, ...]
    ) -> None:
        def some(*arguments: Any) -> list[Entry]:
            return entries(*arguments, kinds=kinds)

        wanted = [entry for entry in entries(reader, 1000) if entry.kind in kinds]
        for size in SIZES:
            assert turned(some, reader, size) == wanted

    @pytest.mark.parametrize("state", ReservationState)
    def test_of_reservations_in_a_state(self, reader: Connection, state: ReservationState) -> None:
        def some(*arguments: Any) -> list[Reservation]:
            return reservations(*arguments, states=(state,))

        wanted = [one for one in reservations(reader, 1000) if one.state is state]
        for size in SIZES:
            assert turned(some, reader, size) == wanted

    def test_of_lots_with_something_left(self, reader: Connection) -> None:
        def live(*arguments: Any) -> list[Lot]:
            return lots(*arguments, include_spent=False)

        everything = lots(reader, 1000)
        wanted = [lot for lot in everything if lot.live]
        assert 0 < len(wanted) < len(everything)
        for size in SIZES:
            assert turned(live, reader, size) == wanted

    @pytest.mark.parametrize("page", [entries, reservations, lots])
    def test_have_nothing_of_other_accounts(
        self, reader: Connection, page: Callable[..., list[Any]]
    ) -> None:
        assert {row.account_id for row in page(reader, 1000)} == {ID}


def key_of(row: Any) -> Any:
    return row.reservation_id if isinstance(row, Reservation) else row.seq


class TestOneRow:
    def test_an_account(self, reader: Connection, whole: Stored) -> None:
        read = pages.read_account(reader, ID)
        assert read is not None
        assert read.account.key == ALICE
        assert read.account.balance() == whole.do_all([release("job-0-a")])[0].balance  # type: ignore[union-attr]
        assert read.account.create_time is not None
        assert read.now > read.account.create_time

    def test_an_account_that_does_not_exist(self, reader: Connection) -> None:
        unknown = account_id_of(ALICE._replace(unit="other"))
        assert pages.read_account(reader, unknown) is None
        assert pages.read_live_lots(reader, unknown) == []
        for wanted in (EntryFilter(), EntryFilter(labels={"run": "7"})):
            page = page_of_entries(
                reader, unknown, wanted, oldest_first=False, after_seq=None, limit=9
            )
            assert page == EntryPage([], None)

    def test_lots_in_spend_order(self, reader: Connection) -> None:
        found = pages.read_live_lots(reader, ID)
        assert found == sorted((lot for lot in lots(reader, 1000) if lot.live), key=spend_key)

    def test_a_reservation(self, reader: Connection) -> None:
        found = pages.read_reservation(reader, ID, "job-1-a")
        assert found is not None
        assert found.state is ReservationState.SETTLED
        assert pages.read_reservation(reader, account_id_of(BOB), "job-1-a") is None

    def test_an_entry(self, reader: Connection) -> None:
        last = entries(reader, 1)[0]
        assert pages.read_entry(reader, ID, last.seq) == last
        assert pages.read_entry(reader, ID, last.seq + 1) is None
        by_key = pages.read_entry_by_key(reader, "live", [ClaimKind.DEBIT_ONCE], "key", ID)
        assert by_key == last

    @pytest.mark.parametrize(
        ("namespace", "kind", "key", "account_id"),
        [
            ("test", ClaimKind.DEBIT_ONCE, "key", ID),
            ("live", ClaimKind.GRANT_ONCE, "key", ID),
            ("live", ClaimKind.DEBIT_ONCE, "other", ID),
            ("live", ClaimKind.DEBIT_ONCE, "key", account_id_of(BOB)),
        ],
    )
    def test_an_entry_under_a_key_of_somebody_else_is_not_told(
        self, reader: Connection, namespace: str, kind: ClaimKind, key: str, account_id: str
    ) -> None:
        assert pages.read_entry_by_key(reader, namespace, [kind], key, account_id) is None
