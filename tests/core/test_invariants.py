"""The audit bites: whatever is changed in a sound account, `violations` tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from meterhold_server.core.invariants import violations
from meterhold_server.core.model import Account, EntryKind, Part, ReservationState

from .book import Book
from .table import check


@pytest.fixture
def book() -> Book:
    """An account with something of everything."""
    return check("""
        credit  100 holds
        grant   gift 50 expires=1h               | granted 50
        grant   paid 50                          | granted 50
        reserve job 70 ttl=30m                   | held 70
        capture job a 10                         | charged 10 from_hold=10
        reserve run 20 ttl=5m on_expiry=charge   | held 20
        reserve old 5 ttl=5m                     | held 5
        settle  old 5                            | charged 5 from_hold=5
        at      5m
        expire                                   | expired charged=1
    """)


def test_a_sound_account_has_no_violations(book: Book) -> None:
    assert violations(book.account(), book.ledger()) == []
    assert violations(Book().account(), []) == []


@pytest.mark.parametrize(
    "name",
    [
        "seq",
        "granted_micros",
        "spent_micros",
        "expired_micros",
        "revoked_micros",
        "refunded_micros",
        "held_micros",
        "held_on_credit_micros",
        "lots_available_micros",
        "debt_micros",
    ],
)
@pytest.mark.parametrize("change", [1, -1])
def test_every_total_of_an_account_is_checked(book: Book, name: str, change: int) -> None:
    account = book.account()
    setattr(account, name, getattr(account, name) + change)
    assert violations(account, book.ledger())


@pytest.mark.parametrize(
    "name", ["available_micros", "held_micros", "expired_micros", "repaid_micros"]
)
def test_every_amount_of_a_lot_is_checked(book: Book, name: str) -> None:
    lot = book.account().lots[0]
    setattr(lot, name, getattr(lot, name) + 1)
    assert violations(book.account(), book.ledger())


@pytest.mark.parametrize("reservation_id", ["job", "run", "old"])
@pytest.mark.parametrize(
    "name",
    [
        "reserved_micros",
        "open_micros",
        "on_credit_micros",
        "captured_micros",
        "from_hold_micros",
        "released_micros",
        "expiry_charged_micros",
    ],
)
def test_every_amount_of_a_reservation_is_checked(
    book: Book, reservation_id: str, name: str
) -> None:
    reservation = book.account().reservations[reservation_id]
    setattr(reservation, name, getattr(reservation, name) + 1)
    assert violations(book.account(), book.ledger())


def _lose_an_entry(book: Book) -> None:
    book.ledger().pop()


def _swap_two_entries(book: Book) -> None:
    ledger = book.ledger()
    ledger[0], ledger[1] = ledger[1], ledger[0]


def _change_an_amount(book: Book) -> None:
    ledger = book.ledger()
    ledger[-1] = ledger[-1]._replace(amount_micros=ledger[-1].amount_micros - 1)


def _turn_a_sign(book: Book) -> None:
    ledger = book.ledger()
    ledger[-1] = ledger[-1]._replace(kind=EntryKind.REFUND)


def _charge_another_reservation(book: Book) -> None:
    ledger = book.ledger()
    ledger[-1] = ledger[-1]._replace(reservation_id="nobody's")


def _falsify_a_balance(book: Book) -> None:
    ledger = book.ledger()
    ledger[0] = ledger[0]._replace(remaining_after_micros=7)


def _take_from_another_lot(book: Book) -> None:
    ledger = book.ledger()
    ledger[-1] = ledger[-1]._replace(parts=[Part(2, 5)])


def _hold_in_another_lot(book: Book) -> None:
    job = book.account().reservations["job"]
    first, second = job.parts
    job.parts = [Part(first.lot_seq, second.micros), Part(second.lot_seq, first.micros)]


def _hold_in_a_lot_that_does_not_exist(book: Book) -> None:
    job = book.account().reservations["job"]
    job.parts = [Part(99, job.open_micros)]


def _forget_a_lot(book: Book) -> None:
    book.account().lots.pop()


def _forget_a_hold(book: Book) -> None:
    del book.account().reservations["job"]


def _make_a_lot_hold_more_than_was_granted(book: Book) -> None:
    book.account().lots[0].granted_micros = 1


def _end_a_hold_that_is_running(book: Book) -> None:
    book.account().reservations["job"].end_time = book.now


def _lose_the_answer_of_a_settle(book: Book) -> None:
    book.account().reservations["old"].closing = None


def _expect_the_next_expiry_too_late(book: Book) -> None:
    account = book.account()
    assert account.next_expire_time is not None
    account.next_expire_time += timedelta(seconds=1)


def _expect_no_expiry(book: Book) -> None:
    book.account().next_expire_time = None


def _end_a_hold_without_letting_go(book: Book) -> None:
    job = book.account().reservations["job"]
    book.account().reservations["job"] = replace(
        job, state=ReservationState.RELEASED, end_time=book.now
    )


@pytest.mark.parametrize(
    "tamper",
    [
        _lose_an_entry,
        _swap_two_entries,
        _change_an_amount,
        _turn_a_sign,
        _charge_another_reservation,
        _falsify_a_balance,
        _take_from_another_lot,
        _hold_in_another_lot,
        _hold_in_a_lot_that_does_not_exist,
        _forget_a_lot,
        _forget_a_hold,
        _make_a_lot_hold_more_than_was_granted,
        _end_a_hold_that_is_running,
        _lose_the_answer_of_a_settle,
        _expect_the_next_expiry_too_late,
        _expect_no_expiry,
        _end_a_hold_without_letting_go,
    ],
)
def test_tampering_shows(book: Book, tamper: Callable[[Book], None]) -> None:
    tamper(book)
    assert violations(book.account(), book.ledger())


def test_debt_beside_credits_shows() -> None:
    account: Account = check("grant gift 50 | granted 50").account()
    account.lots_available_micros += 10
    account.lots[0].available_micros += 10
    account.debt_micros += 10
    wrong = violations(account, [])
    assert any("debt 10 while 60 are available" in violation for violation in wrong)


def _corrected(book: Book, amount_micros: int, related_seq: int) -> None:
    """Append a correction, and let the balance of the account follow."""
    account, ledger = book.account(), book.ledger()
    account.seq += 1
    account.spent_micros -= amount_micros
    account.debt_micros -= amount_micros
    ledger.append(
        ledger[-1]._replace(
            seq=account.seq,
            kind=EntryKind.CORRECTION,
            amount_micros=amount_micros,
            remaining_after_micros=account.remaining_micros,
            reservation_id="",
            related_seq=related_seq,
            parts=[],
        )
    )


@pytest.fixture
def owing() -> Book:
    """50 were granted and 60 debited."""
    return check("""
        grant gift 50               | granted 50
        debit 10                    | debited 10
        debit 50 overage=overdraft  | debited 50
    """)


def test_a_correction_counts_by_its_sign(owing: Book) -> None:
    _corrected(owing, -7, related_seq=0)
    assert violations(owing.account(), owing.ledger()) == []
    assert owing.account().spent_micros == 67


def test_a_correction_of_another_entry_counts_in_the_place_of_that_one(owing: Book) -> None:
    ledger = owing.ledger()
    ledger[1] = ledger[1]._replace(amount_micros=-8)
    assert violations(owing.account(), ledger)
    owing.account().seq += 1
    ledger.append(
        ledger[2]._replace(
            seq=4, kind=EntryKind.CORRECTION, amount_micros=-2, related_seq=2, parts=[]
        )
    )
    assert violations(owing.account(), ledger) == []
    ledger[3] = ledger[3]._replace(related_seq=0)
    assert violations(owing.account(), ledger), "in its own place it explains nothing"


def test_a_correction_of_nothing_shows(owing: Book) -> None:
    _corrected(owing, -7, related_seq=9)
    wrong = violations(owing.account(), owing.ledger())
    assert any("entry 4 corrects entry 9, which is not before it" in each for each in wrong)


def test_a_violation_names_the_account() -> None:
    account = check("grant gift 50 | granted 50").account()
    assert all(
        violation.startswith("account 'alice' (credits): ") for violation in violations(account, [])
    )
