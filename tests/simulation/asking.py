"""Calls as operations of the core, and outcomes as answers of a history."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.core import model, operations, outcomes
from meterhold_server.core.model import AccountKey
from meterhold_server.prove.history import (
    Answer,
    Attempt,
    Call,
    Method,
    Refusal,
    Told,
)
from meterhold_server.prove.load import POISONED
from simulation.database import POISON, START
from simulation.process import NAMESPACE

UNIT = "credits"


class NoAnswer(Exception):
    """The process that was asked is gone."""


def account_key(account: str) -> AccountKey:
    return AccountKey(NAMESPACE, account, UNIT)


def seconds_of(time: datetime) -> float:
    """A time of the database on the scheduler's clock."""
    return (time - START) / timedelta(seconds=1)


def operation_of(call: Call) -> operations.Link:
    account, labels = account_key(call.account), {"call": call.name}
    metadata = POISON if call.name.startswith(POISONED) else None
    on_expiry = model.OnExpiry.CHARGE if call.charge_on_expiry else model.OnExpiry.RELEASE
    overage = model.Overage(call.overage)
    match call.method:
        case Method.GRANT:
            return operations.GrantOnce(account, call.key, call.micros, labels=labels)
        case Method.DEBIT if call.once:
            return operations.DebitOnce(
                account, call.key, call.micros, overage, labels=labels, metadata=metadata
            )
        case Method.DEBIT:
            return operations.Debit(
                account, call.micros, overage, labels, metadata=metadata, request_id=call.key
            )
        case Method.RESERVE:
            ttl = timedelta(seconds=call.ttl_seconds)
            return operations.Reserve(
                account,
                call.reservation_id,
                call.micros,
                ttl,
                call.min_micros,
                on_expiry=on_expiry,
                labels=labels,
            )
        case Method.CAPTURE | Method.SETTLE:
            keep_open = call.method is Method.CAPTURE
            return operations.Settle(
                account,
                call.reservation_id,
                call.micros,
                keep_open,
                call.key if keep_open else "",
                overage,
                labels=labels,
            )
        case Method.RELEASE:
            return operations.Release(account, call.reservation_id)
        case Method.EXTEND:
            ttl = timedelta(seconds=call.ttl_seconds)
            return operations.Extend(
                account, call.reservation_id, ttl, call.micros, extend_id=call.key
            )
        case Method.REFUND:
            return operations.RefundCharge(
                account, call.key, call.related_seq, call.micros, labels=labels
            )
        case Method.BALANCE:
            raise AssertionError("a balance is read")


def answer_of(outcome: Any) -> Answer:
    """The answer that an outcome is."""
    balance = outcome if isinstance(outcome, model.Balance) else outcome.balance
    numbers = (
        balance.seq,
        balance.remaining_micros,
        balance.held_micros,
        balance.available_micros,
    )
    match outcome:
        case outcomes.Reserved(_, held, expire_time, replayed):
            return Answer(*numbers, held, expire_time=seconds_of(expire_time), replayed=replayed)
        case outcomes.Settled():
            return Answer(
                *numbers,
                outcome.charged_micros,
                outcome.entry_seq,
                outcome.shortfall_micros,
                late=outcome.late,
                replayed=outcome.replayed,
            )
        case outcomes.Released(_, changed, _):
            return Answer(*numbers, changed=changed)
        case outcomes.Extended(_, held, expire_time, _, replayed):
            return Answer(*numbers, held, expire_time=seconds_of(expire_time), replayed=replayed)
        case outcomes.Debited(_, entry, replayed):
            return Answer(*numbers, -entry.amount_micros, entry.seq, replayed=replayed)
        case outcomes.Granted(_, entry, _, _, replayed):
            assert entry is not None, "no grant of the load is pending"
            return Answer(*numbers, entry.amount_micros, entry.seq, replayed=replayed)
        case outcomes.Refunded(_, entry, refunded, _, replayed):
            return Answer(*numbers, refunded, entry.seq, replayed=replayed)
        case _:
            return Answer(*numbers)


def refusal_of(rejected: outcomes.Rejected) -> Refusal:
    details = rejected.details
    return Refusal(
        rejected.reason.value,
        details.get("available_micros", 0),
        details.get("required_micros", 0),
        str(details.get("original", "")),
    )


def record(attempt: Attempt, call: Call, at: float, told: Any) -> None:
    """Write down what came back."""
    attempt.return_time = at
    match told:
        case outcomes.Rejected():
            attempt.told, attempt.refusal = Told.REFUSED, refusal_of(told)
        case NoAnswer():
            attempt.told = Told.UNKNOWN
        case Failure(reason=FailureReason.INTERNAL) if not call.name.startswith(POISONED):
            attempt.told, attempt.text = Told.BROKEN, "INTERNAL"
        case Failure():
            attempt.told = Told.UNKNOWN if told.applied is None else Told.NOT_DONE
            attempt.text = told.reason.value
        case BaseException():
            attempt.told, attempt.text = Told.BROKEN, repr(told)
        case _:
            attempt.told, attempt.answer = Told.OK, answer_of(told)
