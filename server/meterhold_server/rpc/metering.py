"""MeteringService: convert, submit, convert back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final, TypeVar

from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceServicer
from meterhold_server.batching import failures
from meterhold_server.core import model
from meterhold_server.core.model import AccountKey, account_id_of
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import (
    Debited,
    Extended,
    Granted,
    Outcome,
    Refunded,
    Reinstated,
    Released,
    Reserved,
    Revoked,
    Settled,
)
from meterhold_server.rpc import batch, requests, responses, stream
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.requests import account_key
from meterhold_server.rpc.service import Context, Service, was_sent_before
from meterhold_server.rpc.validation import Fields
from meterhold_server.storage.pages import (
    read_live_lots,
    read_pending_grants,
)

MIN_SEQ_WAIT_SECONDS: Final = 2.0
_MIN_SEQ_POLL_SECONDS: Final = 0.02

_O = TypeVar("_O", bound=Outcome)


class MeteringServicer(MeteringServiceServicer):
    def __init__(self, service: Service, draining: asyncio.Event) -> None:
        """`draining` is set when streams are to end."""
        self._service = service
        self._draining = draining

    async def Reserve(self, request: pb.ReserveRequest, context: Context) -> pb.ReserveResponse:
        operation = requests.reserve(request, self._service.caller)
        return responses.reserve(
            pb.ReserveResponse(), await self._submit(operation, context, Reserved)
        )

    async def Settle(self, request: pb.SettleRequest, context: Context) -> pb.SettleResponse:
        operation = requests.settle(request, self._service.caller)
        return responses.settle(
            pb.SettleResponse(), await self._submit(operation, context, Settled)
        )

    async def Release(self, request: pb.ReleaseRequest, context: Context) -> pb.ReleaseResponse:
        operation = requests.release(request, self._service.caller)
        return responses.release(
            pb.ReleaseResponse(), await self._submit(operation, context, Released)
        )

    async def Extend(self, request: pb.ExtendRequest, context: Context) -> pb.ExtendResponse:
        operation = requests.extend(request, self._service.caller)
        return responses.extend(
            pb.ExtendResponse(), await self._submit(operation, context, Extended)
        )

    async def Debit(self, request: pb.DebitRequest, context: Context) -> pb.DebitResponse:
        operation = requests.debit(request, self._service.caller)
        if not operation.request_id and was_sent_before(context):
            # Without a key nobody can tell whether an earlier attempt was charged.
            raise failures.outcome_unknown()
        return responses.debit(pb.DebitResponse(), await self._submit(operation, context, Debited))

    async def DebitOnce(
        self, request: pb.DebitOnceRequest, context: Context
    ) -> pb.DebitOnceResponse:
        operation = requests.debit_once(request, self._service.caller)
        return responses.debit(
            pb.DebitOnceResponse(), await self._submit(operation, context, Debited)
        )

    async def GrantOnce(
        self, request: pb.GrantOnceRequest, context: Context
    ) -> pb.GrantOnceResponse:
        operation = requests.grant_once(request, self._service.caller)
        return responses.grant_once(
            pb.GrantOnceResponse(), await self._submit(operation, context, Granted)
        )

    async def RevokeGrant(
        self, request: pb.RevokeGrantRequest, context: Context
    ) -> pb.RevokeGrantResponse:
        operation = requests.revoke_grant(request, self._service.caller)
        return responses.revoke_grant(
            pb.RevokeGrantResponse(), await self._submit(operation, context, Revoked)
        )

    async def ReinstateGrant(
        self, request: pb.ReinstateGrantRequest, context: Context
    ) -> pb.ReinstateGrantResponse:
        operation = requests.reinstate_grant(request, self._service.caller)
        return responses.reinstate_grant(
            pb.ReinstateGrantResponse(), await self._submit(operation, context, Reinstated)
        )

    async def RefundCharge(
        self, request: pb.RefundChargeRequest, context: Context
    ) -> pb.RefundChargeResponse:
        operation = requests.refund_charge(request, self._service.caller)
        if request.WhichOneof("charge") == "capture":
            operation.charge_seq = await self._service.capture_seq(operation, request.capture)
        return responses.refund_charge(
            pb.RefundChargeResponse(), await self._submit(operation, context, Refunded)
        )

    async def Batch(self, request: pb.BatchRequest, context: Context) -> pb.BatchResponse:
        return await batch.carry_out(request, self._service, context)

    def Stream(self, requests: Any, context: Context) -> AsyncGenerator[pb.StreamResponse, None]:
        of_batch: Any = stream.OfBatch(context)
        answer = partial(stream.answer, service=self._service.in_order(), context=of_batch)
        return stream.answers(requests, answer, self._draining)

    async def Balance(self, request: pb.BalanceRequest, context: Context) -> pb.BalanceResponse:
        fields = Fields()
        account = account_key(fields, request, self._service.caller)
        min_seq = fields.count("min_seq", request.min_seq)
        fields.done()
        balance = await self._balance_at(account, min_seq, context)
        response = pb.BalanceResponse(balance=responses.balance(balance))
        if request.include_lots:
            account_id = account_id_of(account)
            for lot in await self._service.reader.run(read_live_lots, account_id):
                response.lots.append(responses.lot(lot))
            for pending in await self._service.reader.run(read_pending_grants, account_id):
                response.pending.append(responses.pending_lot(pending))
        return response

    async def _submit(self, operation: Operation, context: Context, expected: type[_O]) -> _O:
        outcome = await self._service.submit(operation, context)
        assert isinstance(outcome, expected)
        return outcome

    async def _balance_at(
        self, account: AccountKey, min_seq: int, context: Context
    ) -> model.Balance:
        """The balance once the ledger has reached `min_seq`; a replica may take a while."""
        give_up = time.monotonic() + MIN_SEQ_WAIT_SECONDS
        while True:
            balance = await self._service.current_balance(account, context)
            if balance.seq >= min_seq:
                return balance
            if time.monotonic() > give_up:
                details = {"ledger_seq": balance.seq, "min_seq": min_seq}
                raise Refusal("LEDGER_BEHIND", details, retry_after_seconds=0.5)
            await asyncio.sleep(_MIN_SEQ_POLL_SECONDS)
