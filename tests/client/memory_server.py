"""The server's rules in memory behind a real connection, which a test can watch and disturb."""

from __future__ import annotations

import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple, Self

import grpc

from client.scripted_server import Abort, Hang
from meterhold.testing import InMemory
from meterhold.testing._channel import Context
from meterhold.v1 import metering_service_pb2 as pb

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_WORKERS: Final = 300


@dataclass(frozen=True)
class AfterAll:
    """The message is carried out, and then its caller is told something else."""

    told: Abort | Hang


@dataclass(frozen=True)
class Instead:
    """Nothing is carried out: the call, or each operation of a Batch, is told this."""

    told: Abort


class Message(NamedTuple):
    """A call as it came. `number` is how many operations it has, 1 for any call but a Batch."""

    method: str
    number: int
    seconds_remaining: float
    metadata: dict[str, Any]


Fault = Abort | Hang | AfterAll | Instead


@dataclass
class MemoryServer:
    """Serves on a free port. While `gate` is not set nothing is answered.

    `faults` befall the next messages, None being no fault; `instead_of_batch` each Batch.
    """

    memory: InMemory = field(default_factory=lambda: InMemory(now=START))
    messages: list[Message] = field(default_factory=list)
    faults: deque[Fault | None] = field(default_factory=deque)
    gate: threading.Event = field(default_factory=threading.Event)
    instead_of_batch: Abort | None = None
    batches_refused: int = 0

    def __enter__(self) -> Self:
        self.gate.set()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=_WORKERS))
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.gate.set()
        self._server.stop(grace=1).wait()

    @property
    def methods(self) -> list[str]:
        return [message.method for message in self.messages]

    @property
    def operations(self) -> int:
        """All that was asked, in messages of any kind."""
        return sum(message.number for message in self.messages)

    def serve(self, path: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        method = path.rpartition("/")[2]
        if method == "Batch" and self.instead_of_batch is not None:
            self.batches_refused += 1
            self.instead_of_batch.raise_in(context)
        number = len(pb.BatchRequest.FromString(request).operations) if method == "Batch" else 1
        metadata = dict(context.invocation_metadata())
        self.messages.append(Message(method, number, context.time_remaining(), metadata))
        fault = self.faults.popleft() if self.faults else None
        _befall(fault, context)
        self.gate.wait()
        if isinstance(fault, Instead):
            if method != "Batch":
                fault.told.raise_in(context)
            error = pb.BatchError.FromString(fault.told.status())
            results = [pb.BatchResult(error=error)] * number
            return pb.BatchResponse(results=results).SerializeToString()
        try:
            asked = Context(context.time_remaining(), metadata.items())
            response = self.memory._answer(path, request, asked)
        except grpc.aio.AioRpcError as error:
            trailing: Any = error.trailing_metadata()
            context.set_trailing_metadata(tuple(trailing))
            context.abort(error.code(), error.details() or "")
        if isinstance(fault, AfterAll):
            _befall(fault.told, context)
        return response


def _befall(fault: Fault | None, context: grpc.ServicerContext) -> None:
    if isinstance(fault, Abort):
        fault.raise_in(context)
    if isinstance(fault, Hang):
        given_up = threading.Event()
        if context.add_callback(given_up.set):
            given_up.wait()
        context.abort(grpc.StatusCode.CANCELLED, "nobody waits")


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(partial(self._server.serve, details.method))
