"""The service in memory: the real handlers, servicers, validation and errors over dicts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar

from meterhold.v1 import admin_service_pb2, ledger_service_pb2, metering_service_pb2
from meterhold_server.core.model import AccountKey, Balance, Rules
from meterhold_server.rpc import stream
from meterhold_server.rpc.access import OpenAccess
from meterhold_server.rpc.admin import AdminServicer
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.handlers import generic_handler
from meterhold_server.rpc.ledger import LedgerServicer
from meterhold_server.rpc.metering import MeteringServicer
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.service import Context, Service
from meterhold_server.testing.engine import MemoryEngine
from meterhold_server.testing.reader import MemoryReader

_NAMESPACE: Final = "default"

_METERING: Final = metering_service_pb2.DESCRIPTOR.services_by_name["MeteringService"]
_ADMIN: Final = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
_LEDGER: Final = ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"]

_T = TypeVar("_T")


class MemoryService:
    """Answers calls, bytes for bytes. Needs no event loop. Not for threads to share."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """An empty ledger. `clock` tells the time, aware and never earlier than before."""
        rules = Rules()
        self._engine = MemoryEngine(clock, rules)
        engine: Any = self._engine
        reader: Any = MemoryReader(self._engine)
        service = Service(engine, reader, Caller(_NAMESPACE, rules), *[reader] * 4)
        self._service = service
        access = OpenAccess(service)
        self._handlers = (
            generic_handler(_METERING, _metering_servicer, access, "none"),
            generic_handler(_LEDGER, LedgerServicer, access, "none"),
            generic_handler(_ADMIN, AdminServicer, access, "none"),
        )

    def call(self, method: str, request: bytes, context: Context) -> bytes:
        """Answer a call of `method`, such as `/meterhold.v1.MeteringService/Reserve`.

        Of a stream it answers one message.
        Raises what `context.abort` raises. The context must have a deadline.
        """
        named: Any = _Named(method, ())
        found: list[Any] = [handler.service(named) for handler in self._handlers]
        handler = next(filter(None, found))
        asked = handler.request_deserializer(request)
        if handler.request_streaming:
            response = _done(stream.answer(asked, self._service, context))
        else:
            response = _done(handler.unary_unary(asked, context))
        return bytes(handler.response_serializer(response))

    def violations(self) -> list[str]:
        """What is wrong with the books, in plain words; empty if nothing is."""
        return self._engine.violations()


class _MeteringServicer(MeteringServicer):
    async def _balance_at(self, account: AccountKey, min_seq: int, context: Context) -> Balance:
        """Does not wait for `min_seq`: nothing arrives in memory while a call is carried out."""
        balance = await self._service.current_balance(account, context)
        if balance.seq < min_seq:
            details = {"ledger_seq": balance.seq, "min_seq": min_seq}
            raise Refusal("LEDGER_BEHIND", details, retry_after_seconds=0.5)
        return balance


def _metering_servicer(service: Service) -> _MeteringServicer:
    return _MeteringServicer(service, asyncio.Event())


class _Named(NamedTuple):
    """What gRPC looks a handler up by."""

    method: str
    invocation_metadata: tuple[()]


def _done(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that never waits, and so needs no event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stopped:
        answer: _T = stopped.value
        return answer
    coroutine.close()
    raise AssertionError("in memory there is nothing to wait for")
