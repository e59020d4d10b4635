"""As what each entry counts, also where it contradicts itself.

The database refuses most contradictions, so that only damage makes them. History is never changed:
a CORRECTION that names such an entry in `related_seq` explains it. `storage.counting` says the same
in SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NamedTuple

from meterhold_server.core.model import REFUNDABLE, Entry, EntryKind

_POSITIVE: Final = frozenset(
    {EntryKind.GRANT, EntryKind.REFUND, EntryKind.ALLOWANCE, EntryKind.REINSTATEMENT}
)
_CHARGES_OF_HOLDS: Final = frozenset({EntryKind.CAPTURE, EntryKind.EXPIRY_CHARGE})


class Total(StrEnum):
    """What a CORRECTION may count beside its own amount: of a charge, a lot, or a reservation."""

    REFUNDED = "refunded_micros"
    EXPIRED = "expired_micros"
    REVOKED = "revoked_micros"
    CHARGED = "charged_micros"


_NUMBER: Final = re.compile('"([a-z_]{1,30})":"(-?[0-9]{1,19})"')
_NUMBERS: Final = re.compile("[{]%s(?:,%s)*[}]" % ((_NUMBER.pattern,) * 2))
_SEQ_OF: Final = {Total.REFUNDED: "charge_seq", Total.EXPIRED: "lot_seq", Total.REVOKED: "lot_seq"}


class Beside(NamedTuple):
    """So many micros more of a total, or less if below 0, than the other entries say.

    `seq` is that of the charge or of the lot; of a reservation it is 0.
    """

    total: Total
    seq: int
    micros: int

    def fields(self) -> dict[str, str]:
        """What it is in the metadata of its CORRECTION."""
        said = {self.total.value: str(self.micros)}
        return said | ({_SEQ_OF[self.total]: str(self.seq)} if self.total in _SEQ_OF else {})


def counted_kind(entry: Entry) -> EntryKind:
    """The kind that an entry counts as: its own, or CORRECTION if its sign is not of its kind."""
    rightly_signed = (entry.amount_micros > 0) == (entry.kind in _POSITIVE)
    return entry.kind if rightly_signed else EntryKind.CORRECTION


def corrected_seq(entry: Entry) -> int:
    """The entry that a CORRECTION counts in the place of: an earlier one. 0 if in its own."""
    corrects = entry.kind is EntryKind.CORRECTION and 0 < entry.related_seq < entry.seq
    return entry.related_seq if corrects else 0


def contradiction(entry: Entry) -> str:
    """What an entry says that cannot be, in plain words; empty if nothing."""
    what = f"entry {entry.seq} is a {entry.kind}"
    if entry.kind is EntryKind.CORRECTION:
        if entry.related_seq and not corrected_seq(entry):
            return f"entry {entry.seq} corrects entry {entry.related_seq}, which is not before it"
    elif entry.amount_micros == 0 or counted_kind(entry) is EntryKind.CORRECTION:
        return f"{what} of {entry.amount_micros}"
    elif entry.kind in _CHARGES_OF_HOLDS and not entry.reservation_id:
        return f"{what} of no reservation"
    elif entry.kind in REFUNDABLE and entry.related_seq:
        return f"{what} that names entry {entry.related_seq}"
    elif entry.kind is EntryKind.REFUND and not entry.related_seq:
        return f"{what} of no charge"
    return ""


def charges_hold(entry: Entry) -> bool:
    """Whether an entry counts in what its reservation was charged.

    A late settle gives back without a key. Where the kind is wrong, what else a charge has and has
    not tells that it was one: a charge names no entry, and a late settle names one.
    """
    kind = counted_kind(entry)
    if not entry.reservation_id:
        return False
    if kind is EntryKind.CORRECTION and entry.kind is not kind:
        gives_back = bool(entry.related_seq) and not entry.key
        return gives_back if entry.amount_micros > 0 else not entry.related_seq
    if kind is EntryKind.REFUND:
        return not entry.key
    return kind is EntryKind.CORRECTION or kind in _CHARGES_OF_HOLDS


def counted_beside(entry: Entry, total: Total) -> Beside | None:
    """What a CORRECTION counts of a total by its metadata, if it does."""
    if entry.kind is not EntryKind.CORRECTION:
        return None
    said = numbers(entry.metadata)
    seq = said.get(_SEQ_OF[total], "") if total in _SEQ_OF else "0"
    if total not in said or not re.fullmatch("-?[0-9]{1,18}", seq):
        return None
    return Beside(total, int(seq), int(said[total]))


def numbers(metadata: str | None) -> dict[str, str]:
    """Metadata that is nothing but whole numbers, as text by their names. Else empty."""
    return dict(_NUMBER.findall(metadata)) if metadata and _NUMBERS.fullmatch(metadata) else {}


def metadata_of(said: dict[str, str]) -> str:
    """Numbers as metadata, as they are read again: in the order of jsonb."""
    names = sorted(said, key=lambda name: (len(name), name))
    return "{" + ",".join(f'"{name}":"{said[name]}"' for name in names) + "}"


def not_spent(entries: Iterable[Entry]) -> dict[str, int]:
    """What corrections count as `expired` and `revoked` of lots, all together: not as spent then.

    The names are those of the lifetime totals. Micros, below 0 if they take it off.
    """
    sums = {"expired": 0, "revoked": 0}
    for entry in entries:
        for name, total in (("expired", Total.EXPIRED), ("revoked", Total.REVOKED)):
            if beside := counted_beside(entry, total):
                sums[name] += beside.micros
    return sums
