"""Small values: what calls take and results give back, and how a client connects."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import ClassVar, Self

from meterhold._enums import AllowancePeriod


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a charge was for. Stored with the ledger entry in the same transaction.

    Token counts and `provider_cost_micros` are 0 or more. `provider` and `model` are at most 128
    bytes, `stop_reason` at most 64. Input tokens do not include those served from a cache.
    `provider_cost_micros` is what the provider charges you, in micro-units of your own choice.
    """

    provider: str = ""
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    provider_cost_micros: int = 0
    stop_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cash:
    """What was paid for a grant. An annotation: it never counts into a balance.

    `currency_code` is ISO 4217, three capital letters. `minor_units` is the signed amount in the
    currency's minor unit (cents), positive when paid in.
    """

    currency_code: str
    minor_units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a grant comes from. An annotation: it never counts into a balance.

    `provider` is the payment provider, such as `stripe`; the ids are the provider's. `order_id` is
    at most 255 bytes, the other texts at most 128.
    """

    provider: str = ""
    order_id: str = ""
    store_id: str = ""
    test_mode: bool = False
    variant_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedSource:
    """What a caller knows of the purchase behind a grant. Only what is set is compared.

    `provider`, `store_id` and `test_mode` are those of the grant's `Source`, `currency_code` that
    of its `Cash`. Empty and None are not compared.
    """

    provider: str = ""
    store_id: str = ""
    test_mode: bool | None = None
    currency_code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Credits that are full again at each boundary: what is left expires, and a new lot opens.

    `amount_micros` is what each period has, 1 to 10^15. Boundaries are `anchor_time`, in the years
    1970 to 2999, plus a whole number of periods; None = the time of the call. `priority` is that of
    its lots, 0 to 1000; None = 10, so that they are spent before other credits. `Allowance.OFF`
    switches an allowance off.
    """

    OFF: ClassVar[Allowance]

    amount_micros: int
    period: AllowancePeriod
    anchor_time: datetime | None = None
    priority: int | None = None


Allowance.OFF = Allowance(amount_micros=0, period=AllowancePeriod.OFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignupGrant:
    """Promotional credits that each account gets once, when it is created.

    `amount_micros` is 1 to 10^15. What is left of it expires after `lifetime`, at most 3660 days;
    None = never. `SignupGrant.OFF` takes the signup grant away.
    """

    OFF: ClassVar[SignupGrant]

    amount_micros: int
    lifetime: timedelta | None = None


SignupGrant.OFF = SignupGrant(amount_micros=0)


@dataclass(frozen=True, slots=True)
class Label:
    """What to sum charges by: the value of the label `key`, of 1 to 64 bytes."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a client encrypts and proves who it is. All but the name are PEM.

    `root_certificates` are those to trust, None = gRPC's own list. `certificate_chain` and
    `private_key`, both or neither, are the client's, for mutual TLS. `server_name` is the name that
    the server's certificate must have, empty = that of the target; needed with several addresses.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate_chain is None) != (self.private_key is None):
            raise ValueError("give certificate_chain and private_key, both or neither")

    @classmethod
    def from_files(
        cls,
        *,
        root_certificates: str | Path | None = None,
        certificate_chain: str | Path | None = None,
        private_key: str | Path | None = None,
        server_name: str = "",
    ) -> Self:
        """Read the PEM files. Raises OSError if one cannot be read."""
        return cls(
            root_certificates=_read(root_certificates),
            certificate_chain=_read(certificate_chain),
            private_key=_read(private_key),
            server_name=server_name,
        )


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
