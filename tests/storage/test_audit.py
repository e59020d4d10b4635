"""The audit finds whatever a hand, a bug or a bad disk changed, and nothing in a sound ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from core.book import ALICE, capture, debit_once, grant, reserve, settle
from core.strategies import BOB
from meterhold_server.core.model import AccountKey, OnExpiry
from meterhold_server.storage import audit as audit_module
from meterhold_server.storage.audit import Audit, audit

from .stored import Stored

HOUR = timedelta(hours=1)
ALICE_ONLY = "WHERE account_id = (SELECT account_id FROM account WHERE account = 'alice')"
OPEN = f"{ALICE_ONLY} AND reservation_id = 'open'"
DONE = f"{ALICE_ONLY} AND reservation_id = 'done'"
STRANGER = "'00000000-0000-0000-0000-000000000000'"
LAST_STRANGER = "'ffffffff-ffff-ffff-ffff-ffffffffffff'"


@pytest.fixture
def owner(whole: Stored) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """May write what the application may not, past every check of the code."""
    carol = AccountKey("live", "carol", "credits")
    whole.do_all(
        [
            grant("gift", 100),
            grant("gift-bob", 100, account=BOB),
            grant("gift-carol", 100, account=carol),
            reserve("open", 30, ttl=HOUR, on_expiry=OnExpiry.CHARGE),
            capture("open", "first", 10),
            reserve("done", 20),
            settle("done", 15),
            debit_once("key", 5),
            reserve("bob's", 5, account=BOB),
        ]
    )
    with psycopg.connect(whole.url, autocommit=True) as connection:
        yield connection


def test_an_empty_ledger_is_clean(whole: Stored) -> None:
    assert audit(whole.url) == Audit()


def test_a_sound_ledger_is_clean_and_summed_up(
    whole: Stored, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    found = audit(whole.url)
    assert found == Audit(
        accounts=3,
        entries=6,
        granted_micros=300,
        spent_micros=30,
        held_micros=25,
        available_micros=245,
    )
    assert found.clean


# Each leaves the constraints of the tables satisfied: only the audit can notice.
PLANTED = {
    "totals that both grew": (
        (
            f"UPDATE account SET granted_micros = granted_micros + 1,"
            f" spent_micros = spent_micros + 1 {ALICE_ONLY}"
        ),
        "granted_micros 101 ≠ sum of its entries 100",
    ),
    "a balance that grew": (
        (
            "UPDATE account SET granted_micros = granted_micros + 1,"
            f" lots_available_micros = lots_available_micros + 1 {ALICE_ONLY}"
        ),
        "lots available 51 ≠ sum of lots 50",
    ),
    "a total moved to another": (
        f"UPDATE account SET spent_micros = spent_micros - 1, expired_micros = 1 {ALICE_ONLY}",
        "expired_micros 1 ≠ sum of its entries 0",
    ),
    "a sequence number": (
        f"UPDATE account SET seq = 9 {ALICE_ONLY}",
        "seq 9 ≠ number of entries 4",
    ),
    "available called held": (
        (
            "UPDATE account SET held_micros = held_micros + 1,"
            f" lots_available_micros = lots_available_micros - 1 {ALICE_ONLY}"
        ),
        "held 21 ≠ open in active reservations 20",
    ),
    "debt and credit out of nothing": (
        (
            "UPDATE account SET held_on_credit_micros = 1,"
            f" lots_available_micros = lots_available_micros + 1 {ALICE_ONLY}"
        ),
        "held on credit 1 ≠ of active reservations 0",
    ),
    "an expiry forgotten": (
        f"UPDATE account SET next_expire_time = NULL {ALICE_ONLY}",
        "next expiry None is later than",
    ),
    "a lot with less": (
        f"UPDATE lot SET available_micros = available_micros - 1 {ALICE_ONLY}",
        "lots available 50 ≠ sum of lots 49",
    ),
    "a lot's held": (
        (
            "UPDATE lot SET held_micros = held_micros - 1, available_micros = available_micros + 1"
            f" {ALICE_ONLY}"
        ),
        "lot 1 held 19 ≠ earmarked by reservations 20",
    ),
    "a lot that is gone": (f"DELETE FROM lot {ALICE_ONLY}", "lots that do not exist: [1]"),
    "a hold shrunk": (
        (
            "UPDATE reservation SET open_micros = open_micros - 1,"
            f" released_micros = released_micros + 1 {OPEN}"
        ),
        "reservation 'open' open 19 ≠ its parts 20",
    ),
    "a capture forgotten": (
        f"UPDATE reservation SET captured_micros = captured_micros - 1 {OPEN}",
        "reservation 'open' charged 9 ≠ sum of its entries 10",
    ),
    "a hold that is gone": (
        f"DELETE FROM reservation {OPEN}",
        "entries charge reservations that do not exist: ['open']",
    ),
    "a settled hold that charged more": (
        f"UPDATE reservation SET captured_micros = captured_micros + 1 {DONE}",
        "reservation 'done' charged 16 ≠ sum of its entries 15",
    ),
    "a settled hold that is open again": (
        (
            "UPDATE reservation SET state = 'ACTIVE', end_time = NULL, closing = NULL,"
            f" released_micros = 0, open_micros = 5 {DONE}"
        ),
        "open in active reservations 25",
    ),
    "an entry that nobody made": (
        (
            "INSERT INTO entry SELECT account_id, 5, 'DEBIT', -1, 69, now(), NULL, NULL, NULL,"
            f" '[]', NULL, NULL, NULL, NULL FROM account {ALICE_ONLY}"
        ),
        "seq 4 ≠ number of entries 5",
    ),
    "an entry after a gap": (
        (
            "INSERT INTO entry SELECT account_id, 7, 'DEBIT', -1, 69, now(), NULL, NULL, NULL,"
            f" '[]', NULL, NULL, NULL, NULL FROM account {ALICE_ONLY}"
        ),
        "entry 7 stands at position 5",
    ),
    "a claim on an entry that does not exist": (
        (
            "INSERT INTO claim SELECT 'live', 'DEBIT_ONCE', 'other', account_id, 9, '{}', '{}',"
            f" now() FROM account {ALICE_ONLY}"
        ),
        "1 rows of claim name entries that do not exist",
    ),
    "an account that is gone": (
        f"DELETE FROM account {ALICE_ONLY}",
        "1 rows of lot have no account",
    ),
    "a lot of nobody, first of all": (
        (
            f"INSERT INTO lot SELECT {STRANGER}, seq, granted_micros, available_micros,"
            f" held_micros, live, priority, category, NULL, now(), '' FROM lot {ALICE_ONLY}"
        ),
        f"1 rows of lot have no account {STRANGER[1:-1]}",
    ),
    "a lot of nobody, last of all": (
        (
            f"INSERT INTO lot SELECT {LAST_STRANGER}, seq, granted_micros, available_micros,"
            f" held_micros, live, priority, category, NULL, now(), '' FROM lot {ALICE_ONLY}"
        ),
        f"1 rows of lot have no account {LAST_STRANGER[1:-1]}",
    ),
}


@pytest.mark.parametrize(("change", "violation"), PLANTED.values(), ids=PLANTED)
def test_it_finds(
    whole: Stored,
    owner: psycopg.Connection[tuple[object, ...]],
    change: str,
    violation: str,
) -> None:
    assert owner.execute(change.encode()).rowcount == 1
    found = audit(whole.url)
    assert not found.clean
    assert any(violation in line for line in found.violations), found.violations
    others = [line for line in found.violations if "'bob'" in line or "'carol'" in line]
    assert not others, "the fault is nobody else's"


def test_it_finds_a_balance_in_the_ledger_that_does_not_add_up(
    whole: Stored, owner: psycopg.Connection[tuple[object, ...]]
) -> None:
    """Not even the owner may change an entry, unless the fence is taken down."""
    owner.execute("ALTER TABLE entry DISABLE TRIGGER ALL")
    owner.execute(f"UPDATE entry SET amount_micros = -6 {ALICE_ONLY} AND seq = 4".encode())
    lines = audit(whole.url).violations
    assert any("entry 4 remaining after 70 ≠ sum of entries up to it 69" in line for line in lines)
    owner.execute(f"DELETE FROM entry {ALICE_ONLY} AND seq = 4".encode())
    lines = audit(whole.url).violations
    assert any("seq 4 ≠ number of entries 3" in line for line in lines)
    assert any("1 rows of claim name entries" in line for line in lines)


def test_it_reads_in_portions(
    whole: Stored, owner: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = audit(whole.url)
    monkeypatch.setattr(audit_module, "_ROWS_FETCHED", 1)
    assert audit(whole.url) == expected


def test_it_does_not_stand_in_the_way(whole: Stored, owner: object) -> None:
    """What is written after it began is not looked at, and not waited for."""
    whole.session.connection.execute("BEGIN")
    whole.session.connection.execute("SELECT FROM account FOR UPDATE")
    assert audit(whole.url).clean
    assert ALICE.namespace == "live"
