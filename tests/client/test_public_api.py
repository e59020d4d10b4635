"""What the package exports, and that its parts agree with each other and with the contract."""

from __future__ import annotations

import dataclasses
import inspect
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pytest

import meterhold
from meterhold import (
    _async_client,
    _async_hold,
    _client,
    _delivery,
    _enums,
    _errors,
    _hold,
    _results,
    _tab,
    _values,
)
from meterhold.v1 import (
    admin_service_pb2,
    ledger_service_pb2,
    metering_service_pb2,
    types_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper


def _is_public(value: object, name: str) -> bool:
    return isinstance(value, type) and (
        issubclass(value, StrEnum | meterhold.MeterholdError)
        or dataclasses.is_dataclass(value)
        or name in {"Client", "AsyncClient", "Hold", "AsyncHold", "HoldOptions", "Delivery"}
    )


def test_all_is_sorted_and_complete() -> None:
    modules = [
        *(_async_client, _async_hold, _client, _delivery, _enums, _errors, _hold),
        *(_results, _tab, _values),
    ]
    public = {
        name
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and _is_public(value, name)
    }
    assert meterhold.__all__ == sorted(public)
    assert all(hasattr(meterhold, name) for name in meterhold.__all__)
    assert all(getattr(meterhold, name).__doc__ for name in meterhold.__all__)


def _methods(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(value)
        for name, value in vars(client).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def _as_twin(annotation: str) -> str:
    """What the asynchronous twin of something that answers this answers."""
    return re.sub(r"\b(Iterator\[|Hold$)", r"Async\1", annotation)


@pytest.mark.parametrize(
    ("sync_class", "async_class"),
    [(meterhold.Client, meterhold.AsyncClient), (meterhold.Hold, meterhold.AsyncHold)],
)
def test_classes_are_twins(sync_class: type, async_class: type) -> None:
    sync, twin = _methods(sync_class), _methods(async_class)
    sync.pop("close", None)
    twin.pop("aclose", None)
    assert list(sync) == list(twin)
    for name, signature in sync.items():
        assert twin[name].parameters == signature.parameters
        if name != "metered":  # It wraps functions of either kind, and says so.
            assert twin[name].return_annotation == _as_twin(str(signature.return_annotation))


def test_there_is_one_method_per_call() -> None:
    calls = [
        method.name
        for module in (metering_service_pb2, ledger_service_pb2, admin_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]
    # They are for whoever collects calls of their own.
    calls.remove("Batch")
    calls.remove("Stream")
    names = {re.sub(r"(?<!^)(?=[A-Z])", "_", call).lower() for call in calls}
    ours = {"close", "hold", "metered", "deliver_journal"}
    assert set(_methods(meterhold.Client)) == names | ours


@pytest.mark.parametrize(
    ("numbers", "enum", "wire"),
    [
        (_enums.ON_EXPIRY_NUMBERS, meterhold.OnExpiry, types_pb2.OnExpiry),
        (_enums.OVERAGE_NUMBERS, meterhold.Overage, types_pb2.Overage),
        (_enums.LOT_CATEGORY_NUMBERS, meterhold.LotCategory, types_pb2.LotCategory),
        (_enums.ENTRY_KIND_NUMBERS, meterhold.EntryKind, types_pb2.EntryKind),
        (_enums.ALLOWANCE_PERIOD_NUMBERS, meterhold.AllowancePeriod, types_pb2.AllowancePeriod),
        (
            _enums.SPEND_DIMENSION_NUMBERS,
            meterhold.SpendDimension,
            ledger_service_pb2.SpendDimension,
        ),
        (_enums.RESERVATION_STATE_NUMBERS, meterhold.ReservationState, types_pb2.ReservationState),
        (_enums.SCOPE_NUMBERS, meterhold.Scope, admin_service_pb2.Scope),
        (_enums.DEBIT_STATUS_NUMBERS, meterhold.DebitStatus, metering_service_pb2.DebitStatus),
    ],
)
def test_enums_are_those_of_the_contract(
    numbers: Mapping[StrEnum, int], enum: type[StrEnum], wire: EnumTypeWrapper
) -> None:
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.__name__).upper() + "_"
    on_wire = {name.removeprefix(prefix): number for name, number in wire.items() if number}
    assert {member.value: number for member, number in numbers.items()} == on_wire
    assert {member.value for member in enum} - {"UNKNOWN"} == set(on_wire)


def test_result_fields_are_those_of_the_contract() -> None:
    responses: dict[type, Any] = {
        meterhold.ReserveResult: metering_service_pb2.ReserveResponse,
        meterhold.SettleResult: metering_service_pb2.SettleResponse,
        meterhold.ReleaseResult: metering_service_pb2.ReleaseResponse,
        meterhold.ExtendResult: metering_service_pb2.ExtendResponse,
        meterhold.DebitResult: metering_service_pb2.DebitResponse,
        meterhold.GrantResult: metering_service_pb2.GrantOnceResponse,
        meterhold.RefundResult: metering_service_pb2.RefundChargeResponse,
        meterhold.RevokeResult: metering_service_pb2.RevokeGrantResponse,
        meterhold.ReinstateResult: metering_service_pb2.ReinstateGrantResponse,
        meterhold.VerifyResult: admin_service_pb2.VerifyBalanceResponse,
        meterhold.RebuildResult: admin_service_pb2.RebuildBalanceResponse,
        meterhold.Difference: admin_service_pb2.Difference,
        meterhold.Stats: ledger_service_pb2.GetStatsResponse,
        meterhold.SpendReport: ledger_service_pb2.SpendReportResponse,
        meterhold.SpendRow: ledger_service_pb2.SpendRow,
        meterhold.Defaults: admin_service_pb2.Defaults,
        meterhold.Credential: admin_service_pb2.Credential,
        meterhold.CreatedApiKey: admin_service_pb2.CreateApiKeyResponse,
        meterhold.SignupGrant: admin_service_pb2.SignupGrant,
        meterhold.Allowance: types_pb2.Allowance,
        meterhold.ExpectedSource: types_pb2.ExpectedSource,
        meterhold.Account: admin_service_pb2.Account,
        meterhold.Entry: types_pb2.Entry,
        meterhold.Lot: types_pb2.Lot,
        meterhold.Reservation: types_pb2.Reservation,
        meterhold.Usage: types_pb2.Usage,
        meterhold.Cash: types_pb2.Cash,
        meterhold.Source: types_pb2.Source,
    }
    for result, message in responses.items():
        fields = {field.name for field in dataclasses.fields(result)}
        assert fields == set(message.DESCRIPTOR.fields_by_name), result
    balance = {field.name for field in dataclasses.fields(meterhold.Balance)}
    assert balance == set(types_pb2.Balance.DESCRIPTOR.fields_by_name) | {"lots", "pending"}


def test_exceptions_are_the_tree_that_is_drawn() -> None:
    path: list[str] = []
    drawn = {}
    for indent, name, _ in re.findall(r"^    ([│├└─ ]*)(\w+)( .*)?$", _errors.__doc__ or "", re.M):
        depth = len(indent) // 4
        path[depth:] = [name]
        drawn[name] = path[depth - 1] if depth else "Exception"
    classes = [
        value
        for name in meterhold.__all__
        if issubclass(value := getattr(meterhold, name), Exception)
    ]
    public = {"Exception", *(cls.__name__ for cls in classes)}
    actual = {
        cls.__name__: next(base.__name__ for base in cls.__mro__[1:] if base.__name__ in public)
        for cls in classes
    }
    assert drawn == actual
