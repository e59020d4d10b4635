"""What the servicers share: the doors to the lanes and to the reads, and who is calling."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Final, NamedTuple, TypeAlias

import grpc

from meterhold.v1 import metering_service_pb2 as pb
from meterhold_server.batching import failures
from meterhold_server.batching.engine import Engine
from meterhold_server.batching.places import Answers
from meterhold_server.batching.reader import Reader, Reads
from meterhold_server.core.expiry import is_due
from meterhold_server.core.model import EMPTY_BALANCE, AccountKey, Balance, account_id_of
from meterhold_server.core.operations import Chain, Expire, Operation, RefundCharge
from meterhold_server.core.outcomes import Elsewhere, Expired, Outcome, Rejected
from meterhold_server.rpc.errors import Refusal, refusal_of
from meterhold_server.rpc.requests import Caller
from meterhold_server.storage.pages import read_account, read_capture_seq

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_PREVIOUS_ATTEMPTS_KEY: Final = "grpc-previous-rpc-attempts"

_ORDERS: Final = count()

CALL_SECONDS_MAX: Final = 30.0
"""How long a call that came without a deadline may take."""


def was_sent_before(context: Context) -> bool:
    """Whether the transport has sent the request before, by its own retry policy."""
    return any(key == _PREVIOUS_ATTEMPTS_KEY for key, _ in context.invocation_metadata() or ())


class Service(NamedTuple):
    engine: Engine
    reader: Reads
    caller: Caller
    reports: Reads
    verifier: Reads
    summarizer: Reader
    credentials: Reader
    order: int | None = None
    """What is submitted with the same number is carried out in its order; None = as is best."""

    def of(self, caller: Caller) -> Service:
        """The service as it is for a caller, for whom `reader` sees no other namespace.

        All reads are in turn with those for other namespaces.
        """
        return self._replace(
            caller=caller,
            reader=self.reader.within(caller.namespace),
            reports=self.reports.in_line(caller.namespace),
            verifier=self.verifier.in_line(caller.namespace),
        )

    def in_order(self) -> Service:
        """The service for what has to be begun in its order, as in no other."""
        return self._replace(order=next(_ORDERS))

    async def submit(self, operation: Operation, context: Context) -> Outcome:
        """Carry an operation out, on the account that it belongs to.

        Raises Refusal, InvalidRequest or Failure.
        """
        outcome = await self._submit(operation, context)
        while isinstance(outcome, Elsewhere):
            operation = _at_account(operation, outcome.account)
            outcome = await self._submit(operation, context)
        if isinstance(outcome, Rejected):
            raise refusal_of(outcome)
        return outcome

    async def submit_many(
        self, operations: Sequence[Operation], context: Context, give_up: float
    ) -> Answers:
        """Carry operations out, each on its account. Answers what each came to, in order.

        One that was `Elsewhere` is carried out after all others. `give_up`, on the monotonic clock,
        is when a call without a deadline is told that the rest is not known.
        """
        answers = await self._submit_many(operations, context, give_up)
        wanted = list(operations)
        while moved := {n: a for n, a in enumerate(answers) if isinstance(a, Elsewhere)}:
            for number, elsewhere in moved.items():
                wanted[number] = _at_account(wanted[number], elsewhere.account)
            again = await self._submit_many([wanted[n] for n in moved], context, give_up)
            for number, answer in zip(moved, again, strict=True):
                answers[number] = answer
        return answers

    async def _submit(self, operation: Operation, context: Context) -> Outcome:
        remaining = context.time_remaining()
        if remaining is None:
            return await self._bounded(operation)
        return await self.engine.submit(operation, time.monotonic() + remaining)

    async def _submit_many(
        self, operations: Sequence[Operation], context: Context, give_up: float
    ) -> Answers:
        remaining = context.time_remaining()
        if remaining is not None:
            return await self.engine.submit_many(
                operations, time.monotonic() + remaining, self.order
            )
        submitted = self.engine.submit_many(operations, give_up, self.order)
        try:
            return await asyncio.wait_for(submitted, give_up - time.monotonic())
        except TimeoutError:
            return [failures.outcome_unknown() for _ in operations]

    async def capture_seq(self, operation: RefundCharge, capture: pb.Capture) -> int:
        """Which entry a settle wrote. That never changes, so that it is read beforehand."""
        names = capture.reservation_id, capture.capture_id
        seq = await self.reader.run(read_capture_seq, operation.account_id, *names)
        if seq is None:
            details = dict(zip(("reservation_id", "capture_id"), names, strict=True))
            raise Refusal("ENTRY_NOT_FOUND", details)
        return int(seq)

    async def current_balance(self, account: AccountKey, context: Context) -> Balance:
        """The balance now. What is due is made to expire first, by the operation for it."""
        read = await self.reader.run(read_account, account_id_of(account))
        if read is None:
            return EMPTY_BALANCE
        if not is_due(read.account, read.now):
            return read.account.balance()
        outcome = await self.submit(Expire(account), context)
        assert isinstance(outcome, Expired)
        return outcome.balance

    async def _bounded(self, operation: Operation) -> Outcome:
        deadline = time.monotonic() + CALL_SECONDS_MAX
        try:
            return await asyncio.wait_for(self.engine.submit(operation, deadline), CALL_SECONDS_MAX)
        except TimeoutError:
            raise failures.outcome_unknown() from None


def _at_account(operation: Operation, account: AccountKey) -> Operation:
    """An operation that did not name its account, and now does."""
    assert not isinstance(operation, Chain), "the operations of a chain name their accounts"
    return replace(operation, account=account)
