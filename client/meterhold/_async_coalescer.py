"""Sends concurrent calls of an event loop together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from meterhold import _coalescing
from meterhold._coalescing import ALONE, OperationError, Resends, Throttle, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc.aio

    from meterhold._channel import Metadata
    from meterhold._replay import Attempts
    from meterhold.v1 import metering_service_pb2

    _Batch = grpc.aio.UnaryUnaryMultiCallable[
        metering_service_pb2.BatchRequest, metering_service_pb2.BatchResponse
    ]
    _Message = list[Waiting[asyncio.Future[Any]]]

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncCoalescer:
    """Sends a call at once if few are under way, and together those that come while more are.

    Belongs to one event loop.
    """

    def __init__(
        self, batch: _Batch, metadata: Callable[[], Metadata], throttle: Throttle | None
    ) -> None:
        """`metadata` answers what a message carries.

        `throttle` None = what was unavailable is not sent again.
        """
        self._batch = batch
        self._metadata = metadata
        self._throttle = throttle
        self._supported = True
        self._running_loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Waiting[asyncio.Future[Any]]] = deque()
        self._messages_count = 0
        self._operations_count = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._flush_is_due = False
        self._patience: asyncio.TimerHandle | None = None

    async def aclose(self) -> None:
        """Wait until what was sent has ended; the channel is closed before."""
        while self._waiting:
            self._waiting.popleft().future.cancel()
        if self._sending:
            await asyncio.wait(self._sending)

    async def send(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        attempts: Attempts,
    ) -> _Response:
        """Make one attempt at a call. Raises as the method does."""
        resends: Resends | None = None
        while self._supported and not self._goes_at_once():
            waiting = Waiting(request, attempts, self._loop.create_future())
            self._join(waiting)
            try:
                response: Any = await waiting.future
            except OperationError as error:
                if self._throttle is None:
                    raise
                resends = resends or Resends(attempts, self._throttle)
                await asyncio.sleep(resends.pause_seconds(error))
                continue
            if response is not ALONE:
                answered: _Response = response
                return answered
            break
        return await self._send_alone(method, request, attempts)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, asked for once: that takes a system call in some versions of Python."""
        if self._running_loop is None:
            self._running_loop = asyncio.get_running_loop()
        return self._running_loop

    async def _send_alone(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        attempts: Attempts,
    ) -> _Response:
        self._begun(1)
        try:
            return await method(
                request,
                timeout=max(attempts.deadline - time.monotonic(), 0.001),
                metadata=self._metadata(),
                wait_for_ready=attempts.number > 1,
            )
        finally:
            self._ended(1)

    def _goes_at_once(self) -> bool:
        return self._operations_count < _coalescing.ALONE_MAX and not self._waiting

    def _join(self, waiting: Waiting[asyncio.Future[Any]]) -> None:
        self._waiting.append(waiting)
        if self._flush_is_due:
            return
        if self._is_room():
            # Behind all that is about to make a call, too.
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        elif self._patience is None:
            self._be_patient()

    def _flush(self, impatient: bool = False) -> None:
        """Send what waits, as far as there is room. `impatient`: all of it."""
        self._flush_is_due = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        while self._waiting and (impatient or self._is_room()):
            message = self._take()
            if len(message) == 1 or not self._supported:
                _coalescing.part(message)
            elif message:
                self._begun(len(message))
                task = self._loop.create_task(self._send(message))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
        if self._waiting:
            self._be_patient()

    def _be_patient(self) -> None:
        """Wait for something to end, but not for ever: it may hang."""
        self._patience = self._loop.call_later(_coalescing.PATIENCE_SECONDS, self._flush, True)

    def _take(self) -> _Message:
        """What goes into one message. Those whose callers have gone are left out."""
        message: _Message = []
        while self._waiting and len(message) < _coalescing.OPERATIONS_MAX:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                message.append(waiting)
        return message

    async def _send(self, message: _Message) -> None:
        seconds = _coalescing.begin(message)
        cut = _Cut(message)
        try:
            response = await self._batch(
                _coalescing.message(message),
                timeout=seconds,
                metadata=self._metadata(),
                wait_for_ready=_coalescing.wait_for_ready(message),
            )
        except grpc.RpcError as error:
            self._supported &= error.code() is not grpc.StatusCode.UNIMPLEMENTED
            _coalescing.fail(message, error)
        except asyncio.CancelledError:  # The channel, or the event loop, is closed.
            for waiting in message:
                waiting.future.cancel()
            raise
        except Exception as error:
            _coalescing.break_off(message, error)
        else:
            _coalescing.answer(message, response)
            if self._throttle is not None:
                self._throttle.succeeded(len(message))
        finally:
            cut.end()
            # First those go on whose answers these are: what they ask for next is gathered, too.
            self._loop.call_soon(self._ended, len(message))

    def _is_room(self) -> bool:
        return _coalescing.is_room(self._messages_count, self._operations_count)

    def _begun(self, operations: int) -> None:
        self._messages_count += 1
        self._operations_count += operations

    def _ended(self, operations: int) -> None:
        self._messages_count -= 1
        self._operations_count -= operations
        if self._waiting:
            self._flush()


class _Cut:
    """Ends the calls of a message whose own deadlines pass before the message does."""

    def __init__(self, message: Sequence[Waiting[asyncio.Future[Any]]]) -> None:
        self._message = message
        self._timer: asyncio.TimerHandle | None = None
        self._set(time.monotonic())

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, now: float) -> None:
        deadlines = [each.attempts.deadline for each in self._message if not each.future.done()]
        if deadlines:
            seconds = min(deadlines) - now
            self._timer = asyncio.get_running_loop().call_later(max(seconds, 0), self._cut)

    def _cut(self) -> None:
        now = time.monotonic()
        for each in self._message:
            if each.attempts.deadline <= now and not each.future.done():
                each.future.set_exception(_coalescing.too_late())
        self._set(now)
