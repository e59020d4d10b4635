"""Credentials on the wire: what is asked for, and what is answered."""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from meterhold.v1 import admin_service_pb2 as pb
from meterhold_server.core.credentials import (
    ID_BYTES,
    SECRET_BYTES,
    ApiKey,
    Credential,
    Scope,
    api_key_of,
    credential_id_of,
)
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.times import timestamp
from meterhold_server.rpc.validation import ID_CHARACTERS_MAX, Fields

NAME_CHARACTERS_MAX: Final = 128
OPERATIONS_PER_SECOND_MAX: Final = 1_000_000

_NUMBERS: Final = {
    Scope.METER: pb.SCOPE_METER,
    Scope.GRANT: pb.SCOPE_GRANT,
    Scope.READ: pb.SCOPE_READ,
    Scope.ADMIN: pb.SCOPE_ADMIN,
}
_SCOPES: Final[dict[int, Scope | None]] = {number: scope for scope, number in _NUMBERS.items()}


class WantedKey(NamedTuple):
    """A key that is to be made. `operations_per_second_max` None = no limit."""

    name: str
    scopes: list[Scope]
    operations_per_second_max: int | None


def wanted_key(request: pb.CreateApiKeyRequest, caller: Caller) -> WantedKey:
    """Raises InvalidRequest, and Refusal if the caller would give more than it has."""
    fields = Fields()
    scopes = [
        fields.one_of(f"scopes[{number}]", scope, _SCOPES)
        for number, scope in enumerate(request.scopes)
    ]
    if not scopes:
        fields.wrong("scopes", "is empty, at least one scope is required")
    per_second = fields.count(
        "operations_per_second_max", request.operations_per_second_max, OPERATIONS_PER_SECOND_MAX
    )
    name = fields.text("name", request.name, NAME_CHARACTERS_MAX)
    fields.done()
    given = sorted({scope for scope in scopes if scope})
    for scope in given:
        caller.require(scope)
    return WantedKey(name, given, per_second or None)


def new_key() -> ApiKey:
    """A key that nobody has."""
    return api_key_of(
        credential_id_of(secrets.token_bytes(ID_BYTES)), secrets.token_bytes(SECRET_BYTES)
    )


def named_credential(request: pb.RevokeCredentialRequest) -> str:
    """The id that a request names. Raises InvalidRequest."""
    fields = Fields()
    credential_id = fields.text("credential_id", request.credential_id, ID_CHARACTERS_MAX)
    fields.done()
    return credential_id


def credential_message(of: Credential) -> pb.Credential:
    return pb.Credential(
        credential_id=of.credential_id,
        name=of.name,
        scopes=[_NUMBERS[scope] for scope in sorted(of.scopes)],
        certificate_name=of.certificate_name or "",
        operations_per_second_max=of.operations_per_second_max or 0,
        create_time=timestamp(of.create_time),
        last_use_time=timestamp(of.last_use_time) if of.last_use_time else None,
        revoke_time=timestamp(of.revoke_time) if of.revoke_time else None,
    )
