"""How much of everything a run must have done, so that it cannot pass by doing nothing.

Of every 40 000 operations. A run does about three times as much; one of fewer operations is too
short for what takes time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

PER: Final = 40_000

OPERATIONS: Final = {
    "Reserve": 4000,
    "Settle": 2500,
    "Release": 350,
    "Extend": 700,
    "Debit": 1300,
    "DebitOnce": 700,
    "GrantOnce": 1600,
    "RefundCharge": 900,
    "RevokeGrant": 1000,
    "ReinstateGrant": 450,
    "Configure": 300,
    "ConfigureDefaults": 40,
    "Expire": 200,
}
OUTCOMES: Final = {
    "Reserved": 1700,
    "Settled": 1500,
    "Released": 250,
    "Extended": 300,
    "Debited": 1300,
    "Granted": 1200,
    "Refunded": 450,
    "Revoked": 800,
    "Reinstated": 300,
    "Elsewhere": 250,
    "Configured": 300,
    "DefaultsConfigured": 40,
    "Expired": 200,
}
REPLAYS: Final = {
    "Reserved": 150,
    "Settled": 120,
    "Extended": 20,
    "Debited": 80,
    "Granted": 180,
    "Refunded": 50,
}
REFUSALS: Final = {
    "RESERVATION_NOT_FOUND": 100,
    "IDEMPOTENCY_MISMATCH": 500,
    "RESERVATION_SETTLED": 140,
    "RESERVATION_RELEASED": 50,
    "RESERVATION_EXPIRED": 50,
    "ENTRY_NOT_FOUND": 60,
    "GRANT_NOT_FOUND": 60,
    "SOURCE_MISMATCH": 70,
    "GRANT_REVOKED": 20,
    "INVALID_FIELD": 130,
    "REFUND_EXCEEDS_CHARGE": 140,
    "ACCOUNT_FROZEN": 250,
    "INSUFFICIENT_CREDITS": 1100,
}
ENTRIES: Final = {
    "GRANT": 1200,
    "DEBIT": 1300,
    "CAPTURE": 1200,
    "EXPIRY": 400,
    "EXPIRY_CHARGE": 150,
    "REFUND": 500,
    "ALLOWANCE": 60,
    "REVOCATION": 450,
    "REINSTATEMENT": 45,
}
ACCOUNTS: Final = {"accounts": 480}
"""Of 500: the second one of each caller begins in the second half."""


def missing(counts: Mapping[str, int], floors: Mapping[str, int], operations: int) -> list[str]:
    """What there is too little of, in a run of so many operations."""
    least = Counter({name: floor * operations // PER for name, floor in floors.items()})
    return [
        f"{counts.get(name, 0)} {name}, at least {floor} are expected"
        for name, floor in least.items()
        if counts.get(name, 0) < floor
    ]
