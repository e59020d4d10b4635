"""The asynchronous twin of `_calls.py`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from meterhold import _channel, _coalescing, _errors, _keys, _replay
from meterhold._async_coalescer import AsyncCoalescer
from meterhold._coalescing import Throttle
from meterhold.v1 import (
    admin_service_pb2_grpc,
    ledger_service_pb2_grpc,
    metering_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from meterhold import _answers, _requests
    from meterhold._channel import Endpoint

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_PageRequest = TypeVar("_PageRequest", bound="_requests.PageRequest")
_Page = TypeVar("_Page", bound="_answers.Page")
_Item = TypeVar("_Item")


class AsyncCalls:
    """The stubs of a channel, and the one way to call them. Belongs to one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        channel: grpc.aio.Channel | None,
        timeout_seconds: float,
        attempt_timeout_seconds: float,
        *,
        coalesce: bool,
    ) -> None:
        self._timeout_seconds = _channel.checked_timeout_seconds(timeout_seconds)
        self._attempt_timeout_seconds = _channel.checked_timeout_seconds(attempt_timeout_seconds)
        self._metadata = endpoint.metadata()
        self._own_channel = endpoint.open_aio() if channel is None else None
        self._closed = False
        ready = channel or self._own_channel
        assert ready is not None
        self.metering: metering_service_pb2_grpc.MeteringServiceAsyncStub = (
            metering_service_pb2_grpc.MeteringServiceStub(ready)
        )
        self.ledger: ledger_service_pb2_grpc.LedgerServiceAsyncStub = (
            ledger_service_pb2_grpc.LedgerServiceStub(ready)
        )
        self.admin: admin_service_pb2_grpc.AdminServiceAsyncStub = (
            admin_service_pb2_grpc.AdminServiceStub(ready)
        )
        throttle = Throttle() if channel is None else None
        self._coalescer = (
            AsyncCoalescer(self.metering.Batch, self._metadata, throttle) if coalesce else None
        )

    async def aclose(self) -> None:
        self._closed = True
        if self._own_channel is not None:
            await self._own_channel.close()
            if self._coalescer is not None:
                await self._coalescer.aclose()

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        timeout_seconds: float | None,
    ) -> _Response:
        """Make a call, and again with the same key while its outcome is unknown."""
        seconds = self._timeout_seconds
        if timeout_seconds is not None:
            seconds = _channel.checked_timeout_seconds(timeout_seconds)
        key = _keys.key_of(request)
        attempt_seconds = _replay.attempt_seconds(request, seconds, self._attempt_timeout_seconds)
        attempts = _replay.Attempts(key, seconds, attempt_seconds)
        if self._closed:
            raise _errors.client_closed(call=_keys.call_of(request), key=key or "")
        while True:
            try:
                left = attempts.begin()
                if self._coalescer is not None and _coalescing.may_join(request, key, left):
                    response = await self._coalescer.send(method, request, attempts)
                else:
                    response = await method(
                        request,
                        timeout=left,
                        metadata=self._metadata(),
                        wait_for_ready=attempts.number > 1,
                    )
            except grpc.RpcError as error:
                failure = _errors.from_rpc_error(error, call=_keys.call_of(request), key=key or "")
            else:
                # What grpc.aio makes of an answer that cannot be parsed, against its types.
                if response is not None:
                    return response
                failure = _errors.unreadable_answer(call=_keys.call_of(request), key=key or "")
            await asyncio.sleep(attempts.pause_seconds(failure))
            if self._closed:
                raise attempts.unknown or failure

    async def items(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_PageRequest, _Page],
        request: _PageRequest,
        items: Callable[[_Page], Iterable[_Item]],
        timeout_seconds: float | None,
    ) -> AsyncIterator[_Item]:
        """Call for page after page."""
        while True:
            page = await self.call(method, request, timeout_seconds)
            for item in items(page):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
