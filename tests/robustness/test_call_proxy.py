"""The proxies of these tests do to calls and connections what they say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio
import pytest

from meterhold.v1 import metering_service_pb2 as pb
from support.call_proxy import Answer, CallFault, CallProxy, best, is_refusing
from support.connection_proxy import ConnectionFault, ConnectionProxy

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[bytes, bytes]

METHOD = "/some.Service/Method"
SECONDS = 1.0
"""What each call gives the server. Some faults last until it is over."""
SEED = 24
"""With it no delay and no late copy ends near the deadline: a busy machine needs a while."""
OK = grpc.StatusCode.OK
NO = grpc.StatusCode.FAILED_PRECONDITION
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
DEADLINE = grpc.StatusCode.DEADLINE_EXCEEDED
CANCELLED = grpc.StatusCode.CANCELLED


class Target(grpc.GenericRpcHandler):
    """A server that remembers what it was sent, and answers the codes prepared, then OK."""

    def __init__(self, codes: list[grpc.StatusCode]) -> None:
        self._codes = codes
        self.requests: list[bytes] = []
        self.seconds: list[float] = []
        self.metadata: list[dict[str, str | bytes]] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._serve)

    async def _serve(self, request: bytes, context: Context) -> bytes:
        seconds = context.time_remaining()
        assert seconds is not None
        self.requests.append(request)
        self.seconds.append(seconds)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        code = self._codes.pop(0) if self._codes else OK
        if code is not OK:
            await context.abort(code, "the target says so", (("why-bin", b"\x01"),))
        return b"answer to " + request


class Told(NamedTuple):
    """What a caller was told."""

    code: grpc.StatusCode
    message: str = ""
    trailing: tuple[tuple[str, str | bytes], ...] = ()


BATCH = "/meterhold.v1.MeteringService/Batch"


def batch(*codes: grpc.StatusCode) -> Answer:
    """An answer to a Batch whose operations have these codes."""
    results = [
        pb.BatchResult(error=pb.BatchError(code=code.value[0])) if code is not OK
        else pb.BatchResult(debit=pb.DebitResponse())
        for code in codes
    ]  # fmt: skip
    return Answer(OK, pb.BatchResponse(results=results).SerializeToString())


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([batch(OK, NO), batch(NO, OK)], batch(OK, OK)),
        ([batch(NO, NO), batch(UNAVAILABLE, NO)], batch(UNAVAILABLE, NO)),
        ([batch(OK, NO), Answer(UNAVAILABLE)], batch(OK, UNAVAILABLE)),
        ([Answer(DEADLINE), batch(OK, NO)], batch(OK, DEADLINE)),
        ([Answer(NO), batch(OK, NO)], batch(OK, NO)),
        ([Answer(NO), Answer(UNAVAILABLE)], Answer(UNAVAILABLE)),
    ],
)
def test_of_two_copies_of_a_batch_each_operation_is_told_the_best(
    answers: list[Answer], told: Answer
) -> None:
    assert best(BATCH, answers) == told
    assert best(BATCH, answers[::-1]) == told


@pytest.mark.parametrize(("codes", "refuses"), [([OK, OK], False), ([OK, NO], True)])
def test_a_batch_with_a_refusal_is_not_repeated(
    codes: list[grpc.StatusCode], refuses: bool
) -> None:
    assert is_refusing(BATCH, batch(*codes)) == refuses
    assert not is_refusing(METHOD, batch(*codes))


@asynccontextmanager
async def target(*codes: grpc.StatusCode) -> AsyncIterator[tuple[Target, str]]:
    server = grpc.aio.server()
    handler = Target([*codes])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield handler, f"127.0.0.1:{port}"
    await server.stop(None)


async def ask(address: str, *, request: bytes = b"this") -> Told:
    """Call once, without any retries."""
    options = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        metadata = grpc.aio.Metadata(("x-request-id", "one"), ("authorization", "Bearer key"))
        try:
            answer = await call(request, timeout=SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            return Told(error.code(), error.details() or "", tuple(error.trailing_metadata()))
    assert answer == b"answer to " + request
    return Told(OK)


async def meet(fault: CallFault | None, *codes: grpc.StatusCode) -> tuple[Told, Target]:
    """Make a call that meets a fault at a server that answers so, and wait until it is all over."""
    async with target(*codes) as (handler, address):
        chances = {fault: 1.0} if fault else {}
        async with CallProxy(address, seed=SEED, chances=chances) as proxy:
            told = await ask(proxy.address)
            await proxy.calm()
        assert proxy.counts == ({fault: 1} if fault else {})
        return told, handler


@pytest.mark.parametrize(
    ("fault", "codes", "told", "deliveries"),
    [
        (None, [], OK, 1),
        (None, [NO], NO, 1),
        (CallFault.DOUBLED, [], OK, 2),
        (CallFault.DOUBLED, [NO, OK], OK, 2),
        (CallFault.DOUBLED, [OK, NO], OK, 2),
        (CallFault.DOUBLED, [UNAVAILABLE, NO], UNAVAILABLE, 2),
        (CallFault.DOUBLED, [NO, NO], NO, 2),
        (CallFault.REPEATED, [], OK, 2),
        (CallFault.REPEATED, [NO], NO, 1),
        (CallFault.ANSWER_SWALLOWED, [], DEADLINE, 1),
        (CallFault.ANSWER_UNAVAILABLE, [], UNAVAILABLE, 1),
        (CallFault.ANSWER_UNAVAILABLE, [NO], UNAVAILABLE, 1),
        (CallFault.ANSWER_CANCELLED, [], CANCELLED, 1),
        (CallFault.REFUSED, [], UNAVAILABLE, 0),
        (CallFault.LATE, [], UNAVAILABLE, 1),
    ],
)
async def test_what_a_fault_does_to_a_call(
    fault: CallFault | None,
    codes: list[grpc.StatusCode],
    told: grpc.StatusCode,
    deliveries: int,
) -> None:
    heard, handler = await meet(fault, *codes)
    assert heard.code is told
    assert handler.requests == [b"this"] * deliveries


@pytest.mark.parametrize("fault", [CallFault.DELAYED, CallFault.ANSWER_DELAYED])
async def test_a_delay_is_within_the_deadline_or_ends_with_it(fault: CallFault) -> None:
    async with (
        target() as (handler, address),
        CallProxy(address, seed=SEED, chances={fault: 1.0}, delay_seconds_max=2 * SECONDS) as proxy,
    ):
        requests = [str(number).encode() for number in range(20)]
        told = await asyncio.gather(*(ask(proxy.address, request=sent) for sent in requests))
    assert {heard.code for heard in told} == {OK, DEADLINE}
    late = fault is CallFault.ANSWER_DELAYED
    answered = sum(heard.code is OK for heard in told)
    assert len(handler.requests) == (20 if late else answered)


async def test_metadata_and_errors_pass_as_they_are() -> None:
    heard, handler = await meet(None, NO)
    assert heard == Told(NO, "the target says so", (("why-bin", b"\x01"),))
    assert handler.metadata[0]["authorization"] == "Bearer key"
    assert handler.metadata[0]["x-request-id"] == "one"


async def test_the_transport_s_count_of_attempts_passes() -> None:
    policy = (
        '{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 2, "initialBackoff":'
        ' "0.01s", "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes":'
        ' ["UNAVAILABLE"]}}]}'
    )
    async with (
        target(UNAVAILABLE) as (handler, address),
        CallProxy(address, seed=1, chances={}) as proxy,
        grpc.aio.insecure_channel(
            proxy.address, options=(("grpc.service_config", policy),)
        ) as channel,
    ):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        assert await call(b"this", timeout=10.0) == b"answer to this"
    assert [metadata.get("grpc-previous-rpc-attempts") for metadata in handler.metadata] == [
        None,
        "1",
    ]


async def test_what_comes_late_has_what_is_left_of_the_deadline() -> None:
    async with (
        target() as (handler, address),
        CallProxy(address, seed=SEED, chances={CallFault.LATE: 1.0}) as proxy,
    ):
        requests = [str(number).encode() for number in range(20)]
        await asyncio.gather(*(ask(proxy.address, request=sent) for sent in requests))
        await proxy.calm()
        told = [event.what.split(",")[0] for event in proxy.events_of("17")]
    assert len(handler.requests) == 20
    assert all(0 < seconds < SECONDS for seconds in handler.seconds)
    assert len(set(handler.seconds)) == 20
    assert told == [
        "came",
        "is answered UNAVAILABLE the proxy says so",
        "is forwarded",
        "the server said OK ",
    ]


async def test_a_seed_makes_the_same_faults_whatever_the_order() -> None:
    async def fates(seed: int, requests: list[bytes]) -> dict[bytes, grpc.StatusCode]:
        chances = {CallFault.REFUSED: 0.5}
        async with (
            target() as (_, address),
            CallProxy(address, seed=seed, chances=chances) as proxy,
        ):
            return {sent: (await ask(proxy.address, request=sent)).code for sent in requests}

    requests = [str(number).encode() for number in range(20)]
    first = await fates(1, requests)
    assert set(first.values()) == {OK, UNAVAILABLE}
    assert await fates(1, requests[::-1]) == first
    assert await fates(2, requests) != first


async def test_calm_ends_the_faults() -> None:
    async with (
        target() as (_, address),
        CallProxy(address, seed=1, chances={CallFault.REFUSED: 1.0}) as proxy,
    ):
        assert (await ask(proxy.address)).code is UNAVAILABLE
        await proxy.calm()
        assert (await ask(proxy.address)).code is OK


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """Where a server listens that sends back what it is sent, and closes after its caller has."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1024):
                writer.write(data)
        writer.close()
        ended.set()

    ended = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        await ended.wait()


async def say(address: str, *words: bytes) -> list[bytes | None]:
    """Say one word after the other on one connection. Hears each again, or nothing from a reset."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    heard: list[bytes | None] = []
    try:
        for word in words:
            writer.write(word)
            heard.append(await reader.read(1024))
    except ConnectionResetError:
        heard.append(None)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return heard


def breaking(address: str, fault: ConnectionFault, **more: int) -> ConnectionProxy:
    """A proxy where that happens to the first bytes of each connection."""
    return ConnectionProxy(address, seed=1, chances={fault: 1}, bytes_between_faults=1, **more)


@pytest.mark.parametrize(
    ("fault", "heard"),
    [
        (ConnectionFault.RESET, [None]),
        (ConnectionFault.CLOSED, [b""]),
        (ConnectionFault.OUTAGE, [None]),
        (ConnectionFault.STALLED, [b"a long word", b"another one"]),
    ],
)
async def test_what_a_fault_does_to_a_connection(
    fault: ConnectionFault, heard: list[bytes | None]
) -> None:
    async with echo() as address, breaking(address, fault) as proxy:
        words = [b"a long word", b"another one"][: len(heard)]
        assert await say(proxy.addresses[0], *words) == heard
    assert proxy.counts[fault] >= 1


async def test_an_outage_resets_all_connections_and_refuses_new_ones_until_it_is_over() -> None:
    async with (
        echo() as address,
        breaking(address, ConnectionFault.OUTAGE, listeners=2, seconds_max=60) as proxy,
    ):
        first, second = proxy.addresses
        idle, _ = await asyncio.open_connection(*second.split(":"))
        assert await say(first, b"a long word") == [None]
        with pytest.raises(ConnectionResetError):
            await idle.read()
        assert await say(second, b"a long word") == [None]
        assert proxy.refused == 1
        proxy.calm()
        assert await say(first, b"a long word") == [b"a long word"]


async def test_a_stall_lasts_for_a_while() -> None:
    async with echo() as address, breaking(address, ConnectionFault.STALLED) as proxy:
        started = time.monotonic()
        await say(proxy.addresses[0], b"a long word")
        stalled = time.monotonic() - started
        proxy.calm()
        started = time.monotonic()
        await say(proxy.addresses[0], b"a long word")
        assert time.monotonic() - started < stalled
