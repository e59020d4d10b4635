"""How a call of the synchronous client is made: its stubs, its deadline, its replays."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import grpc

from meterhold import _channel, _coalescing, _errors, _keys, _replay
from meterhold._coalescer import Coalescer
from meterhold._coalescing import Throttle
from meterhold.v1 import (
    admin_service_pb2_grpc,
    ledger_service_pb2_grpc,
    metering_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from meterhold import _answers, _requests
    from meterhold._channel import Endpoint

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_PageRequest = TypeVar("_PageRequest", bound="_requests.PageRequest")
_Page = TypeVar("_Page", bound="_answers.Page")
_Item = TypeVar("_Item")


class Calls:
    """The stubs of a channel, and the one way to call them. Safe to share between threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        channel: grpc.Channel | None,
        timeout_seconds: float,
        attempt_timeout_seconds: float,
        *,
        coalesce: bool,
    ) -> None:
        self._timeout_seconds = _channel.checked_timeout_seconds(timeout_seconds)
        self._attempt_timeout_seconds = _channel.checked_timeout_seconds(attempt_timeout_seconds)
        self._metadata = endpoint.metadata()
        self._own_channel = endpoint.open() if channel is None else None
        self._closed = threading.Event()
        ready = channel or self._own_channel
        assert ready is not None
        self.metering = metering_service_pb2_grpc.MeteringServiceStub(ready)
        self.ledger = ledger_service_pb2_grpc.LedgerServiceStub(ready)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(ready)
        throttle = Throttle() if channel is None else None
        self._coalescer = (
            Coalescer(self.metering.Batch, self._metadata, throttle) if coalesce else None
        )

    def close(self) -> None:
        self._closed.set()
        if self._own_channel is not None:
            self._own_channel.close()

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
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
        while True:
            try:
                left = attempts.begin()
                if self._coalescer is not None and _coalescing.may_join(request, key, left):
                    return self._coalescer.send(method, request, attempts)
                return method(
                    request,
                    timeout=left,
                    metadata=self._metadata(),
                    wait_for_ready=attempts.number > 1,
                )
            except grpc.RpcError as error:
                failure = _errors.from_rpc_error(error, call=_keys.call_of(request), key=key or "")
            except ValueError:  # What grpc makes of a call on a closed channel.
                if not self._closed.is_set():
                    raise
                raise attempts.unknown or _errors.client_closed(
                    call=_keys.call_of(request), key=key or ""
                ) from None
            pause = attempts.pause_seconds(failure)
            if self._closed.wait(pause):
                raise attempts.unknown or failure

    def items(
        self,
        method: grpc.UnaryUnaryMultiCallable[_PageRequest, _Page],
        request: _PageRequest,
        items: Callable[[_Page], Iterable[_Item]],
        timeout_seconds: float | None,
    ) -> Iterator[_Item]:
        """Call for page after page."""
        while True:
            page = self.call(method, request, timeout_seconds)
            yield from items(page)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
