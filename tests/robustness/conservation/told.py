"""What a caller is told, in one form for the server's outcomes and for the model's."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from meterhold_server.core.outcomes import (
    Chained,
    Configured,
    Debited,
    DefaultsConfigured,
    Elsewhere,
    Expired,
    Extended,
    Granted,
    Outcome,
    Reason,
    Refunded,
    Reinstated,
    Rejected,
    Released,
    Reserved,
    Revoked,
    Settled,
)

NOBODY: Final = (0,) * 10
"""The balance of no account."""


class Told(NamedTuple):
    """`name` is an outcome or a reason. `balance` is in the order of the server's `Balance`."""

    name: str
    balance: tuple[int, ...] = ()
    numbers: tuple[Any, ...] = ()
    replayed: bool = False


def told(outcome: Outcome) -> Told:
    name = type(outcome).__name__
    match outcome:
        case Rejected(reason=Reason.INSUFFICIENT_CREDITS):
            names = ("available_micros", "required_micros", "reservable_micros")
            numbers = tuple(outcome.details[name] for name in names)
            return Told(str(outcome.reason), (), numbers)
        case Rejected():
            return Told(str(outcome.reason))
        case Elsewhere():
            return Told(name, (), tuple(outcome.account))
        case DefaultsConfigured():
            return Told(name, (), (outcome.defaults.signup_micros, outcome.defaults.allowance))
        case Chained():
            raise AssertionError("nobody here links operations")
        case _:
            replayed = getattr(outcome, "replayed", False)
            return Told(name, tuple(outcome.balance), _numbers(outcome), replayed)


def _numbers(outcome: Outcome) -> tuple[Any, ...]:
    match outcome:
        case Reserved():
            return outcome.held_micros, outcome.expire_time
        case Settled():
            return (
                outcome.charged_micros,
                outcome.from_hold_micros,
                outcome.overage_micros,
                outcome.shortfall_micros,
                outcome.released_micros,
                outcome.late,
                outcome.entry_seq,
            )
        case Released():
            return outcome.changed, outcome.reservation.state, outcome.reservation.captured_micros
        case Extended():
            return outcome.held_micros, outcome.expire_time, outcome.on_expiry
        case Debited():
            return outcome.entry.seq, outcome.entry.amount_micros
        case Granted():
            seq = outcome.entry.seq if outcome.entry else 0
            return seq, outcome.debt_repaid_micros, outcome.revoked_micros
        case Refunded():
            return outcome.entry.seq, outcome.refunded_micros, outcome.charge_refunded_micros
        case Revoked():
            return (
                outcome.entry.seq if outcome.entry else 0,
                outcome.revoked_micros,
                outcome.grant_revoked_micros,
                outcome.tombstone,
            )
        case Reinstated():
            return (
                outcome.entry.seq if outcome.entry else 0,
                outcome.reinstated_micros,
                outcome.grant_revoked_micros,
                outcome.tombstone,
            )
        case Configured():
            refill = outcome.allowance.refill_time if outcome.allowance else None
            return outcome.holds_use_credit, outcome.frozen, refill
        case Expired():
            return ()
        case _:
            raise AssertionError(f"an outcome that the model does not know: {outcome}")
