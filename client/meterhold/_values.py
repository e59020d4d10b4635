"""Small values that calls take and results give back: Usage, Cash and Source."""

from __future__ import annotations

from dataclasses import dataclass


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
