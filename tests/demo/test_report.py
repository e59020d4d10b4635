"""The books, the sum and the verdict: right when all is well, and loud when it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.text import Text

import meterhold
from meterhold_server.core.differences import Difference
from meterhold_server.demo.books import AccountBook, CallTimes, Tally
from meterhold_server.demo.report import credits_text, equation, verdict
from meterhold_server.storage.verify import Found, Verification

BALANCE = meterhold.Balance(
    ledger_seq=7,
    granted_micros=1000,
    spent_micros=650,
    refunded_micros=50,
    expired_micros=100,
    revoked_micros=0,
    remaining_micros=300,
    held_micros=0,
    available_micros=300,
    debt_micros=0,
    credit_limit_micros=0,
)
BOOK = AccountBook(granted_micros=1000, settled_micros=500, expiry_charged_micros=100)
NEGATIVE = Found("", None, Difference("lot 1", -1, 0, "a lot is negative"))
VERIFIED = Verification(
    accounts=2,
    entries=9,
    granted_micros=5_000_000,
    spent_micros=3_000_000,
    expired_micros=500_000,
    held_micros=250_000,
    available_micros=1_250_000,
)


def test_books_that_agree_have_no_differences() -> None:
    assert list(BOOK.differences("alice", BALANCE)) == []


@pytest.mark.parametrize(
    ("balance", "names"),
    [
        (replace(BALANCE, granted_micros=1001), ["granted", "available"]),
        (replace(BALANCE, spent_micros=651), ["spent", "available"]),
        (replace(BALANCE, refunded_micros=49), ["spent", "available"]),
        (replace(BALANCE, held_micros=1, available_micros=299), ["held", "available"]),
        (replace(BALANCE, available_micros=301), ["available"]),
    ],
)
def test_every_difference_is_named(balance: meterhold.Balance, names: list[str]) -> None:
    found = list(BOOK.differences("alice", balance))

    assert [text.split()[:2] for text in found] == [["alice:", name] for name in names]


def test_the_sum_is_exact_in_credits_and_in_micros() -> None:
    exact, text = equation(VERIFIED)

    assert exact
    assert text.plain.splitlines() == [
        "granted = spent + expired + held + available",
        "5.000000 = 3.000000 + 0.500000 + 0.250000 + 1.250000 credits",
        "5,000,000 = 3,000,000 + 500,000 + 250,000 + 1,250,000 micros",
    ]


def test_a_micro_too_few_shows() -> None:
    exact, text = equation(VERIFIED._replace(available_micros=1_249_999))

    assert not exact
    assert "≠" in text.plain


def test_refunds_and_revocations_count() -> None:
    exact, text = equation(VERIFIED._replace(refunded_micros=7, revoked_micros=7))

    assert exact
    assert text.plain.startswith("granted + refunded = spent + expired + revoked + held + ")


def test_a_verdict_names_what_is_wrong_and_not_more_than_can_be_read() -> None:
    tally = Tally(problems=[f"problem {number}" for number in range(25)])

    lines = [text.plain for text in verdict(tally, VERIFIED._replace(differences=(NEGATIVE,)))]

    assert lines[:2] == ["2 accounts, 9 entries: 1 violations", "  a lot is negative"]
    assert lines[2] == "books kept by the callers: 25 violations"
    assert lines[-2:] == ["  problem 19", "  and 5 more"]


def test_a_good_verdict_says_what_was_checked() -> None:
    assert list(verdict(Tally(), VERIFIED)) == [
        Text("2 accounts, 9 entries: every invariant holds", style="green"),
        Text("books kept by the callers: every answer and balance agrees", style="green"),
    ]


@pytest.mark.parametrize(
    ("micros", "text"),
    [(0, "0.000000"), (1, "0.000001"), (-1_500_000, "-1.500000"), (1_234_000_000, "1,234.000000")],
)
def test_credits_are_written_exactly(micros: int, text: str) -> None:
    assert credits_text(micros) == text


def test_a_percentile_is_the_nearest_rank() -> None:
    times = CallTimes([number * 1_000_000 for number in range(200, 0, -1)])

    assert (times.percentile_ms(50), times.percentile_ms(99)) == (100.0, 198.0)
    assert CallTimes().percentile_ms(99) == 0.0
