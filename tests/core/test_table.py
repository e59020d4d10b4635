"""The language of the tables is strict: a slip in a test never passes for a test."""

from __future__ import annotations

import pytest

from .table import TableError, check


@pytest.mark.parametrize(
    "row",
    [
        "grant gift 100 | granted 99",
        "grant gift 100 | granted 100 replayed",
        "grant gift 100 | granted 100 repaid=1",
        "grant gift 100 | granted 100 available=99",
        "grant gift 100 | granted 100 100",
        "grant gift 100 | held 100",
        "balance available=1",
        "lots 1:1",
        "ledger GRANT+1",
        "debit 1 | refused BALANCE_OUT_OF_RANGE",
        "debit 1 | refused INSUFFICIENT_CREDITS required=2",
    ],
)
def test_a_row_that_is_not_so_fails(row: str) -> None:
    with pytest.raises(AssertionError):
        check(row)


@pytest.mark.parametrize(
    "row",
    [
        "grant gift 100",
        "grant gift 100 | granted 100 colour=1",
        "grant gift 100 until=5m | granted 100",
        "grant gift 100 category=paid category=paid | granted 100",
        "grant gift 1.5 | granted 1",
        "grant gift 100 expires=5 | granted 100",
        "give gift 100 | granted 100",
        "debit 1 extra | debited 1",
        "debit 1 usage=openai | debited 1",
        "balance colour=1",
        "balance available",
        "at noon",
    ],
)
def test_a_word_that_the_language_does_not_have_fails(row: str) -> None:
    with pytest.raises(TableError):
        check(row)


def test_a_failure_names_its_row() -> None:
    with pytest.raises(AssertionError) as failure:
        check("""
            grant gift 100 | granted 100
            balance available=100 spent=1
        """)
    assert failure.value.__notes__ == ["in row 3: balance available=100 spent=1"]
    assert "spent=1" in str(failure.value)
    assert "spent=0" in str(failure.value)


def test_the_clock_never_goes_back() -> None:
    with pytest.raises(TableError, match="forward"):
        check("""
            at 1h30m
            at 1h
        """)
