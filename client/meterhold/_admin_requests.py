"""Arguments → requests of AdminService, for both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meterhold import _enums, _wire
from meterhold.v1 import admin_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meterhold._enums import Scope
    from meterhold._values import Allowance, SignupGrant


def configure_account(
    account: str,
    *,
    unit: str,
    credit_limit_micros: int | None,
    holds_use_credit: bool | None,
    frozen: bool | None,
    allowance: Allowance | None,
) -> admin_service_pb2.ConfigureAccountRequest:
    if credit_limit_micros is not None:
        credit_limit_micros = _wire.amount("credit_limit_micros", credit_limit_micros)
    return admin_service_pb2.ConfigureAccountRequest(
        account=account,
        unit=unit,
        credit_limit_micros=credit_limit_micros,
        holds_use_credit=holds_use_credit,
        frozen=frozen,
        allowance=_wire.allowance(allowance),
    )


def get_account(account: str, *, unit: str) -> admin_service_pb2.GetAccountRequest:
    return admin_service_pb2.GetAccountRequest(account=account, unit=unit)


def list_accounts(*, account_prefix: str, page_size: int) -> admin_service_pb2.ListAccountsRequest:
    return admin_service_pb2.ListAccountsRequest(account_prefix=account_prefix, page_size=page_size)


def configure_defaults(
    *, unit: str, signup_grant: SignupGrant | None, allowance: Allowance | None
) -> admin_service_pb2.ConfigureDefaultsRequest:
    return admin_service_pb2.ConfigureDefaultsRequest(
        unit=unit,
        signup_grant=_wire.signup_grant(signup_grant),
        allowance=_wire.allowance(allowance),
    )


def get_defaults(*, unit: str) -> admin_service_pb2.GetDefaultsRequest:
    return admin_service_pb2.GetDefaultsRequest(unit=unit)


def create_api_key(
    name: str, *, scopes: Iterable[Scope], operations_per_second_max: int
) -> admin_service_pb2.CreateApiKeyRequest:
    return admin_service_pb2.CreateApiKeyRequest(
        name=name,
        scopes=[_enums.to_number("scopes", scope, _enums.SCOPE_NUMBERS) for scope in scopes],
        operations_per_second_max=operations_per_second_max,
    )


def list_credentials(*, page_size: int) -> admin_service_pb2.ListCredentialsRequest:
    return admin_service_pb2.ListCredentialsRequest(page_size=page_size)


def revoke_credential(credential_id: str) -> admin_service_pb2.RevokeCredentialRequest:
    return admin_service_pb2.RevokeCredentialRequest(credential_id=credential_id)


def verify_balance(account: str, *, unit: str) -> admin_service_pb2.VerifyBalanceRequest:
    return admin_service_pb2.VerifyBalanceRequest(account=account, unit=unit)


def rebuild_balance(account: str, *, unit: str) -> admin_service_pb2.RebuildBalanceRequest:
    return admin_service_pb2.RebuildBalanceRequest(account=account, unit=unit)
