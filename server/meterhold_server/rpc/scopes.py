"""Which scope each method needs. What has no row here is not served: the server does not start."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from meterhold_server.core.credentials import Scope

_METERING: Final = "meterhold.v1.MeteringService."
_LEDGER: Final = "meterhold.v1.LedgerService."
_ADMIN: Final = "meterhold.v1.AdminService."

BY_OPERATION: Final = None
"""Each operation in the message needs the scope of its own call."""

SCOPES: Final[dict[str, Scope | None]] = {
    _METERING + "Reserve": Scope.METER,
    _METERING + "Settle": Scope.METER,
    _METERING + "Release": Scope.METER,
    _METERING + "Extend": Scope.METER,
    _METERING + "Debit": Scope.METER,
    _METERING + "DebitOnce": Scope.METER,
    _METERING + "GrantOnce": Scope.GRANT,
    _METERING + "RefundCharge": Scope.GRANT,
    _METERING + "RevokeGrant": Scope.GRANT,
    _METERING + "ReinstateGrant": Scope.GRANT,
    _METERING + "Batch": BY_OPERATION,
    _METERING + "Stream": BY_OPERATION,
    _METERING + "Balance": Scope.READ,
    _LEDGER + "GetReservation": Scope.READ,
    _LEDGER + "ListReservations": Scope.READ,
    _LEDGER + "ListEntries": Scope.READ,
    _LEDGER + "GetEntry": Scope.READ,
    _LEDGER + "ListLots": Scope.READ,
    _LEDGER + "GetStats": Scope.READ,
    _LEDGER + "SpendReport": Scope.READ,
    _ADMIN + "GetAccount": Scope.READ,
    _ADMIN + "ListAccounts": Scope.READ,
    _ADMIN + "GetDefaults": Scope.READ,
    _ADMIN + "VerifyBalance": Scope.READ,
    _ADMIN + "ConfigureAccount": Scope.ADMIN,
    _ADMIN + "ConfigureDefaults": Scope.ADMIN,
    _ADMIN + "RebuildBalance": Scope.ADMIN,
    _ADMIN + "CreateApiKey": Scope.ADMIN,
    _ADMIN + "ListCredentials": Scope.ADMIN,
    _ADMIN + "RevokeCredential": Scope.ADMIN,
}
"""By the full name of the method."""


def check_scopes(services: Iterable[ServiceDescriptor]) -> None:
    """Raise LookupError unless exactly the methods of these services have a row."""
    methods = {method.full_name for service in services for method in service.methods}
    if without := sorted(methods - SCOPES.keys()):
        raise LookupError(f"no scope is set for {', '.join(without)}: add a row to SCOPES")
    if unknown := sorted(SCOPES.keys() - methods):
        raise LookupError(f"SCOPES has rows for methods that are not there: {', '.join(unknown)}")


@cache
def scope_of_operation(field: str) -> Scope:
    """The scope of an operation in a Batch, by the name of its field: that of its own call."""
    name = "".join(word.capitalize() for word in field.split("_"))
    scope = SCOPES[_METERING + name]
    assert scope is not None, "what is in a message has a scope of its own"
    return scope
