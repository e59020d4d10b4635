"""Requests for sums, and what is answered to them."""

from __future__ import annotations

from typing import Final

from meterhold.v1 import ledger_service_pb2 as pb
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.times import timestamp
from meterhold_server.rpc.validation import LABEL_KEY_BYTES_MAX, Fields
from meterhold_server.storage.reports import Group, Spend, SpendQuery, SpendReport, Stats
from meterhold_server.storage.spend_statement import Dimension

GROUPS_MAX: Final = 3
ROWS_DEFAULT: Final = 50
ROWS_MAX: Final = 1000

_INT64_MAX: Final = 2**63 - 1

_DIMENSIONS: Final[dict[int, Dimension | None]] = {
    pb.SpendDimension.Value(f"SPEND_DIMENSION_{dimension}"): dimension
    for dimension in Dimension
    if dimension is not Dimension.LABEL
}


def spend_query(fields: Fields, request: pb.SpendReportRequest, account: AccountKey) -> SpendQuery:
    """What to sum, of `account` or, if the request names none, of all accounts of its unit."""
    start_time, end_time = fields.time_range(request)
    return SpendQuery(
        account.namespace,
        account.unit,
        account_id_of(account) if request.account else None,
        _groups(fields, request),
        fields.count("row_limit", request.row_limit, ROWS_MAX) or ROWS_DEFAULT,
        fields.labels("labels", request.labels),
        start_time,
        end_time,
    )


def spend_report(of: SpendReport) -> pb.SpendReportResponse:
    """Raises Refusal if a sum is more than the wire can carry."""
    return pb.SpendReportResponse(
        rows=[_spend_row(spend, values) for values, spend in of.rows],
        total=_spend_row(of.total),
        group_count=of.group_count,
        read_time=timestamp(of.read_time),
    )


def stats(unit: str, of: Stats) -> pb.GetStatsResponse:
    """Raises Refusal if a sum is more than the wire can carry."""
    sums = {name: value for name, value in of._asdict().items() if name.endswith("micros")}
    return pb.GetStatsResponse(
        unit=unit,
        account_count=of.account_count,
        read_time=timestamp(of.read_time),
        **_checked(sums | {"outstanding_micros": of.outstanding_micros}),
    )


def _spend_row(of: Spend, values: tuple[str, ...] = ()) -> pb.SpendRow:
    micros = {"charged_micros": of.charged_micros, "refunded_micros": of.refunded_micros}
    return pb.SpendRow(values=values, charge_count=of.charge_count, **_checked(micros))


def _checked(sums: dict[str, int]) -> dict[str, int]:
    for name, value in sums.items():
        if abs(value) > _INT64_MAX:
            details = {"field": name, "limit_micros": _INT64_MAX}
            raise Refusal("BALANCE_OUT_OF_RANGE", details)
    return sums


def _groups(fields: Fields, request: pb.SpendReportRequest) -> tuple[Group, ...]:
    if len(request.group_by) > GROUPS_MAX:
        count = len(request.group_by)
        fields.wrong("group_by", f"has {count} groups, at most {GROUPS_MAX} are allowed")
        return ()
    groups = [_group(fields, f"group_by[{i}]", one) for i, one in enumerate(request.group_by)]
    for number, group in enumerate(groups):
        if group and group in groups[:number]:
            fields.wrong(f"group_by[{number}]", "is there already; each may be there once")
    return tuple(group for group in groups if group)


def _group(fields: Fields, path: str, of: pb.SpendGroup) -> Group | None:
    match of.WhichOneof("by"):
        case "label":
            if not of.label:
                fields.wrong(f"{path}.label", f"is required, 1 to {LABEL_KEY_BYTES_MAX} bytes")
            return Group(
                Dimension.LABEL, fields.note(f"{path}.label", of.label, LABEL_KEY_BYTES_MAX)
            )
        case "dimension":
            dimension = fields.one_of(f"{path}.dimension", of.dimension, _DIMENSIONS)
            return Group(dimension) if dimension else None
    fields.wrong(path, "one of label and dimension is required")
    return None
