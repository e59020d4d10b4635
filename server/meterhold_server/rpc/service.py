"""What the servicers share: the doors to the lanes and to the reads, and who is calling."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias

import grpc

from meterhold_server.batching import failures
from meterhold_server.batching.engine import Engine
from meterhold_server.batching.reader import Reader
from meterhold_server.core.expiry import is_due
from meterhold_server.core.model import EMPTY_BALANCE, AccountKey, Balance, account_id_of
from meterhold_server.core.operations import Expire, Operation
from meterhold_server.core.outcomes import Elsewhere, Expired, Outcome, Rejected
from meterhold_server.rpc.errors import refusal_of
from meterhold_server.rpc.requests import Caller
from meterhold_server.storage.pages import read_account

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_PREVIOUS_ATTEMPTS_KEY: Final = "grpc-previous-rpc-attempts"

CALL_SECONDS_MAX: Final = 30.0
"""How long a call that came without a deadline may take."""


def was_sent_before(context: Context) -> bool:
    """Whether the transport has sent the request before, by its own retry policy."""
    return any(key == _PREVIOUS_ATTEMPTS_KEY for key, _ in context.invocation_metadata() or ())


class Service(NamedTuple):
    engine: Engine
    reader: Reader
    caller: Caller
    reports: Reader
    verifier: Reader

    async def submit(self, operation: Operation, context: Context) -> Outcome:
        """Carry an operation out, on the account that it belongs to.

        Raises Refusal, InvalidRequest or Failure.
        """
        outcome = await self._submit(operation, context)
        while isinstance(outcome, Elsewhere):
            operation = replace(operation, account=outcome.account)
            outcome = await self._submit(operation, context)
        if isinstance(outcome, Rejected):
            raise refusal_of(outcome)
        return outcome

    async def _submit(self, operation: Operation, context: Context) -> Outcome:
        remaining = context.time_remaining()
        if remaining is None:
            return await self._bounded(operation)
        return await self.engine.submit(operation, time.monotonic() + remaining)

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
