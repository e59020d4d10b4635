"""What calls have to do with each other that go to the server in one Batch. No I/O.

As long as few calls are under way, each goes by itself and at once. What comes while more are is
gathered, and goes in one message. Each call keeps its own result or error, its own deadline and its
own replays: for it the message is the transport.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import grpc

from meterhold import _channel, _errors
from meterhold.v1 import metering_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meterhold._replay import Attempts

ALONE_MAX: Final = 4
"""While fewer operations than that are under way, a call goes at once."""

MESSAGES_UNDER_WAY_MAX: Final = 2
"""Of those that are under way when there are more. See docs/decisions/0014-coalescing.md."""

OPERATIONS_MAX: Final = 128
"""Of one message. With `REQUEST_BYTES_MAX` it keeps every message and answer below 4 MiB."""

REQUEST_BYTES_MAX: Final = 16 * 1024
"""A larger request, which is hardly a valid one, goes by itself."""

PATIENCE_SECONDS: Final = 0.05
"""What a call waits for a message to end before it goes, too: one that hangs must not stop all."""

_SECONDS_MIN: Final = 2 * PATIENCE_SECONDS
"""A call that has less time goes by itself."""

ALONE: Final = object()
"""Says that a call is to go by itself after all."""

# What a Batch can carry, but for what would cut it in two: see docs/semantics.md.
_FIELDS: Final[dict[type, str]] = {
    metering_service_pb2.ReserveRequest: "reserve",
    metering_service_pb2.SettleRequest: "settle",
    metering_service_pb2.ReleaseRequest: "release",
    metering_service_pb2.ExtendRequest: "extend",
    metering_service_pb2.DebitRequest: "debit",
    metering_service_pb2.DebitOnceRequest: "debit_once",
    metering_service_pb2.GrantOnceRequest: "grant_once",
}

_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Future(Protocol):
    """As much of the futures of asyncio and of threads as is used here."""

    def done(self) -> bool: ...

    def set_result(self, result: Any, /) -> None: ...

    def set_exception(self, exception: BaseException, /) -> None: ...


_F = TypeVar("_F", bound=Future)


class Waiting(Generic[_F]):
    """An attempt at a call that goes with others. `future` gets its answer, ALONE or an error."""

    __slots__ = ("attempts", "field", "future", "request")

    def __init__(self, request: Any, attempts: Attempts, future: _F) -> None:
        self.request = request
        self.field = _FIELDS[type(request)]
        self.attempts = attempts
        self.future = future


class CallError(grpc.RpcError):
    """What the stub would have raised if the call had gone by itself."""

    def __init__(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> None:
        super().__init__(f"{code.name}: {details}")
        self._code = code
        self._details = details
        self._trailing_metadata = trailing_metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> Any:
        return self._trailing_metadata


class OperationError(CallError):
    """The error of one operation, in an answer to a Batch."""


def is_room(messages: int, operations: int) -> bool:
    """Whether another message may go at once, besides those under way."""
    return operations < ALONE_MAX or messages < MESSAGES_UNDER_WAY_MAX


def may_join(request: Any, key: str | None, seconds: float) -> bool:
    """Whether a call may go with others.

    One without a key may not: nobody could tell what became of it if the message is sent again.
    """
    return (
        type(request) in _FIELDS
        and bool(key)
        and seconds >= _SECONDS_MIN
        and request.ByteSize() <= REQUEST_BYTES_MAX
    )


def message(waiting: Iterable[Waiting[_F]]) -> metering_service_pb2.BatchRequest:
    batch = metering_service_pb2.BatchRequest()
    add: Any = batch.operations.add
    for each in waiting:
        add(**{each.field: each.request})
    return batch


def begin(waiting: Sequence[Waiting[_F]]) -> float:
    """Say when a message is sent. Answers how many seconds it may take: as many as any of them.

    The server may begin each of them until then.
    """
    now = time.monotonic()
    until = max(each.attempts.deadline for each in waiting)
    until = max(until, now + 0.001)
    for each in waiting:
        each.attempts.sent_until(until)
    return until - now


def wait_for_ready(waiting: Iterable[Waiting[_F]]) -> bool:
    """A first attempt fails at once if there is no connection."""
    return all(each.attempts.number > 1 for each in waiting)


def answer(
    waiting: Sequence[Waiting[_F]], response: metering_service_pb2.BatchResponse | None
) -> None:
    """Hand the results out. What cannot be read is None."""
    results: Sequence[Any] = response.results if response is not None else ()
    if len(results) != len(waiting):
        results = [None] * len(waiting)
    for each, result in zip(waiting, results, strict=True):
        if each.future.done():
            continue
        if result is not None and result.HasField(each.field):
            each.future.set_result(getattr(result, each.field))
        elif result is not None and result.HasField("error"):
            each.future.set_exception(_operation_error(result.error))
        else:
            each.future.set_result(None)


def fail(waiting: Iterable[Waiting[_F]], error: Any) -> None:
    """Tell all that the message failed, as their own calls would have.

    If it was refused before anything was done, each goes by itself, and is told what is true of it.
    """
    code = error.code()
    if code in _errors.DEFINITE_CODES:
        part(waiting)
        return
    for each in waiting:
        if not each.future.done():
            each.future.set_exception(
                CallError(code, error.details() or "", error.trailing_metadata())
            )


def break_off(waiting: Iterable[Waiting[_F]], error: Exception) -> None:
    """Tell all that the message could not be sent."""
    for each in waiting:
        if not each.future.done():
            each.future.set_exception(error)


def part(waiting: Iterable[Waiting[_F]]) -> None:
    """Let each go by itself."""
    for each in waiting:
        if not each.future.done():
            each.future.set_result(ALONE)


def too_late() -> CallError:
    """What a stub raises when the deadline of its call has passed."""
    return CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class Throttle:
    """Whether what was unavailable may be sent again: not if too much of late was. As in gRPC."""

    def __init__(self) -> None:
        self._tokens = float(_channel.RETRY_TOKENS_MAX)

    def succeeded(self, number: int) -> None:
        tokens = self._tokens + number * _channel.RETRY_TOKEN_RATIO
        self._tokens = min(tokens, _channel.RETRY_TOKENS_MAX)

    def failed(self) -> bool:
        """Count a failure. Answers whether it may be sent again."""
        self._tokens = max(0.0, self._tokens - 1)
        return self._tokens > _channel.RETRY_TOKENS_MAX / 2


class Resends:
    """An operation that was unavailable is sent again, as the transport does with a call."""

    def __init__(self, attempts: Attempts, throttle: Throttle) -> None:
        self._deadline = attempts.deadline
        self._throttle = throttle
        self._left = _channel.TRIES_MAX - 1
        self._pause_seconds = _channel.FIRST_BACKOFF_SECONDS

    def pause_seconds(self, error: OperationError) -> float:
        """Answer how long to wait before it is sent again. Raises `error` if it is not.

        What may have been done is left to the replays, which know how to take a refusal after it.
        """
        unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
        may_be_sent = unavailable and self._throttle.failed() and self._left > 0
        if not may_be_sent or _errors.from_rpc_error(error).applied != "NO":
            raise error
        self._left -= 1
        pause = random.uniform(0, self._pause_seconds)
        self._pause_seconds = min(
            self._pause_seconds * _channel.BACKOFF_MULTIPLIER, _channel.BACKOFF_SECONDS_MAX
        )
        if time.monotonic() + pause >= self._deadline:
            raise error
        return pause


def _operation_error(error: metering_service_pb2.BatchError) -> OperationError:
    code = _CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    # Field by field a google.rpc.Status, as the bytes of which it goes with a call of its own.
    trailing = ((_errors.DETAILS_KEY, error.SerializeToString()),)
    return OperationError(code, error.message, trailing)
