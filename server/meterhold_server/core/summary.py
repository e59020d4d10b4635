"""What a rebuild has to know of an account's whole history: sums of it and where it breaks.

An account may have millions of entries, so that they themselves are never loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from meterhold_server.core.model import Entry


class Break(NamedTuple):
    """An entry whose `remaining_after_micros` does not follow from the entry before it.

    `change_micros` is by how much, once earlier corrections of it are counted. When `seq_before`
    is not the number before, the entries between are missing, and it is what they moved.
    `contradicts` says that the entry contradicts itself, and no correction explains it.
    """

    entry: Entry
    seq_before: int
    remaining_before_micros: int
    change_micros: int
    contradicts: bool

    @property
    def missing(self) -> range:
        return range(self.seq_before + 1, self.entry.seq)


class HoldCharges(NamedTuple):
    """What the entries of a reservation charged: captures, at its expiry, and as corrections."""

    captured_micros: int
    at_expiry_micros: int
    corrected_micros: int

    @property
    def micros(self) -> int:
        return sum(self)


class LostReservation(NamedTuple):
    """When the entries were written of a reservation that is gone."""

    first_time: datetime
    last_time: datetime


class RefundSums(NamedTuple):
    """What entries say of one charge.

    `micros` is what they gave back of it, `explained` whether a correction is among those that say
    so. `charged_micros` is the amount of the charge, below 0 if it is none and 0 if it is missing,
    and `corrected_micros` by how much more corrections of it charged.
    """

    micros: int = 0
    explained: bool = False
    charged_micros: int = 0
    corrected_micros: int = 0


class Opening(NamedTuple):
    """The entry that opened a lot which is missing, and the request of its grant if it had one."""

    entry: Entry
    request: dict[str, Any] | None


@dataclass(slots=True)
class Summary:
    """The ledger of one account in sums, as its entries say; all amounts in micro-units.

    `parts`, `lots_expired` and `lots_revoked` are by lot, `charged` by reservation, and `refunded`
    by charge, of those that do not agree with what is known or that `breaks` name.
    With it, the account has all its lots, and of its reservations and refunds at least those that
    are active or do not agree with the entries. `lost_reservations` have entries and no row.
    `other_time` is when its allowance or a pending grant is due.
    """

    entries: int = 0
    last_seq: int = 0
    last_remaining_micros: int = 0
    total_micros: int = 0
    granted_micros: int = 0
    spent_micros: int = 0
    expired_micros: int = 0
    refunded_micros: int = 0
    revoked_micros: int = 0
    pending_micros: int = 0
    breaks: list[Break] = field(default_factory=list)
    parts: dict[int, int] = field(default_factory=dict)
    lots_expired: dict[int, int] = field(default_factory=dict)
    lots_revoked: dict[int, int] = field(default_factory=dict)
    charged: dict[str, HoldCharges] = field(default_factory=dict)
    refunded: dict[int, RefundSums] = field(default_factory=dict)
    lost_reservations: dict[str, LostReservation] = field(default_factory=dict)
    openings: dict[int, Opening] = field(default_factory=dict)
    other_time: datetime | None = None
