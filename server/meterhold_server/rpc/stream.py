"""Stream: Batches one after another, several of them under way, each answered when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

from meterhold.v1 import metering_service_pb2 as pb
from meterhold_server.batching import failures
from meterhold_server.rpc import batch, units
from meterhold_server.rpc.handlers import Malformed, Refused, as_error
from meterhold_server.rpc.service import CALL_SECONDS_MAX, Context, Service, was_sent_before
from meterhold_server.rpc.validation import Fields

BATCHES_UNDER_WAY_MAX: Final = 8
"""Of one stream. The next is not read before one of them has been answered."""

_TIMEOUT_MAX: Final = timedelta(seconds=CALL_SECONDS_MAX)

Asked = pb.StreamRequest | Malformed | Refused
Answer = Callable[[Asked], Coroutine[Any, Any, pb.StreamResponse]]


class OfBatch:
    """What a batch sees of its stream: all but the deadline, as it has one of its own."""

    def __init__(self, stream: Context) -> None:
        self._metadata = stream.invocation_metadata()

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> None:
        return None


async def answers(
    requests: AsyncIterator[Asked], answer: Answer, draining: asyncio.Event
) -> AsyncGenerator[pb.StreamResponse, None]:
    """Begin what is asked in its order, and answer it as it ends.

    Once `draining` is set no more is read, and Failure is raised after what was. Closing the
    iterator drops all that is under way.
    """
    under_way: set[asyncio.Task[pb.StreamResponse]] = set()
    reading: asyncio.Task[Asked | None] | None = None
    stopping = asyncio.create_task(draining.wait())
    ended = False
    try:
        while under_way or not (ended or stopping.done()):
            waited_for: set[asyncio.Task[Any]] = {*under_way}
            if not (ended or stopping.done()):
                waited_for.add(stopping)
                if len(under_way) < BATCHES_UNDER_WAY_MAX:
                    reading = reading or asyncio.create_task(_next(requests))
                    waited_for.add(reading)
            done, _ = await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)

            if reading in done:
                request, reading = reading.result(), None
                if request is None:
                    ended = True
                else:
                    under_way.add(asyncio.create_task(answer(request)))
            for answered in done & under_way:
                under_way.remove(answered)
                yield answered.result()
    finally:
        left = [task for task in (*under_way, reading, stopping) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
    if not ended:
        raise failures.shutting_down()


async def answer(request: Asked, service: Service, context: Context) -> pb.StreamResponse:
    """Carry out one batch of a stream. Whatever goes wrong is in the answer."""
    response = pb.StreamResponse(id=request.id)
    try:
        response.batch.CopyFrom(await _carry_out(request, service, context))
    except Exception as error:
        units.set_error(response.error, as_error(error), retried=was_sent_before(context))
    return response


async def _next(requests: AsyncIterator[Asked]) -> Asked | None:
    """The next request; None if the caller has no more."""
    async for request in requests:
        return request
    return None


async def _carry_out(request: Asked, service: Service, context: Context) -> pb.BatchResponse:
    if isinstance(request, Malformed):
        raise request.error()
    if isinstance(request, Refused):
        raise request.refusal
    fields = Fields()
    if request.id < 1:
        fields.wrong("id", f"is {request.id}, at least 1 is required")
    timeout = fields.duration("timeout", request.timeout, _TIMEOUT_MAX)
    fields.done()
    seconds = timeout.total_seconds() if timeout else None
    return await batch.carry_out(request.batch, service, context, seconds)
