"""Verification finds what a hand, a bug or a bad disk changed, and nothing in a sound ledger.

What it finds is repaired without changing history, and the repaired account goes on working.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from core.book import ALICE, debit, grant, reserve, settle
from core.strategies import BOB
from meterhold_server.batching.strays import remove_stray_claims
from meterhold_server.core.model import EntryKind, Rules, account_id_of
from meterhold_server.core.operations import Rebuild, ReinstateGrant, RevokeGrant
from meterhold_server.core.outcomes import Debited, Reason, Rebuilt, Rejected, Reserved, Settled
from meterhold_server.storage.verify import Verification, verify
from support import contents

from .conftest import SetClock
from .damage import ALICE_ONLY, CAROL, live, unfenced
from .stored import Stored

OPEN = f"{ALICE_ONLY} AND reservation_id = 'open'"
DONE = f"{ALICE_ONLY} AND reservation_id = 'done'"
LATE = f"{ALICE_ONLY} AND reservation_id = 'late'"
FIRST_LOT = f"{ALICE_ONLY} AND seq = 1"
SECOND_LOT = f"{ALICE_ONLY} AND seq = 2"
NOBODY = "00000000-0000-0000-0000-000000000000"
LAST_NOBODY = "ffffffff-ffff-ffff-ffff-ffffffffffff"

Owner = psycopg.Connection[Any]


@pytest.fixture
def owner(whole: Stored, set_clock: SetClock) -> Iterator[Owner]:
    """May write what the application may not, past every check of the code."""
    live(whole, set_clock)
    with psycopg.connect(whole.url, autocommit=True) as connection:
        yield connection


def test_an_empty_ledger_is_clean(whole: Stored) -> None:
    assert verify(whole.url) == Verification()


def test_a_sound_ledger_is_clean_and_summed_up(whole: Stored, owner: Owner) -> None:
    found = verify(whole.url)
    assert found == Verification(
        accounts=3,
        entries=14,
        granted_micros=330,
        refunded_micros=8,
        spent_micros=70,
        expired_micros=21,
        held_micros=92,
        available_micros=155,
    )
    assert found.clean
    assert verify(whole.url, BOB) == Verification(
        accounts=1,
        entries=2,
        granted_micros=50,
        spent_micros=20,
        held_micros=70,
        available_micros=-40,
    )


class Damage(NamedTuple):
    """What is done to a ledger, and what is said of it.

    `corrected` are the amounts of the entries that a rebuild posts; None where a person has to
    look. `available_micros` are those of the account after it, where they are not what they were.
    `lasting` is damage that a constraint refuses as long as the entry stands, explained or not.
    """

    statement: str
    sentence: str
    corrected: list[int] | None
    available_micros: int = 100
    lasting: bool = False


def _entry(seq: int, change: str) -> str:
    return f"UPDATE entry SET {change} {ALICE_ONLY} AND seq = {seq}"


def _lost(*seqs: int) -> str:
    return f"DELETE FROM entry {ALICE_ONLY} AND seq IN ({', '.join(map(str, seqs))})"


def _total(name: str, change: int = 1) -> str:
    return f"UPDATE account SET {name} = {name} + {change} {ALICE_ONLY}"


def _of_lot(change: str, where: str = SECOND_LOT) -> str:
    return f"UPDATE lot SET {change} {where}"


def _hold(change: str, where: str = OPEN) -> str:
    return f"UPDATE reservation SET {change} {where}"


DAMAGES = {
    "granted": Damage(_total("granted_micros"), "granted_micros 181 ≠ sum of its entries 180", []),
    "spent": Damage(_total("spent_micros"), "spent_micros 51 ≠ sum of its entries 50", []),
    "expired": Damage(_total("expired_micros"), "expired_micros 22 ≠ sum of its entries 21", []),
    "revoked": Damage(_total("revoked_micros"), "revoked_micros 1 ≠ sum of its entries 0", []),
    "refunded": Damage(_total("refunded_micros"), "refunded_micros 9 ≠ sum of its entries 8", []),
    "remaining": Damage(_total("granted_micros"), "remaining 118 ≠ sum of entries 117", []),
    "held": Damage(_total("held_micros"), "held 18 ≠ held in lots + held on credit 17", []),
    "on credit": Damage(
        _total("held_on_credit_micros"), "held on credit 1 ≠ of active reservations 0", []
    ),
    "available": Damage(
        _total("lots_available_micros"), "lots available 101 ≠ sum of lots 100", []
    ),
    "debt": Damage(_total("debt_micros", 3), "debt 3 while 100 are available", []),
    "negative": Damage(_total("spent_micros", -60), "spent_micros is negative: -10", []),
    "seq too high": Damage(_total("seq", 9), "seq 20 ≠ number of entries 11", []),
    "seq too low": Damage(_total("seq", -2), "seq 9 ≠ number of entries 11", []),
    "totals that both grew": Damage(
        f"UPDATE account SET granted_micros = 190, spent_micros = 60 {ALICE_ONLY}",
        "spent_micros 60 ≠ sum of its entries 50",
        [],
    ),
    "expiry forgotten": Damage(
        f"UPDATE account SET next_expire_time = NULL {ALICE_ONLY}",
        "next expiry none is later than 2026-01-03",
        [],
    ),
    "expiry too late": Damage(
        f"UPDATE account SET next_expire_time = next_expire_time + interval '1 us' {ALICE_ONLY}",
        "is later than 2026-01-03",
        [],
    ),
    "lot with less": Damage(
        _of_lot("available_micros = 90", FIRST_LOT),
        "lot 1 available + held + repaid 90 ≠ its parts of entries 100",
        [],
    ),
    "lot with more": Damage(
        _of_lot("available_micros = 200", FIRST_LOT), "lot 1 has more than was granted", []
    ),
    "lot's held": Damage(
        _of_lot("held_micros = 16"), "lot 2 held 16 ≠ earmarked by reservations 17", []
    ),
    "lot's held available": Damage(
        _of_lot("held_micros = 16, available_micros = 1"),
        "lot 2 held 16 ≠ earmarked by reservations 17",
        [],
    ),
    "lot's expired": Damage(
        _of_lot("expired_micros = 20"), "lot 2 expired 20 ≠ its EXPIRY entries 21", []
    ),
    "lot's revoked": Damage(
        _of_lot("revoked_micros = 3", FIRST_LOT),
        "lot 1 revoked 3 ≠ its REVOCATION entries 0",
        [],
    ),
    "lot's revocations": Damage(
        _of_lot("""revocations = '{"": [3, 3]}'""", FIRST_LOT),
        "lot 1 revoked 0 ≠ its revocations 3",
        [],
    ),
    "lot's revoked here": Damage(
        _of_lot("revoked_here_micros = -1", FIRST_LOT),
        "lot 1 revoked_here is negative: -1",
        [],
    ),
    "pending": Damage(_total("pending_micros", 7), "pending 7 ≠ sum of pending grants 0", []),
    "lot's repaid": Damage(
        _of_lot("repaid_micros = 4"),
        "lot 2 available + held + repaid 21 ≠ its parts of entries 17",
        [],
    ),
    "negative lot": Damage(_of_lot("available_micros = -1"), "lot 2 available is negative: -1", []),
    "lot that is gone": Damage(
        f"DELETE FROM lot {FIRST_LOT}", "entries say 100 of lot 1, which does not exist", []
    ),
    "lot that holds and is gone": Damage(
        f"DELETE FROM lot {SECOND_LOT}",
        "reservations hold 17 in lot 2, which does not exist",
        [],
    ),
    "hold shrunk": Damage(
        _hold("open_micros = open_micros - 1, released_micros = released_micros + 1"),
        "reservation 'open' open 16 ≠ its parts 17",
        [],
    ),
    "hold's open": Damage(
        _hold("open_micros = 18"), "reservation 'open' open 18 ≠ its parts 17", []
    ),
    "hold's parts": Damage(
        _hold("parts = '[[2, 14]]'"), "reservation 'open' open 17 ≠ its parts 14", []
    ),
    "hold in another lot": Damage(
        _hold("parts = '[[1, 17]]'"), "lot 2 held 17 ≠ earmarked by reservations 0", []
    ),
    "hold on credit": Damage(
        _hold("on_credit_micros = 2"), "reservation 'open' open 17 ≠ its parts 19", []
    ),
    "hold's reserved": Damage(
        _hold("reserved_micros = 31"), "reservation 'open' reserved 31 ≠ held + captured", []
    ),
    "capture forgotten": Damage(
        _hold("captured_micros = captured_micros - 1"),
        "reservation 'open' charged 12 ≠ sum of its entries 13",
        [],
    ),
    "settled for more": Damage(
        _hold("captured_micros = 16", DONE),
        "reservation 'done' charged 16 ≠ sum of its entries 15",
        [],
    ),
    "charged more at expiry": Damage(
        _hold("expiry_charged_micros = 5, released_micros = 5", LATE),
        "reservation 'late' charged 5 ≠ sum of its entries 4",
        [],
    ),
    "hold that is gone": Damage(
        f"DELETE FROM reservation {OPEN}",
        "entries charge reservation 'open', which does not exist",
        [0],
        117,
    ),
    "settled hold that is open again": Damage(
        _hold(
            "state = 'ACTIVE', end_time = NULL, closing = NULL, released_micros = 0,"
            " open_micros = 5",
            DONE,
        ),
        "held 17 ≠ open in active reservations 22",
        [],
        100,
    ),
    "state without an end": Damage(
        _hold("end_time = NULL", DONE), "'done' is SETTLED with end time none", []
    ),
    "settled hold that is active": Damage(
        _hold("state = 'ACTIVE'", DONE), "reservation 'done' is ACTIVE with end time", []
    ),
    "settled hold without its answer": Damage(
        _hold("closing = NULL", DONE), "'done' is SETTLED with end time", []
    ),
    "first entry lost": Damage(_lost(1), "entry 1 is missing, of 100 by the balances", [100]),
    "lot's grant lost": Damage(_lost(2), "entry 2 is missing, of 80 by the balances", [80]),
    "capture lost": Damage(_lost(3), "entry 3 is missing, of -10 by the balances", [-10]),
    "keyed debit lost": Damage(_lost(5), "'key' of DEBIT_ONCE names entry 5", [-5]),
    "charge at expiry lost": Damage(_lost(8), "entry 8 is missing, of -10", [-10]),
    "true-up lost": Damage(_lost(9), "refunded of entry 8 6 ≠ sum of its refunds 0", [6]),
    "expiry lost": Damage(_lost(10), "entry 10 is missing, of -21", [-21]),
    "last entry lost": Damage(_lost(11), "seq 11 ≠ number of entries 10", [-3]),
    "two last entries lost": Damage(_lost(10, 11), "seq 11 ≠ number of entries 9", [-24, 0]),
    "several lost in a row": Damage(
        _lost(3, 4), "entries 3 to 4 are missing, of -25 by the balances", [-25, 0]
    ),
    "several lost apart": Damage(_lost(1, 6, 11), "entry 6 is missing, of -7", [100, -7, -3]),
    "refunded charge lost among others": Damage(
        _lost(4, 5), "entry 5 charged 0, 2 were given back", [-20, 0]
    ),
    "refund lost": Damage(_lost(7), "refunded of entry 5 2 ≠ sum of its refunds 0", [2]),
    "amount altered": Damage(
        _entry(6, "amount_micros = -6"),
        "entry 6 remaining after 143 ≠ sum of entries up to it 144",
        [-1],
    ),
    "first amount altered": Damage(
        _entry(1, "amount_micros = 90"),
        "entry 1 remaining after 100 ≠ sum of entries up to it 90",
        [10],
    ),
    "last amount altered": Damage(
        _entry(11, "amount_micros = -5"),
        "entry 11 remaining after 117 ≠ sum of entries up to it 115",
        [2],
    ),
    "balance altered": Damage(
        _entry(6, "remaining_after_micros = 150"),
        "entry 6 remaining after 150 ≠ sum of entries up to it 143",
        [7, -7],
    ),
    "first balance altered": Damage(
        _entry(1, "remaining_after_micros = 99"),
        "entry 1 remaining after 99 ≠ sum of entries up to it 100",
        [-1, 1],
    ),
    "last balance altered": Damage(
        _entry(11, "remaining_after_micros = 107"),
        "entry 11 remaining after 107 ≠ sum of entries up to it 117",
        [-10, 10],
    ),
    "parts altered": Damage(
        _entry(6, "parts = '[[2, 9]]'"),
        "lot 2 available + held + repaid 17 ≠ its parts of entries 15",
        [2, -2],
    ),
    "parts of a lot that never was": Damage(
        _entry(6, "parts = '[[99, 7]]'"),
        "entries say -7 of lot 99, which does not exist",
        [7, -7],
    ),
    "kind altered to an expiry": Damage(
        _entry(6, "kind = 'EXPIRY', related_seq = 2"),
        "lot 2 expired 21 ≠ its EXPIRY entries 28",
        [],
    ),
    "kind altered to a debit": Damage(
        _entry(4, "kind = 'DEBIT'"), "reservation 'done' charged 15 ≠ sum of its entries 0", []
    ),
    "kind altered to a grant": Damage(
        _entry(7, "kind = 'GRANT'"), "refunded_micros 8 ≠ sum of its entries 6", [0]
    ),
    "kind altered to a capture": Damage(
        _entry(6, "kind = 'CAPTURE'"), "entry 6 is a CAPTURE of no reservation", [0]
    ),
    "kind of the wrong sign": Damage(
        _entry(6, "kind = 'GRANT'"), "entry 6 is a GRANT of -7", [0], lasting=True
    ),
    "kind altered to a refund": Damage(
        _entry(2, "kind = 'REFUND'"), "entry 2 is a REFUND of no charge", [0]
    ),
    "expiry altered to a debit": Damage(
        _entry(10, "kind = 'DEBIT'"), "entry 10 is a DEBIT that names entry 2", [0]
    ),
    "expiry of another lot": Damage(
        _entry(10, "related_seq = 1"), "lot 1 expired 0 ≠ its EXPIRY entries 21", [0]
    ),
    "capture of a hold that never was": Damage(
        _entry(4, "reservation_id = 'none'"), "charge reservation 'none', which does not exist", [0]
    ),
    "true-up of a hold that never was": Damage(
        _entry(9, "reservation_id = 'none'"),
        "charge reservation 'none', which does not exist",
        [0, 0],
    ),
    "refund of another charge": Damage(
        _entry(7, "related_seq = 6"), "refunded of entry 5 2 ≠ sum of its refunds 0", [0]
    ),
    "refund of no charge": Damage(
        _entry(7, "related_seq = NULL"), "entry 7 is a REFUND of no charge", [0, 0]
    ),
    "refund of a grant": Damage(
        _entry(7, "related_seq = 1"), "entry 1 charged 0, 2 were given back", [0, 0]
    ),
    "entry that nobody made": Damage(
        "INSERT INTO entry SELECT account_id, 12, 'DEBIT', -1, 116, now(), NULL, NULL, NULL,"
        f" '[]', NULL, NULL, NULL, NULL FROM account {ALICE_ONLY}",
        "seq 11 ≠ number of entries 12",
        [],
        99,
    ),
    "refunds forgotten": Damage(
        f"UPDATE charge_refund SET refunded_micros = 1 {ALICE_ONLY}",
        "refunded of entry 5 1 ≠ sum of its refunds 2",
        [],
    ),
    "refunds unknown": Damage(
        f"DELETE FROM charge_refund {ALICE_ONLY}",
        "refunded of entry 5 0 ≠ sum of its refunds 2",
        [],
    ),
    "refund of nothing": Damage(
        f"INSERT INTO charge_refund SELECT account_id, 6, 3 FROM account {ALICE_ONLY}",
        "refunded of entry 6 3 ≠ sum of its refunds 0",
        [0],
    ),
    "correction of nothing": Damage(
        "INSERT INTO entry SELECT account_id, 12, 'CORRECTION', 0, 117, now(), NULL, NULL, 99,"
        f" '[]', NULL, NULL, NULL, NULL FROM account {ALICE_ONLY}",
        "entry 12 corrects entry 99, which is not before it",
        [0],
    ),
    "key of nothing": Damage(
        "INSERT INTO claim SELECT 'live', 'DEBIT_ONCE', 'other', account_id, 99, '{}', '{}',"
        f" now() FROM account {ALICE_ONLY}",
        "the key 'other' of DEBIT_ONCE names entry 99, which does not exist",
        None,
    ),
    "request of nothing": Damage(
        "INSERT INTO account_claim SELECT account_id, 'DEBIT', 'other', 99, '{}', '{}',"
        f" now() FROM account {ALICE_ONLY}",
        "the key 'other' of DEBIT names entry 99, which does not exist",
        None,
    ),
    "key in another namespace": Damage(
        "INSERT INTO claim SELECT 'test', 'DEBIT_ONCE', 'other', account_id, 5, '{}', '{}',"
        f" now() FROM account {ALICE_ONLY}",
        "was used in namespace 'test' for an account of 'live'",
        None,
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_and_repaired(whole: Stored, owner: Owner, damage: Damage) -> None:
    with unfenced(owner):
        assert owner.execute(damage.statement.encode()).rowcount > 0
        found = verify(whole.url)
        assert any(damage.sentence in line for line in found.violations), found.violations
        assert {each.account for each in found.differences} == {ALICE}, "nobody else's fault"
        kept = contents.ledger(whole.session.connection, "live")

        (rebuilt,) = whole.do_all([Rebuild(ALICE)])
        assert isinstance(rebuilt, Rebuilt)
        after = contents.ledger(whole.session.connection, "live")
        assert [entry for entry in after if entry not in rebuilt.corrections] == kept
        left = verify(whole.url)
        if damage.corrected is None:
            assert not left.clean, "a person has to look"
            clear(owner)
            return
        assert left.violations == ()
        assert [entry.amount_micros for entry in rebuilt.corrections] == damage.corrected
        assert all(entry.kind is EntryKind.CORRECTION for entry in rebuilt.corrections)
        assert all(entry.reason and entry.metadata for entry in rebuilt.corrections)
        assert rebuilt.balance.available_micros == damage.available_micros
        check_it_is_left_alone(whole)
        if damage.lasting:
            check_it_works(whole)
            clear(owner)
            return
    check_it_works(whole)


def clear(owner: Owner) -> None:
    """Take what cannot be repaired away, so that the fences can come back."""
    owner.execute("TRUNCATE account, lot, reservation, charge_refund, entry, claim, account_claim")


def check_it_is_left_alone(whole: Stored) -> None:
    """Once it is sound, a rebuild writes nothing."""
    before = contents.rows(whole.session.connection, "live")
    (again,) = whole.do_all([Rebuild(ALICE)])
    assert isinstance(again, Rebuilt)
    assert again.corrections == []
    assert contents.rows(whole.session.connection, "live") == before


def check_it_works(whole: Stored) -> None:
    """Charges, holds and grants go through, and leave a sound ledger."""
    *outcomes, late = whole.do_each(
        [debit(1), reserve("new", 5), settle("new", 4), grant("more", 9), settle("open", 2)]
    )
    assert [type(outcome).__name__ for outcome in outcomes] == [
        *(kind.__name__ for kind in (Debited, Reserved, Settled)),
        "Granted",
    ], outcomes
    if isinstance(late, Rejected):
        assert late.reason is Reason.RESERVATION_RELEASED, "it was gone"
    else:
        assert isinstance(late, Settled)
    assert verify(whole.url).clean


def test_a_sound_account_gets_no_write(whole: Stored, owner: Owner) -> None:
    before = owner.execute("SELECT *, xmin FROM account ORDER BY account_id").fetchall()
    outcomes = [whole.do_all([Rebuild(key)])[0] for key in (ALICE, BOB, CAROL)]
    assert all(isinstance(outcome, Rebuilt) and not outcome.corrections for outcome in outcomes)
    assert owner.execute("SELECT *, xmin FROM account ORDER BY account_id").fetchall() == before


def test_debt_and_holds_on_credit_are_repaired_too(whole: Stored, owner: Owner) -> None:
    bob = f"WHERE account_id = '{account_id_of(BOB)}'"
    before = verify(whole.url)
    for damage in (
        f"UPDATE account SET debt_micros = 0 {bob}",
        f"UPDATE account SET held_on_credit_micros = 0 {bob}",
        f"UPDATE reservation SET on_credit_micros = 0 {bob}",
        f"UPDATE lot SET available_micros = 7 {bob}",
        f"DELETE FROM lot {bob}",
    ):
        with unfenced(owner):
            owner.execute(damage.encode())
            assert not verify(whole.url).clean
            (rebuilt,) = whole.do_all([Rebuild(BOB)])
            assert isinstance(rebuilt, Rebuilt)
            assert rebuilt.corrections == []
        assert verify(whole.url) == before, damage


def test_a_revocation_that_is_lost_and_was_undone(whole: Stored, owner: Owner) -> None:
    """Nothing can be revoked less than not at all: what stands in for it counts as revoked."""
    revoke = RevokeGrant(ALICE, "gift", amount_micros=40)
    whole.do_all([revoke, ReinstateGrant(ALICE, "gift")])
    before = verify(whole.url)
    with unfenced(owner):
        owner.execute(_lost(12).encode())
        (rebuilt,) = whole.do_all([Rebuild(ALICE)])
    assert isinstance(rebuilt, Rebuilt)
    assert [entry.amount_micros for entry in rebuilt.corrections] == [-40, 0]
    assert verify(whole.url) == before._replace(entries=before.entries + 1)
    check_it_is_left_alone(whole)


@pytest.mark.parametrize("table", ["claim", "account_claim"])
def test_the_owner_removes_keys_that_name_nothing(whole: Stored, owner: Owner, table: str) -> None:
    damage = DAMAGES["key of nothing" if table == "claim" else "request of nothing"]
    owner.execute(damage.statement.encode())
    (kept,) = remove_stray_claims(whole.url, ALICE, Rules(), actor="a test")
    assert (kept.kind, kept.amount_micros, kept.seq) == (EntryKind.CORRECTION, 0, 12)
    assert kept.metadata is not None
    assert '"other"' in kept.metadata
    assert verify(whole.url).clean
    assert remove_stray_claims(whole.url, ALICE, Rules(), actor="a test") == []
    check_it_works(whole)


@pytest.mark.parametrize("nobody", [NOBODY, LAST_NOBODY])
def test_rows_of_nobody_are_found(whole: Stored, owner: Owner, nobody: str) -> None:
    """From the first account that there can be to the last."""
    columns = ", ".join(
        row[0]
        for row in owner.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_name = 'lot' AND column_name <> 'account_id'"
        )
    )
    owner.execute(
        f"INSERT INTO lot (account_id, {columns}) SELECT '{nobody}', {columns} FROM lot"
        f" {FIRST_LOT}".encode()
    )
    violations = verify(whole.url).violations
    assert f"1 rows of lot have no account {nobody}" in violations


def test_what_an_account_leaves_behind_is_found(whole: Stored, owner: Owner) -> None:
    owner.execute(
        "INSERT INTO allowance SELECT account_id, 5, 'OFF', now(), 10, NULL, NULL FROM account"
    )
    owner.execute(
        "INSERT INTO pending_grant SELECT account_id, 'later', 5, now(), 'REVOKED', 0, 50, 'PAID',"
        " NULL, now(), '', NULL, NULL, NULL, NULL, '{\"\": [1000000, 0, 0, 0]}' FROM account"
    )
    assert verify(whole.url).clean
    owner.execute("DELETE FROM account")
    violations = "\n".join(verify(whole.url).violations)
    for table in (
        "lot",
        "reservation",
        "charge_refund",
        "entry",
        "claim",
        "account_claim",
        "allowance",
        "pending_grant",
    ):
        assert f"rows of {table} have no account" in violations


def test_a_refill_that_is_not_waited_for_is_found_and_repaired(whole: Stored, owner: Owner) -> None:
    owner.execute(
        "INSERT INTO allowance SELECT account_id, 5, 'DAILY', now(), 10, NULL, '2026-01-02'"
        f" FROM account {ALICE_ONLY}".encode()
    )
    assert any("next expiry" in line for line in verify(whole.url).violations)
    whole.do_all([Rebuild(ALICE)])
    assert verify(whole.url).clean


def test_too_many_missing_entries_are_left_to_a_person(whole: Stored, owner: Owner) -> None:
    before = contents.rows(whole.session.connection, "live")["account"]
    owner.execute("ALTER TABLE entry DISABLE TRIGGER ALL")
    owner.execute(_entry(11, "seq = 2000").encode())
    assert any("entries 11 to 1999 are missing" in line for line in verify(whole.url).violations)
    (rebuilt,) = whole.do_all([Rebuild(ALICE)])
    assert isinstance(rebuilt, Rebuilt)
    assert rebuilt.corrections == []
    assert contents.rows(whole.session.connection, "live")["account"] == before


@pytest.mark.parametrize("slices", [2, 7])
def test_it_works_in_slices_on_two_connections(whole: Stored, owner: Owner, slices: int) -> None:
    told: list[tuple[int, int]] = []
    owner.execute(_total("seq").encode())
    expected = verify(whole.url)
    assert not expected.clean
    found = verify(whole.url, slices=slices, progress=lambda *done: told.append(done))
    assert found == expected
    steps = len(told)
    assert told == [(number, steps) for number in range(1, steps + 1)]


def test_it_does_not_stand_in_the_way(whole: Stored, owner: Owner) -> None:
    """What is written after it began is not looked at, and not waited for."""
    whole.session.connection.execute("BEGIN")
    whole.session.connection.execute("SELECT FROM account FOR UPDATE")
    assert verify(whole.url).clean
