"""A rebuild never makes credits: of no charge can more be given back after it than before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from core.book import ALICE, reserve, settle
from meterhold_server.core.operations import Rebuild, RefundCharge
from meterhold_server.core.outcomes import Reason, Rebuilt, Refunded, Rejected
from meterhold_server.storage.verify import verify

from .conftest import SetClock
from .damage import ALICE_ONLY, live, unfenced
from .stored import Stored

CLEAR = b"TRUNCATE account, lot, reservation, charge_refund, entry, claim, account_claim"
"""What some entries say, no constraint takes back."""

Owner = psycopg.Connection[Any]


@pytest.fixture
def owner(whole: Stored, set_clock: SetClock) -> Iterator[Owner]:
    live(whole, set_clock)
    with psycopg.connect(whole.url, autocommit=True) as connection:
        yield connection


class Damage(NamedTuple):
    """What is done, and what may be given back after the repair of which entry."""

    statement: str
    seq: int
    refundable_micros: int


def _entry(seq: int, change: str) -> str:
    return f"UPDATE entry SET {change} {ALICE_ONLY} AND seq = {seq}"


def _known(micros: int) -> str:
    return f"UPDATE charge_refund SET refunded_micros = {micros} {ALICE_ONLY} AND charge_seq = 5"


REFUND = f"DELETE FROM entry {ALICE_ONLY} AND seq = 7"
DAMAGES = {
    "refund lost": Damage(REFUND, 5, 3),
    "refund became a grant": Damage(_entry(7, "kind = 'GRANT'"), 5, 3),
    "refund shrank": Damage(_entry(7, "amount_micros = 1"), 5, 3),
    "refund grew past the charge": Damage(_entry(7, "amount_micros = 9"), 5, 0),
    "refund left its charge": Damage(_entry(7, "related_seq = 6"), 5, 3),
    "refund found another charge": Damage(_entry(7, "related_seq = 6"), 6, 5),
    "less is known": Damage(_known(1), 5, 3),
    "more is known": Damage(_known(4), 5, 1),
    "more is known than was charged": Damage(_known(500), 5, 0),
    "nothing is known": Damage(f"DELETE FROM charge_refund {ALICE_ONLY}", 5, 3),
    "charge grew": Damage(_entry(6, "amount_micros = -50"), 6, 7),
    "refunded charge grew": Damage(_entry(5, "amount_micros = -50"), 5, 3),
    "charge shrank": Damage(_entry(6, "amount_micros = -1"), 6, 1),
    "refunded charge shrank": Damage(_entry(5, "amount_micros = -1"), 5, 0),
    "balance after a charge": Damage(_entry(6, "remaining_after_micros = 150"), 6, 7),
    "charge became a capture": Damage(_entry(6, "kind = 'CAPTURE'"), 6, 7),
    "expiry became a debit": Damage(_entry(10, "kind = 'DEBIT'"), 10, 0),
    "grant became a debit": Damage(_entry(2, "kind = 'DEBIT'"), 2, 0),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_no_more_can_be_refunded(whole: Stored, owner: Owner, damage: Damage) -> None:
    left = damage.refundable_micros
    with unfenced(owner):
        assert owner.execute(damage.statement.encode()).rowcount > 0
        whole.do_all([Rebuild(ALICE)])
        assert verify(whole.url).violations == ()

        (refusal,) = whole.do_all([RefundCharge(ALICE, "more", damage.seq, left + 1)])
        assert refusal == Rejected(Reason.REFUND_EXCEEDS_CHARGE, {"refundable_micros": left})
        if left:
            (refunded,) = whole.do_all([RefundCharge(ALICE, "rest", damage.seq, left)])
            assert isinstance(refunded, Refunded)
        (refusal,) = whole.do_all([RefundCharge(ALICE, "all", damage.seq, 0)])
        assert refusal == Rejected(Reason.REFUND_EXCEEDS_CHARGE, {"refundable_micros": 0})
        assert verify(whole.url).violations == ()
        owner.execute(CLEAR)


def test_the_stand_in_names_the_charge(whole: Stored, owner: Owner) -> None:
    with unfenced(owner):
        owner.execute(REFUND.encode())
        (rebuilt,) = whole.do_all([Rebuild(ALICE)])
    assert isinstance(rebuilt, Rebuilt)
    (stand_in,) = rebuilt.corrections
    assert (stand_in.seq, stand_in.amount_micros, stand_in.related_seq) == (7, 2, 0)
    assert stand_in.metadata == (
        '{"charge_seq":"5","stored_micros":"0","expected_micros":"2","refunded_micros":"2"}'
    )


def test_a_hold_that_is_gone_is_over(whole: Stored, owner: Owner) -> None:
    """Its id stays used, so that no repetition of its Reserve can hold, or be charged, again."""
    with unfenced(owner):
        owner.execute(
            f"DELETE FROM reservation {ALICE_ONLY} AND reservation_id IN ('open', 'done')".encode()
        )
        (rebuilt,) = whole.do_all([Rebuild(ALICE)])
    assert isinstance(rebuilt, Rebuilt)
    assert {(entry.reservation_id, entry.reason) for entry in rebuilt.corrections} == {
        ("open", "reservation 'open' was gone, and is released"),
        ("done", "reservation 'done' was gone, and is released"),
    }
    outcomes = whole.do_each([reserve("open", 30), settle("open", 2), settle("done", 15)])
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)] == [
        Reason.IDEMPOTENCY_MISMATCH,
        Reason.RESERVATION_RELEASED,
        Reason.RESERVATION_RELEASED,
    ]
    assert verify(whole.url).clean
