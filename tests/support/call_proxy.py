"""A gRPC proxy before a Meterhold that repeats, delays and loses calls at random, by a seed.

Whatever is sent passes through as bytes, with its metadata and what is left of its deadline. A copy
that comes late never comes after the deadline of the call it is a copy of, so that a caller who has
waited that long knows that nothing of the call is under way any more.

A refusal is not remembered by the server, so that a copy that arrived after its caller had been
refused would be a new request. No copy does: a refusal is passed on once all copies have ended.
That is true of each operation in a Batch, too, whose answers are the only ones that are looked at.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import grpc
import grpc.aio

from meterhold.v1 import metering_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Context = grpc.aio.ServicerContext[bytes, bytes]
    Metadata = tuple[tuple[str, str | bytes], ...]

_BATCH: Final = ".MeteringService/Batch"

CONNECTIONS: Final = 4
"""To the server, so that a call and its copies can meet different processes of it."""

_ALONE: Final = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
# Whether the transport has sent a call before is for the server to know; the rest is the hop's own.
_PASSED_ON: Final = "grpc-previous-rpc-attempts"
_OF_THE_HOP: Final = ("grpc-", "user-agent")
_UNSURE: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)


class CallFault(Enum):
    """What becomes of one attempt at a call."""

    DELAYED = auto()
    """It waits on its way to the server."""
    ANSWER_DELAYED = auto()
    """The answer waits on its way back."""
    DOUBLED = auto()
    """Two copies are sent at once; the answer is of either, and a success if one succeeded."""
    REPEATED = auto()
    """After the caller has got its success, the call is sent again. Not if a part was refused."""
    ANSWER_SWALLOWED = auto()
    """The server has answered, and the caller hears nothing until its deadline."""
    ANSWER_UNAVAILABLE = auto()
    """The server has answered, and the caller is told UNAVAILABLE without any details."""
    ANSWER_CANCELLED = auto()
    """The server has answered, and the caller is told CANCELLED."""
    REFUSED = auto()
    """The server never sees it; the caller is told UNAVAILABLE without any details."""
    LATE = auto()
    """The caller is told UNAVAILABLE at once, and then the call is sent."""


_CALLER_IS_TOLD: Final = {
    CallFault.ANSWER_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    CallFault.ANSWER_CANCELLED: grpc.StatusCode.CANCELLED,
    CallFault.REFUSED: grpc.StatusCode.UNAVAILABLE,
    CallFault.LATE: grpc.StatusCode.UNAVAILABLE,
}


class _Attempt(NamedTuple):
    """A call as it arrived. `deadline` is on the monotonic clock."""

    method: str
    request: bytes
    metadata: Metadata
    deadline: float
    chance: random.Random

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()


class Answer(NamedTuple):
    """What the server said. `message` and `trailing` go with every code but OK."""

    code: grpc.StatusCode
    response: bytes = b""
    message: str = ""
    trailing: Metadata = ()


class Event(NamedTuple):
    """One thing that happened to a call, at a time of the monotonic clock."""

    seconds: float
    method: str
    request: bytes
    what: str


class CallProxy:
    """Use it as an async context manager. `address` is where it serves.

    Which fault befalls an attempt depends on the seed, the request and how often that request has
    come before, and on nothing else: not on what other callers do meanwhile.
    """

    def __init__(
        self,
        target: str,
        *,
        seed: int,
        chances: Mapping[CallFault, float],
        delay_seconds_max: float = 0.4,
    ) -> None:
        """Stand before the server at `target`. `chances` of all faults add up to at most 1."""
        self._target = target
        self._seed = seed
        self._faults: Sequence[CallFault | None] = (*chances, None)
        self._weights = (*chances.values(), 1 - sum(chances.values()))
        self._delay_seconds_max = delay_seconds_max
        self._arrivals: defaultdict[tuple[str, bytes], int] = defaultdict(int)
        self._copies: set[asyncio.Task[Answer]] = set()
        self.counts: Counter[CallFault] = Counter()
        """How many attempts met which fault."""
        self.events: list[Event] = []
        """All that happened, in order."""

    async def __aenter__(self) -> Self:
        self._channels = [
            grpc.aio.insecure_channel(self._target, options=_ALONE) for _ in range(CONNECTIONS)
        ]
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((_Handler(self._serve),))
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)
        await self.calm()
        for channel in self._channels:
            await channel.close()

    async def calm(self) -> None:
        """End all faults, and wait until no copy is under way any more."""
        self._weights = (*(0 for _ in self._weights[1:]), 1)
        while self._copies:
            await asyncio.wait(self._copies)

    def events_of(self, key: str) -> list[Event]:
        """What happened to the calls that carry that key, or id."""
        return [event for event in self.events if key.encode() in event.request]

    async def _serve(self, method: str, request: bytes, context: Context) -> bytes:
        attempt = self._attempt(method, request, context)
        fault = attempt.chance.choices(self._faults, self._weights)[0]
        self._note(attempt, f"came, {attempt.seconds_left():.3f} s left, meets {fault}")
        if fault is not None:
            self.counts[fault] += 1
        answer = await self._meet(fault, attempt)
        self._note(attempt, f"is answered {answer.code.name} {answer.message}")
        if answer.code is not grpc.StatusCode.OK:
            await context.abort(answer.code, answer.message, answer.trailing)
        return answer.response

    def _attempt(self, method: str, request: bytes, context: Context) -> _Attempt:
        seconds = context.time_remaining()
        assert seconds is not None, "every client of Meterhold sets a deadline"
        arrival = self._arrivals[method, request]
        self._arrivals[method, request] += 1
        chance = random.Random(f"{self._seed} {method} {request!r} {arrival}")
        metadata = tuple(
            (key, value)
            for key, value in context.invocation_metadata() or ()
            if key == _PASSED_ON or not key.startswith(_OF_THE_HOP)
        )
        return _Attempt(method, request, metadata, time.monotonic() + seconds, chance)

    async def _meet(self, fault: CallFault | None, attempt: _Attempt) -> Answer:
        match fault:
            case CallFault.DELAYED:
                await self._wait(attempt)
                return await self._forward(attempt)
            case CallFault.ANSWER_DELAYED:
                answer = await self._forward(attempt)
                await self._wait(attempt)
                return answer
            case CallFault.DOUBLED:
                copies = asyncio.gather(self._copy(attempt), self._copy(attempt))
                return best(attempt.method, await asyncio.shield(copies))
            case CallFault.REPEATED:
                answer = await self._forward(attempt)
                if answer.code is grpc.StatusCode.OK and not is_refusing(attempt.method, answer):
                    self._copy(attempt, late=True)
                return answer
            case CallFault.ANSWER_SWALLOWED:
                await asyncio.shield(self._copy(attempt))
                await asyncio.Event().wait()  # cancelled at the deadline
            case CallFault.ANSWER_UNAVAILABLE | CallFault.ANSWER_CANCELLED:
                await asyncio.shield(self._copy(attempt))
            case CallFault.LATE:
                self._copy(attempt, late=True)
            case None:
                return await self._forward(attempt)
        return Answer(_CALLER_IS_TOLD[fault], message="the proxy says so")

    def _copy(self, attempt: _Attempt, *, late: bool = False) -> asyncio.Task[Answer]:
        """Send a call whether or not its caller still waits."""
        task = asyncio.create_task(self._forward_late(attempt) if late else self._forward(attempt))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)
        return task

    async def _forward_late(self, attempt: _Attempt) -> Answer:
        """Send it at any time until its deadline, the last moment included."""
        await asyncio.sleep(attempt.seconds_left() * attempt.chance.random())
        return await self._forward(attempt)

    async def _forward(self, attempt: _Attempt) -> Answer:
        seconds = attempt.seconds_left()
        if seconds <= 0:
            return Answer(grpc.StatusCode.DEADLINE_EXCEEDED, message="not forwarded any more")
        self._note(attempt, f"is forwarded, {seconds:.3f} s left")
        channel = attempt.chance.choice(self._channels)
        send: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(attempt.method)
        metadata = grpc.aio.Metadata(*attempt.metadata)
        try:
            response = await send(attempt.request, timeout=seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            trailing: Any = error.trailing_metadata()
            answer = Answer(error.code(), b"", error.details() or "", tuple(trailing or ()))
        else:
            answer = Answer(grpc.StatusCode.OK, response)
        self._note(attempt, f"the server said {answer.code.name} {answer.message}")
        return answer

    async def _wait(self, attempt: _Attempt) -> None:
        await asyncio.sleep(attempt.chance.uniform(0, self._delay_seconds_max))

    def _note(self, attempt: _Attempt, what: str) -> None:
        self.events.append(Event(time.monotonic(), attempt.method, attempt.request, what))


def _rank(code: grpc.StatusCode) -> int:
    """Of two copies, a success tells more than a failure, and a failure to tell more than a no."""
    if code is grpc.StatusCode.OK:
        return 0
    return 1 if code in _UNSURE else 2


def best(method: str, answers: Sequence[Answer]) -> Answer:
    """What the caller of two copies is told. Of a Batch that is said of each operation."""
    first, second = sorted(answers, key=lambda answer: _rank(answer.code))
    if first.code is not grpc.StatusCode.OK or not method.endswith(_BATCH):
        return first
    ours = pb.BatchResponse.FromString(first.response).results
    if second.code is grpc.StatusCode.OK:
        others = list(pb.BatchResponse.FromString(second.response).results)
    else:
        others = [pb.BatchResult(error=pb.BatchError(code=second.code.value[0]))] * len(ours)
    results = [min(pair, key=_rank_of_result) for pair in zip(ours, others, strict=True)]
    return first._replace(response=pb.BatchResponse(results=results).SerializeToString())


def _rank_of_result(result: pb.BatchResult) -> int:
    code = result.error.code if result.HasField("error") else 0
    return _rank(next(known for known in grpc.StatusCode if known.value[0] == code))


def is_refusing(method: str, answer: Answer) -> bool:
    """Whether an answer to a Batch has an error of any operation."""
    if not method.endswith(_BATCH):
        return False
    results = pb.BatchResponse.FromString(answer.response).results
    return any(result.HasField("error") for result in results)


class _Handler(grpc.GenericRpcHandler):
    """Serves every method there is, bytes in and bytes out."""

    def __init__(self, serve: Callable[[str, bytes, Context], Awaitable[bytes]]) -> None:
        self._serve = serve

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(partial(self._serve, details.method))
