"""LedgerService: what was written, in pages."""

from __future__ import annotations

from typing import Any, Final

from meterhold.v1 import ledger_service_pb2 as pb
from meterhold.v1 import types_pb2
from meterhold.v1.ledger_service_pb2_grpc import LedgerServiceServicer
from meterhold_server.core.model import (
    AccountKey,
    ClaimKind,
    EntryKind,
    ReservationState,
    account_id_of,
)
from meterhold_server.rpc import page_token, reports, responses
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.requests import account_key, reservation_id, unit_of
from meterhold_server.rpc.service import Context, Service
from meterhold_server.rpc.validation import KEY_CHARACTERS_MAX, Fields
from meterhold_server.storage import pages
from meterhold_server.storage.entry_pages import EntryFilter, page_of_entries
from meterhold_server.storage.reports import read_spend, read_stats

_KINDS: Final[dict[int, EntryKind | None]] = {
    types_pb2.EntryKind.Value(f"ENTRY_KIND_{kind}"): kind for kind in EntryKind
}
_STATES: Final[dict[int, ReservationState | None]] = {
    types_pb2.ReservationState.Value(f"RESERVATION_STATE_{state}"): state
    for state in ReservationState
}

_CLAIM_KINDS: Final = {
    "debit_key": (ClaimKind.DEBIT_ONCE,),
    "grant_key": (ClaimKind.GRANT_ONCE, ClaimKind.GRANT_AFTER_TOMBSTONE),
    "refund_key": (ClaimKind.REFUND_CHARGE,),
}
"""What a key of each selector was used for."""


class LedgerServicer(LedgerServiceServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def GetReservation(
        self, request: pb.GetReservationRequest, context: Context
    ) -> pb.GetReservationResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        name = reservation_id(fields, request)
        fields.done()
        account_id = await self._current(account, context)
        found = await self._service.reader.run(pages.read_reservation, account_id, name)
        if found is None:
            raise Refusal("RESERVATION_NOT_FOUND", {"reservation_id": name})
        return pb.GetReservationResponse(reservation=responses.reservation(found))

    async def ListReservations(
        self, request: pb.ListReservationsRequest, context: Context
    ) -> pb.ListReservationsResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        states = [
            fields.one_of(f"states[{i}]", state, _STATES) for i, state in enumerate(request.states)
        ]
        filters = ("reservations", account, sorted(request.states))
        size = page_token.page_size(fields, request.page_size)
        after = page_token.decode_time_and_id(fields, request.page_token, filters)
        fields.done()
        account_id = await self._current(account, context)
        found = await self._service.reader.run(
            pages.page_of_reservations,
            account_id,
            states=[state for state in states if state],
            after=after,
            limit=size + 1,
        )
        last = found[size - 1] if len(found) > size else None
        return pb.ListReservationsResponse(
            reservations=[responses.reservation(item) for item in found[:size]],
            next_page_token=page_token.encode(
                filters, (last.create_time.isoformat(), last.reservation_id)
            )
            if last
            else "",
        )

    async def ListEntries(
        self, request: pb.ListEntriesRequest, context: Context
    ) -> pb.ListEntriesResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        kinds = [fields.one_of(f"kinds[{i}]", kind, _KINDS) for i, kind in enumerate(request.kinds)]
        start_time, end_time = fields.time_range(request)
        wanted = EntryFilter(
            tuple(kind for kind in kinds if kind),
            fields.labels("labels", request.labels),
            start_time,
            end_time,
        )
        filters = (
            "entries",
            account,
            sorted(request.kinds),
            request.oldest_first,
            sorted(request.labels.items()),
            start_time,
            end_time,
        )
        size = page_token.page_size(fields, request.page_size)
        after_seq = page_token.decode_seq(fields, request.page_token, filters)
        fields.done()
        account_id = await self._current(account, context)
        found = await self._service.reader.run(
            page_of_entries,
            account_id,
            wanted,
            oldest_first=request.oldest_first,
            after_seq=after_seq,
            limit=size,
        )
        after_seq = found.next_after_seq
        return pb.ListEntriesResponse(
            entries=[responses.entry(item) for item in found.entries],
            next_page_token=page_token.encode(filters, (after_seq,)) if after_seq else "",
        )

    async def GetEntry(self, request: pb.GetEntryRequest, context: Context) -> pb.GetEntryResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        selector = request.WhichOneof("selector")
        if selector is None:
            fields.wrong("selector", "one of seq, debit_key, grant_key and refund_key is required")
        elif selector != "seq":
            fields.text(selector, getattr(request, selector), KEY_CHARACTERS_MAX)
        elif fields.count("seq", request.seq) == 0:
            fields.wrong("seq", "is 0, at least 1 is required")
        fields.done()
        account_id = await self._current(account, context)
        if selector == "seq":
            found = await self._service.reader.run(pages.read_entry, account_id, request.seq)
        else:
            assert selector is not None
            found = await self._service.reader.run(
                pages.read_entry_by_key,
                account.namespace,
                _CLAIM_KINDS[selector],
                getattr(request, selector),
                account_id,
            )
        if found is None:
            raise Refusal("ENTRY_NOT_FOUND", {selector: getattr(request, selector)})
        return pb.GetEntryResponse(entry=responses.entry(found))

    async def ListLots(self, request: pb.ListLotsRequest, context: Context) -> pb.ListLotsResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        filters = ("lots", account, request.include_spent)
        size = page_token.page_size(fields, request.page_size)
        after_seq = page_token.decode_seq(fields, request.page_token, filters)
        fields.done()
        account_id = await self._current(account, context)
        found = await self._service.reader.run(
            pages.page_of_lots,
            account_id,
            include_spent=request.include_spent,
            after_seq=after_seq,
            limit=size + 1,
        )
        return pb.ListLotsResponse(
            lots=[responses.lot(item) for item in found[:size]],
            next_page_token=_token_of_seq(filters, found, size),
        )

    async def GetStats(self, request: pb.GetStatsRequest, context: Context) -> pb.GetStatsResponse:
        fields = Fields()
        unit = unit_of(fields, request)
        fields.done()
        namespace = self._service.caller.namespace
        return reports.stats(unit, await self._service.reports.run(read_stats, namespace, unit))

    async def SpendReport(
        self, request: pb.SpendReportRequest, context: Context
    ) -> pb.SpendReportResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller, required=False)
        wanted = reports.spend_query(fields, request, account)
        fields.done()
        if request.account:
            await self._current(account, context)
        return reports.spend_report(await self._service.reports.run(read_spend, wanted))

    async def _current(self, account: AccountKey, context: Context) -> str:
        """The account's id, once what is due in it has expired."""
        await self._service.current_balance(account, context)
        return account_id_of(account)


def _token_of_seq(filters: tuple[Any, ...], found: list[Any], size: int) -> str:
    return page_token.encode(filters, (found[size - 1].seq,)) if len(found) > size else ""
