"""Arguments → requests of LedgerService, for both clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meterhold import _enums, _wire
from meterhold._values import Label
from meterhold.v1 import ledger_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from meterhold._enums import EntryKind, ReservationState, SpendDimension


def get_reservation(
    account: str, *, reservation_id: str, unit: str
) -> ledger_service_pb2.GetReservationRequest:
    return ledger_service_pb2.GetReservationRequest(
        account=account, unit=unit, reservation_id=reservation_id
    )


def list_reservations(
    account: str, *, unit: str, states: Iterable[ReservationState], page_size: int
) -> ledger_service_pb2.ListReservationsRequest:
    numbers = _enums.RESERVATION_STATE_NUMBERS
    return ledger_service_pb2.ListReservationsRequest(
        account=account,
        unit=unit,
        states=[_enums.to_number("states", state, numbers) for state in states],
        page_size=page_size,
    )


def list_entries(
    account: str,
    *,
    unit: str,
    kinds: Iterable[EntryKind],
    start_time: datetime | None,
    end_time: datetime | None,
    labels: Mapping[str, str] | None,
    oldest_first: bool,
    page_size: int,
) -> ledger_service_pb2.ListEntriesRequest:
    numbers = _enums.ENTRY_KIND_NUMBERS
    return ledger_service_pb2.ListEntriesRequest(
        account=account,
        unit=unit,
        kinds=[_enums.to_number("kinds", kind, numbers) for kind in kinds],
        start_time=_wire.timestamp("start_time", start_time),
        end_time=_wire.timestamp("end_time", end_time),
        labels=labels,
        oldest_first=oldest_first,
        page_size=page_size,
    )


def get_entry(
    account: str,
    *,
    unit: str,
    seq: int | None,
    debit_key: str | None,
    grant_key: str | None,
    refund_key: str | None,
) -> ledger_service_pb2.GetEntryRequest:
    selectors = (seq, debit_key, grant_key, refund_key)
    if sum(selector is not None for selector in selectors) != 1:
        raise ValueError("give exactly one of seq, debit_key, grant_key and refund_key")
    request = ledger_service_pb2.GetEntryRequest(account=account, unit=unit)
    if seq is not None:
        request.seq = seq
    elif debit_key is not None:
        request.debit_key = debit_key
    elif grant_key is not None:
        request.grant_key = grant_key
    elif refund_key is not None:
        request.refund_key = refund_key
    return request


def list_lots(
    account: str, *, unit: str, include_spent: bool, page_size: int
) -> ledger_service_pb2.ListLotsRequest:
    return ledger_service_pb2.ListLotsRequest(
        account=account, unit=unit, include_spent=include_spent, page_size=page_size
    )


def get_stats(*, unit: str) -> ledger_service_pb2.GetStatsRequest:
    return ledger_service_pb2.GetStatsRequest(unit=unit)


def spend_report(
    account: str | None,
    *,
    unit: str,
    start_time: datetime | None,
    end_time: datetime | None,
    labels: Mapping[str, str] | None,
    group_by: Iterable[SpendDimension | Label],
    row_limit: int,
) -> ledger_service_pb2.SpendReportRequest:
    if isinstance(group_by, str):
        raise TypeError("group_by must be several things to sum by, not one str")
    return ledger_service_pb2.SpendReportRequest(
        account=_wire.account_or_any(account),
        unit=unit,
        start_time=_wire.timestamp("start_time", start_time),
        end_time=_wire.timestamp("end_time", end_time),
        labels=labels,
        group_by=map(_spend_group, group_by),
        row_limit=row_limit,
    )


def _spend_group(by: SpendDimension | Label) -> ledger_service_pb2.SpendGroup:
    if isinstance(by, Label):
        return ledger_service_pb2.SpendGroup(label=by.key)
    number = _enums.to_number("group_by", by, _enums.SPEND_DIMENSION_NUMBERS)
    return ledger_service_pb2.SpendGroup(dimension=number)
