"""Requests to operations. Raises InvalidRequest, naming every field that is wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final, NamedTuple, Protocol

from meterhold.v1 import admin_service_pb2 as admin_pb
from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1 import types_pb2
from meterhold_server.core.clawback import PPM
from meterhold_server.core.credentials import ALL_SCOPES, Scope
from meterhold_server.core.model import (
    AMOUNT_MICROS_MAX,
    AccountKey,
    LotCategory,
    OnExpiry,
    Overage,
    Rules,
)
from meterhold_server.core.operations import (
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Extend,
    GrantOnce,
    RefundCharge,
    ReinstateGrant,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
    nobody,
)
from meterhold_server.rpc import terms
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.validation import (
    ACCOUNT_CHARACTERS_MAX,
    ID_CHARACTERS_MAX,
    KEY_CHARACTERS_MAX,
    LEGACY_KEYS_MAX,
    PRIORITY_MAX,
    UNIT_CHARACTERS_MAX,
    Fields,
)

UNIT_DEFAULT: Final = "credits"
PRIORITY_DEFAULT: Final = 50
REFUND_GRACE_MAX: Final = timedelta(days=366)
REASON_BYTES_MAX: Final = 256

_ON_EXPIRY: Final[dict[int, OnExpiry | None]] = {
    types_pb2.ON_EXPIRY_UNSPECIFIED: None,
    types_pb2.ON_EXPIRY_RELEASE: OnExpiry.RELEASE,
    types_pb2.ON_EXPIRY_CHARGE: OnExpiry.CHARGE,
}
_SETTLE_OVERAGE: Final[dict[int, Overage | None]] = {
    types_pb2.OVERAGE_UNSPECIFIED: Overage.CAP,
    types_pb2.OVERAGE_CAP: Overage.CAP,
    types_pb2.OVERAGE_OVERDRAFT: Overage.OVERDRAFT,
    types_pb2.OVERAGE_REJECT: Overage.REJECT,
}
_DEBIT_OVERAGE: Final[dict[int, Overage | None]] = {
    types_pb2.OVERAGE_UNSPECIFIED: Overage.REJECT,
    types_pb2.OVERAGE_OVERDRAFT: Overage.OVERDRAFT,
    types_pb2.OVERAGE_REJECT: Overage.REJECT,
}
_CATEGORY: Final[dict[int, LotCategory | None]] = {
    types_pb2.LOT_CATEGORY_UNSPECIFIED: LotCategory.PAID,
    types_pb2.LOT_CATEGORY_PROMOTIONAL: LotCategory.PROMOTIONAL,
    types_pb2.LOT_CATEGORY_PAID: LotCategory.PAID,
}


_Charge = tuple[int, Overage, dict[str, str] | None, dict[str, Any] | None, str | None]
"""The amount, its overage, and the labels, usage and metadata that both ways to debit have."""


class Caller(NamedTuple):
    """Who calls, as far as a request's meaning depends on it, and the server's rules.

    `credential_id` is empty if none was asked for.
    """

    namespace: str
    rules: Rules
    credential_id: str = ""
    scopes: frozenset[Scope] = ALL_SCOPES

    def require(self, scope: Scope) -> None:
        """Raise Refusal if the caller does not have the scope."""
        if scope not in self.scopes:
            details = {"scope": scope.value, "credential_id": self.credential_id}
            raise Refusal("SCOPE_MISSING", details)


class _OfUnit(Protocol):
    @property
    def unit(self) -> str: ...


class _OfAccount(_OfUnit, Protocol):
    @property
    def account(self) -> str: ...


class _OfReservation(_OfAccount, Protocol):
    @property
    def reservation_id(self) -> str: ...


def account_key(
    fields: Fields, request: _OfAccount, caller: Caller, *, required: bool = True
) -> AccountKey:
    """The account that a request names, in the namespace of its caller."""
    return AccountKey(
        caller.namespace,
        fields.text("account", request.account, ACCOUNT_CHARACTERS_MAX, required=required),
        unit_of(fields, request),
    )


def unit_of(fields: Fields, request: _OfUnit) -> str:
    unit = request.unit
    return fields.text("unit", unit, UNIT_CHARACTERS_MAX) if unit else UNIT_DEFAULT


def reservation_id(fields: Fields, request: _OfReservation) -> str:
    return fields.text("reservation_id", request.reservation_id, ID_CHARACTERS_MAX)


def reserve(request: pb.ReserveRequest, caller: Caller) -> Reserve:
    fields = Fields()
    operation = Reserve(
        account_key(fields, request, caller),
        reservation_id(fields, request),
        fields.amount("amount_micros", request.amount_micros, least=1),
        fields.duration("ttl", request.ttl, caller.rules.ttl_max),
        fields.amount("min_amount_micros", request.min_amount_micros),
        fields.amount("min_available_micros", request.min_available_micros),
        fields.one_of("on_expiry", request.on_expiry, _ON_EXPIRY) or OnExpiry.RELEASE,
        fields.labels("labels", request.labels),
        fields.metadata(request),
    )
    if AMOUNT_MICROS_MAX >= operation.min_amount_micros > operation.amount_micros > 0:
        fields.wrong("min_amount_micros", "is more than amount_micros")
    fields.done()
    return operation


def settle(request: pb.SettleRequest, caller: Caller) -> Settle:
    fields = Fields()
    operation = Settle(
        account_key(fields, request, caller),
        reservation_id(fields, request),
        fields.amount("amount_micros", request.amount_micros),
        request.keep_open,
        fields.text(
            "capture_id", request.capture_id, ID_CHARACTERS_MAX, required=request.keep_open
        ),
        fields.one_of("overage", request.overage, _SETTLE_OVERAGE) or Overage.CAP,
        fields.labels("labels", request.labels),
        fields.usage(request),
        fields.metadata(request),
    )
    if operation.capture_id and not operation.keep_open:
        fields.wrong("capture_id", "goes with keep_open only; a final settle needs no id")
    fields.done()
    return operation


def release(request: pb.ReleaseRequest, caller: Caller) -> Release:
    fields = Fields()
    operation = Release(account_key(fields, request, caller), reservation_id(fields, request))
    fields.done()
    return operation


def extend(request: pb.ExtendRequest, caller: Caller) -> Extend:
    fields = Fields()
    operation = Extend(
        account_key(fields, request, caller),
        reservation_id(fields, request),
        fields.duration("ttl", request.ttl, caller.rules.ttl_max),
        fields.amount("add_amount_micros", request.add_amount_micros),
        fields.one_of("on_expiry", request.on_expiry, _ON_EXPIRY),
        fields.text(
            "extend_id",
            request.extend_id,
            ID_CHARACTERS_MAX,
            required=request.add_amount_micros != 0,
        ),
    )
    if not (request.HasField("ttl") or request.add_amount_micros or request.on_expiry):
        fields.wrong("ttl", "nothing to do: set ttl, add_amount_micros or on_expiry")
    fields.done()
    return operation


def debit(request: pb.DebitRequest, caller: Caller) -> Debit:
    fields = Fields()
    operation = Debit(
        account_key(fields, request, caller),
        *_charge(fields, request),
        fields.text("request_id", request.request_id, ID_CHARACTERS_MAX, required=False),
    )
    fields.done()
    return operation


def debit_once(request: pb.DebitOnceRequest, caller: Caller) -> DebitOnce:
    fields = Fields()
    operation = DebitOnce(
        account_key(fields, request, caller),
        fields.text("idempotency_key", request.idempotency_key, KEY_CHARACTERS_MAX),
        *_charge(fields, request),
    )
    fields.done()
    return operation


def grant_once(request: pb.GrantOnceRequest, caller: Caller) -> GrantOnce:
    fields = Fields()
    operation = GrantOnce(
        account_key(fields, request, caller),
        fields.text("idempotency_key", request.idempotency_key, KEY_CHARACTERS_MAX),
        fields.amount("amount_micros", request.amount_micros, least=1),
        _legacy_keys(fields, request),
        fields.note("reason", request.reason, REASON_BYTES_MAX),
        fields.one_of("category", request.category, _CATEGORY) or LotCategory.PAID,
        _priority(fields, request),
        fields.optional_time("expire_time", request),
        fields.optional_time("effective_time", request),
        _cash(fields, request.cash) if request.HasField("cash") else None,
        _source(fields, request.source),
        fields.labels("labels", request.labels),
        fields.metadata(request),
        actor=caller.credential_id,
    )
    times = operation.effective_time, operation.expire_time
    if times[0] and times[1] and times[1] <= times[0]:
        fields.wrong("expire_time", "is not after effective_time")
    fields.done()
    return operation


def revoke_grant(request: pb.RevokeGrantRequest, caller: Caller) -> RevokeGrant:
    fields = Fields()
    operation = RevokeGrant(
        **_grant_change(fields, request, caller), allow_tombstone=request.allow_tombstone
    )
    cumulative = request.WhichOneof("cumulative")
    if cumulative == "cumulative_amount_micros":
        amount = request.cumulative_amount_micros
        operation.amount_micros = fields.amount(cumulative, amount, least=1)
    elif cumulative == "cumulative_fraction_ppm":
        operation.fraction_ppm = fields.count(cumulative, request.cumulative_fraction_ppm, PPM)
        if operation.fraction_ppm == 0:
            fields.wrong(cumulative, "is 0, at least 1 is required")
    else:
        operation.fraction_ppm = PPM
    fields.done()
    return operation


def reinstate_grant(request: pb.ReinstateGrantRequest, caller: Caller) -> ReinstateGrant:
    fields = Fields()
    operation = ReinstateGrant(**_grant_change(fields, request, caller))
    fields.done()
    return operation


def _grant_change(
    fields: Fields, request: pb.RevokeGrantRequest | pb.ReinstateGrantRequest, caller: Caller
) -> dict[str, Any]:
    """What both say. Without an account it is looked for by the key."""
    account = nobody(caller.namespace)
    if request.account:
        account = account_key(fields, request, caller)
    elif request.unit:
        fields.wrong("unit", "goes with an account only")
    return {
        "actor": caller.credential_id,
        "account": account,
        "account_named": bool(request.account),
        "grant_key": fields.text("grant_key", request.grant_key, KEY_CHARACTERS_MAX),
        "revocation_id": fields.text(
            "revocation_id", request.revocation_id, ID_CHARACTERS_MAX, required=False
        ),
        "expected_source": _expected_source(fields, request.expected_source),
        "reason": fields.note("reason", request.reason, REASON_BYTES_MAX),
        "labels": fields.labels("labels", request.labels),
        "metadata": fields.metadata(request),
    }


def refund_charge(request: pb.RefundChargeRequest, caller: Caller) -> RefundCharge:
    """The operation; its `charge_seq` is 0 if the request names the charge by its capture."""
    fields = Fields()
    selector = request.WhichOneof("charge")
    if selector is None:
        fields.wrong("charge", "one of entry_seq and capture is required")
    elif selector == "entry_seq" and fields.count("entry_seq", request.entry_seq) == 0:
        fields.wrong("entry_seq", "is 0, at least 1 is required")
    elif selector == "capture":
        capture = request.capture
        fields.text("capture.reservation_id", capture.reservation_id, ID_CHARACTERS_MAX)
        fields.text("capture.capture_id", capture.capture_id, ID_CHARACTERS_MAX, required=False)
    operation = RefundCharge(
        account_key(fields, request, caller),
        fields.text("idempotency_key", request.idempotency_key, KEY_CHARACTERS_MAX),
        request.entry_seq,
        fields.amount("amount_micros", request.amount_micros),
        fields.duration("expired_lot_grace", request.expired_lot_grace, REFUND_GRACE_MAX),
        fields.note("reason", request.reason, REASON_BYTES_MAX),
        fields.labels("labels", request.labels),
        fields.metadata(request),
        actor=caller.credential_id,
    )
    fields.done()
    return operation


def configure(request: admin_pb.ConfigureAccountRequest, caller: Caller) -> Configure:
    fields = Fields()
    operation = Configure(account_key(fields, request, caller), actor=caller.credential_id)
    if request.HasField("credit_limit_micros"):
        operation.credit_limit_micros = fields.amount(
            "credit_limit_micros", request.credit_limit_micros
        )
    if request.HasField("holds_use_credit"):
        operation.holds_use_credit = request.holds_use_credit
    if request.HasField("frozen"):
        operation.frozen = request.frozen
    if request.HasField("allowance"):
        operation.allowance = terms.allowance_terms(fields, request.allowance)
    fields.done()
    return operation


def configure_defaults(
    request: admin_pb.ConfigureDefaultsRequest, caller: Caller
) -> ConfigureDefaults:
    fields = Fields()
    operation = ConfigureDefaults(
        AccountKey(caller.namespace, "", unit_of(fields, request)), actor=caller.credential_id
    )
    if request.HasField("signup_grant"):
        signup = request.signup_grant
        operation.signup_micros = fields.amount("signup_grant.amount_micros", signup.amount_micros)
        operation.signup_lifetime = fields.duration(
            "signup_grant.lifetime", signup.lifetime, terms.SIGNUP_LIFETIME_MAX
        )
    if request.HasField("allowance"):
        operation.allowance = terms.allowance_terms(fields, request.allowance)
    fields.done()
    return operation


def _charge(fields: Fields, request: pb.DebitRequest | pb.DebitOnceRequest) -> _Charge:
    return (
        fields.amount("amount_micros", request.amount_micros, least=1),
        fields.one_of("overage", request.overage, _DEBIT_OVERAGE) or Overage.REJECT,
        fields.labels("labels", request.labels),
        fields.usage(request),
        fields.metadata(request),
    )


def _priority(fields: Fields, request: pb.GrantOnceRequest) -> int:
    if not request.HasField("priority"):
        return PRIORITY_DEFAULT
    return fields.count("priority", request.priority, PRIORITY_MAX)


def _legacy_keys(fields: Fields, request: pb.GrantOnceRequest) -> tuple[str, ...]:
    keys = tuple(request.legacy_keys)
    if len(keys) > LEGACY_KEYS_MAX:
        fields.wrong("legacy_keys", f"has {len(keys)} keys, at most {LEGACY_KEYS_MAX} are allowed")
    for number, key in enumerate(keys):
        fields.text(f"legacy_keys[{number}]", key, KEY_CHARACTERS_MAX)
    return keys


def _cash(fields: Fields, cash: types_pb2.Cash) -> dict[str, Any]:
    code = _currency_code(fields, "cash.currency_code", cash.currency_code)
    return {"currency_code": code, "minor_units": cash.minor_units}


def _currency_code(fields: Fields, field: str, code: str) -> str:
    if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
        fields.wrong(field, "is not three capital letters")
    return code


def _expected_source(fields: Fields, source: types_pb2.ExpectedSource) -> dict[str, Any] | None:
    found = {descriptor.name: value for descriptor, value in source.ListFields()}
    for name in ("provider", "store_id"):
        if name in found:
            fields.note(f"expected_source.{name}", found[name], 128)
    if "currency_code" in found:
        _currency_code(fields, "expected_source.currency_code", found["currency_code"])
    return found or None


def _source(fields: Fields, source: types_pb2.Source) -> dict[str, Any] | None:
    bytes_max = {"provider": 128, "order_id": 255, "store_id": 128, "variant_id": 128}
    found = {descriptor.name: value for descriptor, value in source.ListFields()}
    for name, most in bytes_max.items():
        if name in found:
            fields.note(f"source.{name}", found[name], most)
    return found or None
