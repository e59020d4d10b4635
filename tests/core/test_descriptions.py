"""Every entry has a text that can be shown to anybody."""

from __future__ import annotations

import re

import pytest

from meterhold_server.core.descriptions import description
from meterhold_server.core.model import AMOUNT_MICROS_MAX, BALANCE_MICROS_MAX, EntryKind

AMOUNTS = (1, 7, AMOUNT_MICROS_MAX, BALANCE_MICROS_MAX)


@pytest.mark.parametrize("kind", EntryKind)
def test_every_kind_has_one_of_plain_words(kind: EntryKind) -> None:
    for amount in (*AMOUNTS, 0, *(-amount for amount in AMOUNTS)):
        assert re.fullmatch(r"[A-Z][a-z]+(:? [a-z]+)*", description(kind, amount))


@pytest.mark.parametrize("kind", EntryKind)
def test_it_depends_on_nothing_but_the_kind_and_the_sign(kind: EntryKind) -> None:
    assert len({description(kind, amount) for amount in AMOUNTS}) == 1
    assert len({description(kind, -amount) for amount in AMOUNTS}) == 1


@pytest.mark.parametrize("kind", set(EntryKind) - {EntryKind.CORRECTION})
def test_only_corrections_are_told_apart_by_their_sign(kind: EntryKind) -> None:
    assert description(kind, 5) == description(kind, -5) == description(kind, 0)


def test_a_correction_says_which_way_it_goes() -> None:
    assert len({description(EntryKind.CORRECTION, amount) for amount in (-5, 0, 5)}) == 3


def test_what_a_charge_is_called_does_not_tell_how_it_was_made() -> None:
    assert description(EntryKind.DEBIT, -5) == description(EntryKind.CAPTURE, -5) == "Usage"
