"""Fuzzed requests over the wire, many at a time, as bytes, and what they were answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from fuzz.answers import CALL_ENDED, MESSAGE_BYTES_MAX, Answer, is_ours, of_error, of_success
from fuzz.messages import Messages
from fuzz.methods import path
from fuzz.mutations import Sample, mutated

_CALLERS: Final = 120
_CHANNELS: Final = 3
_OTHERS_MAX: Final = 50
_STREAM_MESSAGES: Final = 6
_TIMEOUT_SECONDS: Final = 30.0
_PROBLEMS_MAX: Final = 50

_SIZES: Final = (64 * 1024 + 1, 4 * 1024 * 1024 + 1, MESSAGE_BYTES_MAX - 100, MESSAGE_BYTES_MAX + 1)
"""What is too large for most messages, for a Batch, for any, and for gRPC itself."""

_MISUNDERSTOOD: Final = ("INVALID_ARGUMENT", "OUT_OF_RANGE", CALL_ENDED)

_SIZED_CHANCE: Final = 0.0003

Metadata = tuple[tuple[str, str], ...]
MetadataOf = Callable[[random.Random], Metadata]


@dataclass
class Traffic:
    """What was sent, and how it was answered."""

    wanted: int
    """How many messages to send."""
    sent: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    """Messages that were sent, by method."""
    accepted: Counter[str] = field(default_factory=Counter)
    """Of those, how many were answered by a success, which for a Batch may have errors in it."""
    understood: Counter[str] = field(default_factory=Counter)
    """Of them, how many had nothing wrong in themselves, though they may have been refused."""
    codes: Counter[str] = field(default_factory=Counter)
    mutations: Counter[str] = field(default_factory=Counter)
    mutants_accepted: int = 0
    problems: list[str] = field(default_factory=list)
    """What no caller may be answered, with the bytes that brought it about."""

    def plus(self, other: Traffic) -> None:
        """Add what else was sent."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def send(self, request: Request) -> bytes:
        """The bytes of a message, which counts as sent."""
        self.sent += 1
        self.requests[request.method.full_name] += 1
        self.mutations.update(request.mutations)
        return request.data

    def add(self, request: Request, answer: Answer) -> None:
        self.codes[answer.code] += 1
        if answer.code not in _MISUNDERSTOOD:
            self.understood[request.method.full_name] += 1
        if answer.code == "OK":
            self.accepted[request.method.full_name] += 1
            self.mutants_accepted += bool(request.mutations)
        if answer.problem and len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(f"{request}: {answer.problem}")


@dataclass(frozen=True)
class Request:
    """A message, how it was mutated, and what goes with it."""

    method: MethodDescriptor
    data: bytes
    mutations: list[str]
    metadata: Metadata

    def __str__(self) -> str:
        data = self.data.hex() if len(self.data) < 2000 else f"{len(self.data)} bytes"
        return f"{self.method.full_name} {self.mutations} {self.metadata} {data}"


def no_metadata(chance: random.Random) -> Metadata:
    return ()


def odd_metadata(chance: random.Random) -> Metadata:
    """Now and then what callers and proxies add, sane or not."""
    if chance.random() < 0.9:
        return ()
    key = chance.choice(("x-request-id", "authorization", "grpc-previous-rpc-attempts", "x", "te-"))
    values = ("", "1", "-1", "a b", "x" * 129, "Bearer mh_", "Bearer \x7e", "%00", "x" * 3000)
    return ((key, chance.choice(values)),)


async def fuzz(
    address: str,
    methods: Sequence[MethodDescriptor],
    requests: int,
    seed: str,
    metadata_of: MetadataOf = odd_metadata,
) -> Traffic:
    """Send so many messages, drawn by the seed: each method gets as many as any other."""
    traffic = Traffic(requests)
    async with AsyncExitStack() as stack:
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 65_536)]
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=own))
            for _ in range(_CHANNELS)
        ]
        callers = (
            _Caller(
                channels[number % _CHANNELS],
                methods,
                random.Random(f"{seed} {number}"),
                metadata_of,
                traffic,
            )
            for number in range(_CALLERS)
        )
        await asyncio.gather(*(caller.run() for caller in callers))
    return traffic


class _Caller:
    """One of those who send at the same time. What it sends depends on its seed and its answers."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        methods: Sequence[MethodDescriptor],
        chance: random.Random,
        metadata_of: MetadataOf,
        traffic: Traffic,
    ) -> None:
        self._channel = channel
        self._methods = methods
        self._chance = chance
        self._metadata_of = metadata_of
        self._traffic = traffic
        self._messages = Messages(chance, now_seconds=time.time())
        self._others: defaultdict[str, list[bytes]] = defaultdict(lambda: [b""])
        self._turns = count(chance.randrange(len(methods)))

    async def run(self) -> None:
        """Send messages until all of them have sent as many as are wanted."""
        while self._traffic.sent < self._traffic.wanted:
            method = self._methods[next(self._turns) % len(self._methods)]
            if method.client_streaming:
                await self._stream([self._request(method) for _ in range(_STREAM_MESSAGES)])
            elif method.server_streaming:
                await self._send(method, self._first_of)
            else:
                await self._send(method, self._answer)

    async def _send(
        self, method: MethodDescriptor, ask: Callable[[Request], Awaitable[list[bytes]]]
    ) -> None:
        request = self._request(method)
        try:
            answer = of_success(method, *await ask(request))
        except grpc.aio.AioRpcError as error:
            answer = of_error(method, error, len(request.data))
        self._note(request, answer)

    def _note(self, request: Request, answer: Answer) -> None:
        for message in answer.messages:
            self._messages.learn(message)
        if answer.code == "OK" and not request.mutations:
            accepted = GetMessageClass(request.method.input_type).FromString(request.data)
            self._messages.follow(accepted)
        self._traffic.add(request, answer)

    async def _answer(self, request: Request) -> list[bytes]:
        send: Any = self._channel.unary_unary(path(request.method))
        return [
            await send(
                self._traffic.send(request), metadata=request.metadata, timeout=_TIMEOUT_SECONDS
            )
        ]

    async def _first_of(self, request: Request) -> list[bytes]:
        """The first of many answers: some methods never end by themselves."""
        send: Any = self._channel.unary_stream(path(request.method))
        call = send(
            self._traffic.send(request), metadata=request.metadata, timeout=_TIMEOUT_SECONDS
        )
        first = await call.read()
        call.cancel()
        return [first] if isinstance(first, bytes) else []

    async def _stream(self, requests: Sequence[Request]) -> None:
        """Send several messages on one call, and read as they are answered."""
        method = requests[0].method
        parts: list[bytes] = []
        try:
            await self._exchange(requests, parts)
        except grpc.aio.AioRpcError as error:
            failed = requests[min(len(parts), len(requests) - 1)]
            largest = max(len(request.data) for request in requests)
            self._traffic.add(failed, of_error(method, error, largest))
        else:
            if len(parts) != len(requests):
                sent = [str(request) for request in requests]
                self._traffic.problems.append(f"{len(parts)} answers to {sent}")
        for request, part in zip(requests, parts, strict=False):
            self._note(request, of_success(method, part))

    async def _exchange(self, requests: Sequence[Request], parts: list[bytes]) -> None:
        """Send messages, and read as many answers as there are.

        Each waits for the answer to the one before it, as that may end the call; but not of a
        stream of ours that has begun: its messages are refused one by one, in any order.
        """
        first = requests[0]
        open_: Any = self._channel.stream_stream(path(first.method))
        call = open_(metadata=first.metadata, timeout=_TIMEOUT_SECONDS)
        together = 1
        for request in requests:
            await call.write(self._traffic.send(request))
            if together == 1:
                answer = await call.read()
                if not isinstance(answer, bytes):
                    return
                parts.append(answer)
                together = len(requests) if is_ours(first.method) else 1
        await call.done_writing()
        while isinstance(answer := await call.read(), bytes):
            parts.append(answer)

    def _request(self, method: MethodDescriptor) -> Request:
        chance = self._chance
        metadata = self._metadata_of(chance)
        if chance.random() < _SIZED_CHANCE and not method.client_streaming:
            return Request(method, b"\0" * chance.choice(_SIZES), ["far too large"], metadata)
        make = self._messages.wild if chance.random() < 0.4 else self._messages.plausible
        data = make(method.input_type).SerializeToString()
        others = self._others[method.full_name]
        names: list[str] = []
        if chance.random() < 0.5:
            whole = Sample(data, method.input_type, chance.choice(others))
            data, names = mutated(whole, chance)
        else:
            others.append(data)
            del others[:-_OTHERS_MAX]
        return Request(method, data, names, metadata)


def ours(methods: Sequence[MethodDescriptor]) -> list[MethodDescriptor]:
    """The methods that ask for credentials, where a server does."""
    return [method for method in methods if is_ours(method)]
