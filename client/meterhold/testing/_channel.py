"""Channels that lead to a function of this process instead of a server.

As much of `grpc.Channel` and `grpc.aio.Channel` as the generated stubs and the clients use.
Messages are serialized and parsed as on the wire, so that neither side holds the other's objects.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
    )

_SECONDS_WITHOUT_DEADLINE = 30.0

Pairs = tuple[tuple[str, str | bytes], ...]


class Answer(Protocol):
    """Answers a call, or fails it. `method` is such as `/meterhold.v1.MeteringService/Reserve`."""

    def __call__(self, method: str, request: bytes, context: Context, /) -> bytes: ...


class Context:
    """A call, by as much of `grpc.aio.ServicerContext` as Meterhold's servicers look at."""

    def __init__(self, timeout_seconds: float | None, metadata: Iterable[tuple[str, Any]]) -> None:
        self._seconds = _SECONDS_WITHOUT_DEADLINE if timeout_seconds is None else timeout_seconds
        self._metadata = tuple(metadata)

    def time_remaining(self) -> float:
        return self._seconds

    def invocation_metadata(self) -> Pairs:
        return self._metadata

    def fail(self, code: grpc.StatusCode, details: str, trailing_metadata: Pairs = ()) -> NoReturn:
        """End the call with a status. Both kinds of clients look only at what this error has."""
        trailing = grpc.aio.Metadata(*trailing_metadata)
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()
    ) -> NoReturn:
        self.fail(code, details, trailing_metadata)


class Channel:
    """Stands for a `grpc.Channel`. Threads may share it if `answer` lets them."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., Any]:
        def call(
            request: Any,
            timeout: float | None = None,
            metadata: Iterable[tuple[str, Any]] | None = None,
            **_of_the_transport: Any,
        ) -> Any:
            context = Context(timeout, metadata or ())
            if context.time_remaining() <= 0:
                context.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            answered = self._answer(method, request_serializer(request), context)
            return response_deserializer(answered)

        return call

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        _registered_method: bool = False,
    ) -> Callable[..., Iterator[Any]]:
        """Each message is answered before the next is read."""
        answer = self.unary_unary(method, request_serializer, response_deserializer)
        return lambda requests, **options: (answer(each, **options) for each in requests)


class AioChannel:
    """Stands for a `grpc.aio.Channel`, in any event loop."""

    def __init__(self, answer: Answer) -> None:
        self._channel = Channel(answer)

    def unary_unary(self, *method: Any, **of_method: Any) -> Callable[..., Awaitable[Any]]:
        call = self._channel.unary_unary(*method, **of_method)

        async def call_in_turn(request: Any, **options: Any) -> Any:
            # Others get their turn, as they do while a real call is under way.
            await asyncio.sleep(0)
            return call(request, **options)

        return call_in_turn

    def stream_stream(self, *method: Any, **of_method: Any) -> Callable[..., AsyncIterator[Any]]:
        answer = self.unary_unary(*method, **of_method)

        async def answers(requests: AsyncIterable[Any], **options: Any) -> AsyncIterator[Any]:
            async for request in requests:
                yield await answer(request, **options)

        return answers
