"""What an entry is called on an account's own activity page.

The texts depend on the kind and the sign alone, so that nothing of the caller's, or of another
account, can ever be in them.
"""

from __future__ import annotations

from typing import Final

from meterhold_server.core.model import EntryKind

_DESCRIPTIONS: Final = {
    EntryKind.GRANT: "Credits added",
    EntryKind.DEBIT: "Usage",
    EntryKind.CAPTURE: "Usage",
    EntryKind.EXPIRY: "Credits expired",
    EntryKind.EXPIRY_CHARGE: "Reserved credits charged",
    EntryKind.REFUND: "Refund",
    EntryKind.ALLOWANCE: "Allowance renewed",
    EntryKind.REVOCATION: "Purchase refunded",
    EntryKind.REINSTATEMENT: "Purchase restored",
    EntryKind.CORRECTION: "Correction",
}
_GIVEN: Final = {EntryKind.CORRECTION: "Correction: credits added"}
_TAKEN: Final = {EntryKind.CORRECTION: "Correction: credits removed"}


def description(kind: EntryKind, amount_micros: int) -> str:
    """A short English text for the account's owner, by the kind and the sign of the amount."""
    signed = _GIVEN if amount_micros > 0 else _TAKEN if amount_micros < 0 else {}
    return signed.get(kind) or _DESCRIPTIONS[kind]
