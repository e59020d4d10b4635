"""What can come of an operation. Outcomes are values: an exception in the core is a bug.

An outcome that a replay must say again knows how to become the `answer` of a `Receipt` and back.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from meterhold_server.core.model import (
    Account,
    AccountKey,
    Allowance,
    Balance,
    Claim,
    Defaults,
    Entry,
    OnExpiry,
    Receipt,
    Reservation,
)


class Reason(StrEnum):
    """Why an operation is refused, in the order in which every step checks."""

    RESERVATION_NOT_FOUND = "RESERVATION_NOT_FOUND"
    IDEMPOTENCY_MISMATCH = "IDEMPOTENCY_MISMATCH"
    RESERVATION_SETTLED = "RESERVATION_SETTLED"
    RESERVATION_RELEASED = "RESERVATION_RELEASED"
    RESERVATION_EXPIRED = "RESERVATION_EXPIRED"
    ENTRY_NOT_FOUND = "ENTRY_NOT_FOUND"
    GRANT_NOT_FOUND = "GRANT_NOT_FOUND"
    SOURCE_MISMATCH = "SOURCE_MISMATCH"
    GRANT_REVOKED = "GRANT_REVOKED"
    INVALID_FIELD = "INVALID_FIELD"
    REFUND_EXCEEDS_CHARGE = "REFUND_EXCEEDS_CHARGE"
    ACCOUNT_FROZEN = "ACCOUNT_FROZEN"
    INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
    BALANCE_OUT_OF_RANGE = "BALANCE_OUT_OF_RANGE"
    CHAIN_REFUSED = "CHAIN_REFUSED"


@dataclass(slots=True)
class Rejected:
    """Nothing happened, and nothing will. `details` are the numbers and names behind the reason."""

    reason: Reason
    details: dict[str, Any]


@dataclass(slots=True)
class Reserved:
    balance: Balance
    held_micros: int
    expire_time: datetime
    replayed: bool = False

    def answer(self) -> dict[str, Any]:
        return {
            "balance": list(self.balance),
            "held_micros": self.held_micros,
            "expire_time": self.expire_time.isoformat(),
        }

    @classmethod
    def again(cls, receipt: Receipt) -> Reserved:
        answer = receipt.answer
        return cls(
            Balance(*answer["balance"]),
            answer["held_micros"],
            datetime.fromisoformat(answer["expire_time"]),
            replayed=True,
        )


@dataclass(slots=True)
class Settled:
    """charged = from_hold + overage, and amount = charged + shortfall."""

    balance: Balance
    charged_micros: int
    from_hold_micros: int
    overage_micros: int
    shortfall_micros: int
    released_micros: int
    late: bool
    entry_seq: int
    replayed: bool = False

    def answer(self) -> dict[str, Any]:
        return {
            "balance": list(self.balance),
            "settled": [
                self.charged_micros,
                self.from_hold_micros,
                self.overage_micros,
                self.shortfall_micros,
                self.released_micros,
            ],
            "late": self.late,
            "entry_seq": self.entry_seq,
        }

    @classmethod
    def again(cls, receipt: Receipt) -> Settled:
        answer = receipt.answer
        charged, from_hold, overage, shortfall, released = answer["settled"]
        return cls(
            Balance(*answer["balance"]),
            charged,
            from_hold,
            overage,
            shortfall,
            released,
            answer["late"],
            answer["entry_seq"],
            replayed=True,
        )


@dataclass(slots=True)
class Released:
    balance: Balance
    changed: bool
    reservation: Reservation


@dataclass(slots=True)
class Extended:
    balance: Balance
    held_micros: int
    expire_time: datetime
    on_expiry: OnExpiry
    replayed: bool = False

    def answer(self) -> dict[str, Any]:
        return {
            "balance": list(self.balance),
            "held_micros": self.held_micros,
            "expire_time": self.expire_time.isoformat(),
            "on_expiry": self.on_expiry,
        }

    @classmethod
    def again(cls, receipt: Receipt) -> Extended:
        answer = receipt.answer
        return cls(
            Balance(*answer["balance"]),
            answer["held_micros"],
            datetime.fromisoformat(answer["expire_time"]),
            OnExpiry(answer["on_expiry"]),
            replayed=True,
        )


@dataclass(slots=True)
class Debited:
    balance: Balance
    entry: Entry
    replayed: bool = False

    def answer(self) -> dict[str, Any]:
        return {"balance": list(self.balance)}

    @classmethod
    def again(cls, claim: Claim) -> Debited:
        assert claim.entry is not None, "a debit always writes an entry"
        return cls(Balance(*claim.receipt.answer["balance"]), claim.entry, replayed=True)


@dataclass(slots=True)
class Granted:
    """`entry` is None if the grant is pending. `revoked_micros` were revoked before it came."""

    balance: Balance
    entry: Entry | None
    debt_repaid_micros: int = 0
    revoked_micros: int = 0
    replayed: bool = False

    @property
    def pending(self) -> bool:
        return self.entry is None

    def answer(self) -> dict[str, Any]:
        return {
            "balance": list(self.balance),
            "debt_repaid_micros": self.debt_repaid_micros,
            "revoked_micros": self.revoked_micros,
        }

    @classmethod
    def again(cls, claim: Claim) -> Granted:
        answer = claim.receipt.answer
        return cls(
            Balance(*answer["balance"]),
            claim.entry,
            answer["debt_repaid_micros"],
            answer.get("revoked_micros", 0),
            replayed=True,
        )


@dataclass(slots=True)
class Revoked:
    """What a revocation took. `tombstone`: the grant has not come, or is not effective yet."""

    account: AccountKey
    balance: Balance
    entry: Entry | None = None
    revoked_micros: int = 0
    grant_revoked_micros: int = 0
    tombstone: bool = False


@dataclass(slots=True)
class Reinstated:
    """What a reinstatement gave back, and how much of the grant is revoked still."""

    account: AccountKey
    balance: Balance
    entry: Entry | None = None
    reinstated_micros: int = 0
    grant_revoked_micros: int = 0
    tombstone: bool = False


@dataclass(slots=True)
class Elsewhere:
    """Nothing was done: the grant belongs to this account, which was not at hand."""

    account: AccountKey


@dataclass(slots=True)
class Expired:
    """What an account lost and got back because its time came, since it was last touched."""

    balance: Balance
    holds_released: int = 0
    holds_charged: int = 0
    lots_expired: int = 0
    allowances_refilled: int = 0
    grants_landed: int = 0


@dataclass(slots=True)
class Refunded:
    """`charge_refunded_micros` is what all refunds of the charge together have given back.

    `entry` is the first of two, if part of it went to lots and part got a grace time.
    """

    balance: Balance
    entry: Entry
    refunded_micros: int
    charge_refunded_micros: int
    replayed: bool = False

    def answer(self) -> dict[str, Any]:
        return {
            "balance": list(self.balance),
            "refunded_micros": self.refunded_micros,
            "charge_refunded_micros": self.charge_refunded_micros,
        }

    @classmethod
    def again(cls, claim: Claim) -> Refunded:
        assert claim.entry is not None, "a refund always writes an entry"
        answer = claim.receipt.answer
        return cls(
            Balance(*answer["balance"]),
            claim.entry,
            answer["refunded_micros"],
            answer["charge_refunded_micros"],
            replayed=True,
        )


@dataclass(slots=True)
class Configured:
    """What an account may do from now on."""

    balance: Balance
    holds_use_credit: bool
    frozen: bool
    create_time: datetime
    allowance: Allowance | None = None

    @classmethod
    def of(cls, account: Account) -> Configured:
        assert account.create_time is not None, "it exists"
        return cls(
            account.balance(),
            account.holds_use_credit,
            account.frozen,
            account.create_time,
            copy(account.allowance),
        )


@dataclass(slots=True)
class DefaultsConfigured:
    """What accounts get from now on when they are created."""

    defaults: Defaults


@dataclass(slots=True)
class Rebuilt:
    """What was posted to set an account right, and its balance after it."""

    balance: Balance
    corrections: list[Entry]


@dataclass(slots=True)
class Chained:
    """The outcomes of a chain, in order: none is Rejected, or all are.

    Those that would not have been refused by themselves are CHAIN_REFUSED. Their `index` is that of
    the one that was, in the chain from 0.
    """

    outcomes: list[Outcome]


Outcome = (
    Reserved
    | Settled
    | Released
    | Extended
    | Debited
    | Granted
    | Refunded
    | Revoked
    | Reinstated
    | Elsewhere
    | Chained
    | Configured
    | DefaultsConfigured
    | Expired
    | Rebuilt
    | Rejected
)
