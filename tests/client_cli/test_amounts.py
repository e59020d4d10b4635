"""Amounts are exact, and nothing is an amount that could be read in two ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterhold.cli import amounts
from meterhold.cli.exit_codes import UsageError

MICROS_MAX = 2**63 - 1


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1cr", 1_000_000),
        ("1.5cr", 1_500_000),
        ("1.5 cr", 1_500_000),
        ("1.5credits", 1_500_000),
        ("1 credit", 1_000_000),
        ("0.000001cr", 1),
        ("0.1cr", 100_000),
        ("4.35cr", 4_350_000),
        ("0cr", 0),
        ("007cr", 7_000_000),
        ("1_000.000_001cr", 1_000_000_001),
        ("1500000micros", 1_500_000),
        ("1_500_000 micros", 1_500_000),
        ("0micros", 0),
        ("1000000000cr", 10**15),
        (f"{MICROS_MAX}micros", MICROS_MAX),
    ],
)
def test_an_amount_with_its_unit(text: str, micros: int) -> None:
    assert amounts.parse(text, bare_is_micros=False) == micros


@pytest.mark.parametrize(
    ("text", "micros"), [("10", 10), ("1_000", 1000), ("10micros", 10), ("0", 0)]
)
def test_with_the_flag_a_bare_number_is_in_micros(text: str, micros: int) -> None:
    assert amounts.parse(text, bare_is_micros=True) == micros


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10", "10 has no unit: write 10cr for credits, or 10micros or --micros for micros"),
        ("10", "(0.000010cr)"),
        ("1.5", "1.5 has no unit: write 1.5cr for credits"),
        ("1.0000001cr", "has 7 decimals; a credit has 6"),
        ("1.0000000cr", "has 7 decimals"),
        ("1.5micros", "not a whole number of micros"),
        ("-1cr", "is negative"),
        ("99999999999999cr", "is too large: one call moves at most 1_000_000_000cr"),
        (f"{MICROS_MAX + 1}micros", "is too large"),
        ("9" * 5000 + "cr", "is not an amount"),
        ("", "'' is not an amount: write 1.5cr, or 1500000micros"),
        ("cr", "is not an amount"),
        ("+1cr", "is not an amount"),
        (".5cr", "is not an amount"),
        ("1.cr", "is not an amount"),
        ("1,5cr", "is not an amount"),
        ("1,000cr", "is not an amount"),
        ("1__0cr", "is not an amount"),
        ("_1cr", "is not an amount"),
        ("1e3cr", "is not an amount"),
        ("0x10micros", "is not an amount"),
        ("1 0cr", "is not an amount"),
        ("1CR", "is not an amount"),
        ("1u", "is not an amount"),
        ("1cr ", "is not an amount"),
        ("1cr\n", "is not an amount"),
        ("١cr", "is not an amount"),
        ("nancr", "is not an amount"),
    ],
)
def test_what_is_not_an_amount(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        amounts.parse(text, bare_is_micros=False)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1cr", "is in credits, and --micros says that amounts are in micros"),
        ("1.5", "not a whole number of micros"),
        ("-1", "is negative"),
    ],
)
def test_what_is_not_an_amount_in_micros(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        amounts.parse(text, bare_is_micros=True)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("micros", "shown", "shown_in_micros"),
    [
        (1_500_000, "1.500000", "1500000"),
        (0, "0.000000", "0"),
        (1, "0.000001", "1"),
        (-1, "-0.000001", "-1"),
        (-1_500_000, "-1.500000", "-1500000"),
        (9 * 10**18, "9000000000000.000000", "9000000000000000000"),
    ],
)
def test_an_amount_is_shown_in_full(micros: int, shown: str, shown_in_micros: str) -> None:
    assert amounts.shown(micros, in_micros=False) == shown
    assert amounts.shown(micros, in_micros=True) == shown_in_micros


@given(st.integers(0, MICROS_MAX))
def test_what_is_shown_reads_as_the_same_amount(micros: int) -> None:
    assert amounts.parse(f"{amounts.shown(micros, in_micros=False)}cr", bare_is_micros=False) == (
        micros
    )
    assert amounts.parse(amounts.shown(micros, in_micros=True), bare_is_micros=True) == micros
