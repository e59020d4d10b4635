"""What is told of a change that somebody answers for: who did what, to which account.

Grants and what undoes them, refunds, settings and repairs are told. Holds and charges are not: the
ledger has them, and there are very many. Nor is what changed nothing: refusals and replays.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from meterhold_server.core.model import AllowanceTerms
from meterhold_server.core.operations import (
    AuditedOperation,
    Configure,
    ConfigureDefaults,
    GrantOnce,
    Rebuild,
    RefundCharge,
    ReinstateGrant,
    RevokeGrant,
)
from meterhold_server.core.outcomes import (
    Configured,
    DefaultsConfigured,
    Granted,
    Outcome,
    Rebuilt,
    Refunded,
    Reinstated,
    Revoked,
)


class AuditRecord(NamedTuple):
    """Who (`actor`, a credential's id or the command of an operator) did what (`action`) to what.

    `subject` is the key of the grant or the refund. `account` is empty for what is not of one.
    """

    namespace: str
    actor: str
    action: str
    account: str
    unit: str
    subject: str
    details: dict[str, Any]
    create_time: datetime


def audit_record(operation: object, outcome: Outcome, now: datetime) -> AuditRecord | None:
    """The record of an operation; None if it changed nothing that is told."""
    match operation, outcome:
        case GrantOnce(), Granted(replayed=False):
            details = {"amount_micros": operation.amount_micros, "reason": operation.reason}
            subject = operation.idempotency_key
        case RefundCharge(), Refunded(replayed=False):
            details = {
                "charge_seq": operation.charge_seq,
                "refunded_micros": outcome.refunded_micros,
                "reason": operation.reason,
            }
            subject = operation.idempotency_key
        case RevokeGrant(), Revoked() if outcome.entry or outcome.tombstone:
            details = {
                "revocation_id": operation.revocation_id,
                "revoked_micros": outcome.revoked_micros,
                "reason": operation.reason,
            }
            subject = operation.grant_key
        case ReinstateGrant(), Reinstated() if outcome.entry or outcome.tombstone:
            details = {
                "revocation_id": operation.revocation_id,
                "reinstated_micros": outcome.reinstated_micros,
                "reason": operation.reason,
            }
            subject = operation.grant_key
        case Configure(), Configured():
            details = {
                "credit_limit_micros": operation.credit_limit_micros,
                "holds_use_credit": operation.holds_use_credit,
                "frozen": operation.frozen,
                "allowance": _terms(operation.allowance),
            }
            subject = ""
        case ConfigureDefaults(), DefaultsConfigured():
            details = {
                "signup_micros": operation.signup_micros,
                "allowance": _terms(operation.allowance),
            }
            subject = ""
        case Rebuild(), Rebuilt():
            details = {"correction_count": len(outcome.corrections)}
            subject = ""
        case _:
            return None
    return _record(operation, subject, details, now)


def _record(
    operation: AuditedOperation, subject: str, details: dict[str, Any], now: datetime
) -> AuditRecord:
    namespace, account, unit = operation.account
    said = {name: value for name, value in details.items() if value not in (None, "")}
    action = type(operation).__name__
    return AuditRecord(namespace, operation.actor, action, account, unit, subject, said, now)


def _terms(terms: AllowanceTerms | None) -> dict[str, Any] | None:
    if terms is None:
        return None
    return {"amount_micros": terms.amount_micros, "period": terms.period.value}
