"""What can be asked of the ledger: one class per deed.

Operations are made by the edge, which has checked every field: amounts are within
`AMOUNT_MICROS_MAX`, durations within the `Rules`, texts printable and of bounded length. They are
never changed once made. `labels`, `usage` and `metadata` (JSON text) are stored as they come.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from meterhold_server.core.model import (
    AccountKey,
    AllowanceTerms,
    DefaultsKey,
    LotCategory,
    OnExpiry,
    Overage,
    account_id_of,
)


def capture_key(reservation_id: str, capture_id: str) -> str:
    """The key of a capture in its account: neither id contains a line feed."""
    return f"{reservation_id}\n{capture_id}"


@dataclass(slots=True)
class AccountOperation:
    """Something asked of one account. Its `account_id` is asked for again and again on its way."""

    account: AccountKey
    account_id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.account_id = account_id_of(self.account)


@dataclass(slots=True)
class Reserve(AccountOperation):
    """Hold credits before work.

    `ttl` None = the server's default; `min_amount_micros` 0 = all or nothing.
    """

    reservation_id: str
    amount_micros: int
    ttl: timedelta | None = None
    min_amount_micros: int = 0
    min_available_micros: int = 0
    on_expiry: OnExpiry = OnExpiry.RELEASE
    labels: dict[str, str] | None = None
    metadata: str | None = None


@dataclass(slots=True)
class Settle(AccountOperation):
    """Charge the real cost. With `keep_open` it is a capture, named by its `capture_id`."""

    reservation_id: str
    amount_micros: int
    keep_open: bool = False
    capture_id: str = ""
    overage: Overage = Overage.CAP
    labels: dict[str, str] | None = None
    usage: dict[str, Any] | None = None
    metadata: str | None = None

    @property
    def step_key(self) -> str:
        """The capture's key, unique in the account."""
        return capture_key(self.reservation_id, self.capture_id)


@dataclass(slots=True)
class Release(AccountOperation):
    """Free what a reservation still holds."""

    reservation_id: str


@dataclass(slots=True)
class Extend(AccountOperation):
    """Hold longer, hold more, or set what happens at expiry; None and 0 leave things alone."""

    reservation_id: str
    ttl: timedelta | None = None
    add_amount_micros: int = 0
    on_expiry: OnExpiry | None = None
    extend_id: str = ""

    @property
    def step_key(self) -> str:
        """The extension's key, unique in the account: neither id contains a line feed."""
        return f"{self.reservation_id}\n{self.extend_id}"


@dataclass(slots=True)
class Debit(AccountOperation):
    """Charge now, all or nothing; at most once, or exactly once for a `request_id`."""

    amount_micros: int
    overage: Overage = Overage.REJECT
    labels: dict[str, str] | None = None
    usage: dict[str, Any] | None = None
    metadata: str | None = None
    request_id: str = ""


@dataclass(slots=True)
class DebitOnce(AccountOperation):
    """Charge now, exactly once for a key of the namespace."""

    idempotency_key: str
    amount_micros: int
    overage: Overage = Overage.REJECT
    labels: dict[str, str] | None = None
    usage: dict[str, Any] | None = None
    metadata: str | None = None


@dataclass(slots=True)
class AuditedOperation(AccountOperation):
    """Something that is told in the audit log: `actor` is who asks, as it is called there."""

    actor: str = field(default="", kw_only=True)


@dataclass(slots=True)
class GrantOnce(AuditedOperation):
    """Put credits in, exactly once for a key of the namespace."""

    idempotency_key: str
    amount_micros: int
    legacy_keys: tuple[str, ...] = ()
    reason: str = ""
    category: LotCategory = LotCategory.PAID
    priority: int = 50
    expire_time: datetime | None = None
    effective_time: datetime | None = None
    cash: dict[str, Any] | None = None
    source: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    metadata: str | None = None


@dataclass(slots=True)
class RefundCharge(AuditedOperation):
    """Give part or all of a charge back, exactly once for a key of the namespace.

    `amount_micros` 0 = all that is left of it. What came from a lot that has expired since expires
    at once, or lives for `expired_lot_grace`.
    """

    idempotency_key: str
    charge_seq: int
    amount_micros: int = 0
    expired_lot_grace: timedelta | None = None
    reason: str = ""
    labels: dict[str, str] | None = None
    metadata: str | None = None


@dataclass(slots=True)
class GrantChange(AuditedOperation):
    """Something that befalls a grant, named by its key.

    If the caller did not name the account, `account_named` is false, and `account` is that of
    `nobody` or wherever `Elsewhere` said. Only what `expected_source` has is compared.
    """

    grant_key: str
    account_named: bool = True
    revocation_id: str = ""
    expected_source: dict[str, Any] | None = None
    reason: str = ""
    labels: dict[str, str] | None = None
    metadata: str | None = None


def nobody(namespace: str) -> AccountKey:
    """The account of operations that name none. No account has an empty name."""
    return AccountKey(namespace, "", "")


@dataclass(slots=True)
class RevokeGrant(GrantChange):
    """Say how much of a grant is revoked all in all: the larger of the fraction and the amount."""

    fraction_ppm: int = 0
    amount_micros: int = 0
    allow_tombstone: bool = False


@dataclass(slots=True)
class ReinstateGrant(GrantChange):
    """Undo the revocations of one id."""


Link = (
    Reserve
    | Settle
    | Release
    | Extend
    | Debit
    | DebitOnce
    | GrantOnce
    | RefundCharge
    | RevokeGrant
    | ReinstateGrant
)
"""What can be part of a chain."""


@dataclass(slots=True)
class Chain:
    """Operations of one namespace, at least one: all of them are done in their order, or none.

    Each names its account.
    """

    operations: tuple[Link, ...]

    @property
    def account(self) -> AccountKey:
        """The account of the first: as good as any to choose a lane by."""
        return self.operations[0].account

    @property
    def account_id(self) -> str:
        return self.operations[0].account_id


@dataclass(slots=True)
class Configure(AuditedOperation):
    """Set what an account may do; None leaves a thing as it is. Creates the account."""

    credit_limit_micros: int | None = None
    holds_use_credit: bool | None = None
    frozen: bool | None = None
    allowance: AllowanceTerms | None = None


@dataclass(slots=True)
class ConfigureDefaults(AuditedOperation):
    """Set what accounts of the unit get when they are created; None leaves a thing as it is.

    `account` is any of the namespace and the unit. A `signup_micros` of 0 and an allowance that is
    OFF take them away; `signup_lifetime` goes with `signup_micros`.
    """

    signup_micros: int | None = None
    signup_lifetime: timedelta | None = None
    allowance: AllowanceTerms | None = None

    @property
    def key(self) -> DefaultsKey:
        return DefaultsKey(self.account.namespace, self.account.unit)


@dataclass(slots=True)
class Expire(AccountOperation):
    """Let what is due expire, and nothing else. Every other operation does this first as well."""


@dataclass(slots=True)
class Rebuild(AuditedOperation):
    """Set right what differs in the account. It is decided alone, not beside other operations.

    `deleted_claims` are keys, as JSON, that were removed as they named entries that do not exist.
    """

    deleted_claims: tuple[str, ...] = ()


Operation = Link | Chain | Configure | ConfigureDefaults | Expire | Rebuild


def count(operation: Operation) -> int:
    """How many operations it stands for."""
    return len(operation.operations) if isinstance(operation, Chain) else 1
