"""Plain Python values → fields of requests.

Checks only what protobuf would let through silently or name badly: amounts that are not int, times
without a zone, enum members that cannot be sent. Everything else is the server's to judge.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from meterhold import _enums, _metadata
from meterhold.v1 import admin_service_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.struct_pb2 import Struct

    from meterhold._enums import LotCategory, OnExpiry, Overage
    from meterhold._values import Allowance, Cash, ExpectedSource, SignupGrant, Source, Usage


def amount(argument: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    return value


def duration(argument: str, value: timedelta | None) -> Duration | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise TypeError(f"{argument} must be a timedelta, not {type(value).__name__}")
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def timestamp(argument: str, value: datetime | None) -> Timestamp | None:
    if value is None:
        return None
    if value.utcoffset() is None:
        raise ValueError(f"{argument} must be an aware datetime; {value!r} has no time zone")
    timestamp = Timestamp()
    timestamp.FromDatetime(value)
    return timestamp


def struct(metadata: Mapping[str, Any] | None) -> Struct | None:
    return None if metadata is None else _metadata.to_struct(metadata)


def on_expiry(value: OnExpiry | None) -> types_pb2.OnExpiry.ValueType:
    if value is None:
        return types_pb2.ON_EXPIRY_UNSPECIFIED
    return _enums.to_number("on_expiry", value, _enums.ON_EXPIRY_NUMBERS)


def overage(value: Overage | None) -> types_pb2.Overage.ValueType:
    if value is None:
        return types_pb2.OVERAGE_UNSPECIFIED
    return _enums.to_number("overage", value, _enums.OVERAGE_NUMBERS)


def category(value: LotCategory | None) -> types_pb2.LotCategory.ValueType:
    if value is None:
        return types_pb2.LOT_CATEGORY_UNSPECIFIED
    return _enums.to_number("category", value, _enums.LOT_CATEGORY_NUMBERS)


def usage(usage: Usage | None) -> types_pb2.Usage | None:
    if usage is None:
        return None
    return types_pb2.Usage(
        provider=usage.provider,
        model=usage.model,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        provider_cost_micros=amount("provider_cost_micros", usage.provider_cost_micros),
        stop_reason=usage.stop_reason,
    )


def cash(cash: Cash | None) -> types_pb2.Cash | None:
    if cash is None:
        return None
    return types_pb2.Cash(
        currency_code=cash.currency_code,
        minor_units=amount("minor_units", cash.minor_units),
    )


def source(source: Source | None) -> types_pb2.Source | None:
    if source is None:
        return None
    return types_pb2.Source(
        provider=source.provider,
        order_id=source.order_id,
        store_id=source.store_id,
        test_mode=source.test_mode,
        variant_id=source.variant_id,
    )


def expected_source(source: ExpectedSource | None) -> types_pb2.ExpectedSource | None:
    if source is None:
        return None
    return types_pb2.ExpectedSource(
        provider=source.provider,
        store_id=source.store_id,
        test_mode=source.test_mode,
        currency_code=source.currency_code,
    )


def allowance(allowance: Allowance | None) -> types_pb2.Allowance | None:
    if allowance is None:
        return None
    numbers = _enums.ALLOWANCE_PERIOD_NUMBERS
    return types_pb2.Allowance(
        amount_micros=amount("amount_micros", allowance.amount_micros),
        period=_enums.to_number("period", allowance.period, numbers),
        anchor_time=timestamp("anchor_time", allowance.anchor_time),
        priority=allowance.priority,
    )


def signup_grant(grant: SignupGrant | None) -> admin_service_pb2.SignupGrant | None:
    if grant is None:
        return None
    return admin_service_pb2.SignupGrant(
        amount_micros=amount("amount_micros", grant.amount_micros),
        lifetime=duration("lifetime", grant.lifetime),
    )


def account_or_any(account: str | None) -> str:
    """None = any account. An empty name is a mistake, and must not stand for all of them."""
    if account == "":
        raise ValueError("account is empty; None stands for any account")
    return account or ""
