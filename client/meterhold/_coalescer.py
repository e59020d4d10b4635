"""Sends concurrent calls of threads together."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from meterhold import _coalescing
from meterhold._coalescing import (
    ALONE,
    CallError,
    OperationError,
    Resends,
    Throttle,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from meterhold._channel import Metadata
    from meterhold._replay import Attempts
    from meterhold.v1 import metering_service_pb2

    _Batch = grpc.UnaryUnaryMultiCallable[
        metering_service_pb2.BatchRequest, metering_service_pb2.BatchResponse
    ]
    _Message = list[Waiting[Future[Any]]]

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class Coalescer:
    """Sends a call at once if few are under way, and together those that come while more are.

    Safe to share between threads, and has none of its own: a message is sent by a thread that makes
    a call, or by the one in which gRPC says that another message has ended. None waits for the
    answers of others, so that whatever interrupts a thread is felt by its own call alone.
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
        self._lock = threading.Lock()
        self._waiting: deque[Waiting[Future[Any]]] = deque()
        self._under_way: dict[object, int] = {}
        """How many operations each message has."""
        _ALL.add(self)

    def forget(self) -> None:
        """Begin anew: what was under way is another process's, and so are its threads."""
        self._lock = threading.Lock()
        self._waiting.clear()
        self._under_way.clear()

    def send(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        attempts: Attempts,
    ) -> _Response:
        """Make one attempt at a call. Raises as the method does."""
        resends: Resends | None = None
        while self._supported and not self._goes_at_once():
            waiting: Waiting[Future[Any]] = Waiting(request, attempts, Future())
            self._waiting.append(waiting)
            try:
                response: Any = self._wait(waiting)
            except OperationError as error:
                if self._throttle is None:
                    raise
                resends = resends or Resends(attempts, self._throttle)
                time.sleep(resends.pause_seconds(error))
                continue
            if response is not ALONE:
                answered: _Response = response
                return answered
            break
        return self._send_alone(method, request, attempts)

    def _goes_at_once(self) -> bool:
        return not self._waiting and self._operations_count() < _coalescing.ALONE_MAX

    def _is_room(self) -> bool:
        return _coalescing.is_room(len(self._under_way), self._operations_count())

    def _operations_count(self) -> int:
        with self._lock:
            return sum(self._under_way.values())

    def _begun(self, message: object, operations: int) -> None:
        with self._lock:
            self._under_way[message] = operations

    def _ended(self, message: object) -> None:
        with self._lock:
            self._under_way.pop(message, None)
        if self._waiting:
            self._flush()

    def _send_alone(
        self,
        method: grpc.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        attempts: Attempts,
    ) -> _Response:
        call = object()
        try:
            self._begun(call, 1)
            return method(
                request,
                timeout=max(attempts.deadline - time.monotonic(), 0.001),
                metadata=self._metadata(),
                wait_for_ready=attempts.number > 1,
            )
        finally:
            self._ended(call)

    def _wait(self, waiting: Waiting[Future[Any]]) -> Any:
        """What became of it. Sends it, with others, if nobody else has within some time."""
        # What was under way may have ended before this one was there to be sent.
        self._flush()
        try:
            while (seconds := waiting.attempts.deadline - time.monotonic()) > 0:
                try:
                    return waiting.future.result(min(seconds, _coalescing.PATIENCE_SECONDS))
                except TimeoutError:
                    if not waiting.future.running():
                        self._flush(impatient=True)
        finally:
            waiting.future.cancel()
        raise _coalescing.too_late()

    def _flush(self, *, impatient: bool = False) -> None:
        """Send what waits, as far as there is room. `impatient`: one message beyond that."""
        while impatient or self._is_room():
            impatient = False
            message = self._take()
            if not message:
                return
            if len(message) == 1 or not self._supported:
                _coalescing.part(message)
            else:
                self._send(message)

    def _take(self) -> _Message:
        """What goes into one message. Those whose callers have gone are left out."""
        message: _Message = []
        with self._lock:
            while self._waiting and len(message) < _coalescing.OPERATIONS_MAX:
                waiting = self._waiting.popleft()
                if waiting.future.set_running_or_notify_cancel():
                    message.append(waiting)
        return message

    def _send(self, message: _Message) -> None:
        number = object()
        try:
            self._begun(number, len(message))
            seconds = _coalescing.begin(message)
            sent = self._batch.future(
                _coalescing.message(message),
                timeout=seconds,
                metadata=self._metadata(),
                wait_for_ready=_coalescing.wait_for_ready(message),
            )
            sent.add_done_callback(partial(self._answered, message, number))
        except Exception as error:  # What grpc makes of a call on a closed channel, say.
            _coalescing.break_off(message, error)
            self._ended(number)
        except BaseException:
            # This thread was interrupted, and must not take the calls of others along.
            _coalescing.fail(message, CallError(grpc.StatusCode.CANCELLED))
            self._ended(number)
            raise

    def _answered(self, message: _Message, number: object, sent: Any) -> None:
        """Called by gRPC when a message has ended."""
        try:
            if sent.code() is grpc.StatusCode.OK:
                _coalescing.answer(message, sent.result())
                if self._throttle is not None:
                    self._throttle.succeeded(len(message))
            else:
                self._supported &= sent.code() is not grpc.StatusCode.UNIMPLEMENTED
                _coalescing.fail(message, sent)
        finally:
            self._ended(number)


_ALL: weakref.WeakSet[Coalescer] = weakref.WeakSet()


def forget_all() -> None:
    """In a process that has just been forked."""
    for coalescer in _ALL:
        coalescer.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_all)
