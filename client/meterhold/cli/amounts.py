"""Amounts as people write them, exactly: 1 cr = 1 000 000 micros of the account's unit."""

from __future__ import annotations

import re

from meterhold.cli.exit_codes import UsageError

MICROS_PER_CREDIT = 1_000_000
_DECIMALS = 6
_MICROS_MAX = 2**63 - 1  # what the wire can carry; the server has a limit of its own
_CHARACTERS_MAX = 64

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_AMOUNT = re.compile(rf"(-?)({_DIGITS})(?:\.({_DIGITS}))? *(cr|credits?|micros)?")


def parse(text: str, *, bare_is_micros: bool) -> int:
    """Answer the micros that `text` says: `1.5cr`, `1500000micros`.

    A number without a unit is refused unless `bare_is_micros`, and then one in credits is. Raises
    UsageError, which says how to write it.
    """
    found = _AMOUNT.fullmatch(text) if len(text) <= _CHARACTERS_MAX else None
    if found is None:
        raise UsageError(f"{text!r} is not an amount: write 1.5cr, or 1500000micros")
    sign, whole, fraction, unit = found[1], found[2], found[3] or "", found[4]
    if sign:
        raise UsageError(f"{text!r} is negative; no amount is")
    if unit is None and not bare_is_micros:
        raise UsageError(_without_unit(whole, fraction))
    if unit in (None, "micros"):
        micros = _whole_micros(text, whole, fraction)
    elif bare_is_micros:
        raise UsageError(f"{text!r} is in credits, and --micros says that amounts are in micros")
    else:
        micros = _credits(text, whole, fraction)
    if micros > _MICROS_MAX:
        raise UsageError(f"{text!r} is too large: one call moves at most 1_000_000_000cr")
    return micros


def shown(micros: int, *, in_micros: bool) -> str:
    """Write an amount for people: credits with six decimals, or micros; `parse` reads its digits.

    >>> shown(-1_500_000, in_micros=False)
    '-1.500000'
    """
    if in_micros:
        return str(micros)
    whole, fraction = divmod(abs(micros), MICROS_PER_CREDIT)
    return f"{'-' if micros < 0 else ''}{whole}.{fraction:0{_DECIMALS}}"


def _credits(text: str, whole: str, fraction: str) -> int:
    digits = fraction.replace("_", "")
    if len(digits) > _DECIMALS:
        raise UsageError(f"{text!r} has {len(digits)} decimals; a credit has {_DECIMALS}")
    return int(whole) * MICROS_PER_CREDIT + int(digits.ljust(_DECIMALS, "0"))


def _whole_micros(text: str, whole: str, fraction: str) -> int:
    if fraction:
        raise UsageError(f"{text!r} is not a whole number of micros")
    return int(whole)


def _without_unit(whole: str, fraction: str) -> str:
    if fraction:
        return f"{whole}.{fraction} has no unit: write {whole}.{fraction}cr for credits"
    return (
        f"{whole} has no unit: write {whole}cr for credits, or {whole}micros or --micros for "
        f"micros ({shown(int(whole), in_micros=False)}cr)"
    )
