"""Allowances and defaults: from requests to the core's terms, and back to messages."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from meterhold.v1 import admin_service_pb2 as admin_pb
from meterhold.v1 import types_pb2
from meterhold_server.core.model import Allowance, AllowancePeriod, AllowanceTerms, Defaults
from meterhold_server.rpc.times import duration, timestamp
from meterhold_server.rpc.validation import PRIORITY_MAX, Fields

SIGNUP_LIFETIME_MAX: Final = timedelta(days=3660)
ANCHOR_YEAR_MAX: Final = 2999

_PERIOD: Final[dict[int, AllowancePeriod | None]] = {
    types_pb2.ALLOWANCE_PERIOD_UNSPECIFIED: AllowancePeriod.OFF,
    **{
        types_pb2.AllowancePeriod.Value(f"ALLOWANCE_PERIOD_{period}"): period
        for period in AllowancePeriod
    },
}


def allowance_terms(fields: Fields, allowance: types_pb2.Allowance) -> AllowanceTerms:
    period = fields.one_of("allowance.period", allowance.period, _PERIOD)
    off = period is AllowancePeriod.OFF
    name = "allowance.amount_micros"
    amount = fields.amount(name, allowance.amount_micros, least=0 if off else 1)
    if off and amount:
        fields.wrong(name, f"is {amount} though the period is OFF; set a period, or 0")
    anchor = None
    if allowance.HasField("anchor_time"):
        anchor = fields.time("allowance.anchor_time", allowance.anchor_time)
        if anchor.year > ANCHOR_YEAR_MAX:
            fields.wrong("allowance.anchor_time", f"is after the year {ANCHOR_YEAR_MAX}")
    priority = None
    if allowance.HasField("priority"):
        priority = fields.count("allowance.priority", allowance.priority, PRIORITY_MAX)
    return AllowanceTerms(amount, period or AllowancePeriod.OFF, anchor, priority)


def allowance_message(of: Allowance | AllowanceTerms) -> types_pb2.Allowance:
    return types_pb2.Allowance(
        amount_micros=of.amount_micros,
        period=types_pb2.AllowancePeriod.Value(f"ALLOWANCE_PERIOD_{of.period}"),
        anchor_time=timestamp(of.anchor_time) if of.anchor_time else None,
        priority=of.priority,
    )


def set_allowance(message: admin_pb.Account, allowance: Allowance | None) -> None:
    """Fill in what an account's allowance is, if it has had one."""
    if allowance is not None:
        message.allowance.CopyFrom(allowance_message(allowance))
        if allowance.refill_time is not None:
            message.refill_time.CopyFrom(timestamp(allowance.refill_time))


def defaults_message(of: Defaults) -> admin_pb.Defaults:
    message = admin_pb.Defaults(unit=of.key.unit)
    if of.signup_micros:
        message.signup_grant.amount_micros = of.signup_micros
        if of.signup_lifetime is not None:
            message.signup_grant.lifetime.CopyFrom(duration(of.signup_lifetime))
    if of.allowance is not None:
        message.allowance.CopyFrom(allowance_message(of.allowance))
    return message
