"""A gRPC server that records what it is asked and answers what a test has prepared."""

from __future__ import annotations

import functools
import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from meterhold.v1 import (
    admin_service_pb2_grpc,
    ledger_service_pb2_grpc,
    metering_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message


@dataclass(frozen=True)
class Abort:
    """An answer that fails the call."""

    code: grpc.StatusCode
    message: str = "refused"
    details: tuple[Message, ...] = ()
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = ()

    def status(self) -> bytes:
        """The serialized google.rpc.Status."""
        packed = [any_pb2.Any() for _ in self.details]
        for target, detail in zip(packed, self.details, strict=True):
            target.Pack(detail)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=packed)
        return bytes(status.SerializeToString())

    def raise_in(self, context: grpc.ServicerContext) -> None:
        trailing_metadata = self.trailing_metadata
        if self.details:
            pair = ("grpc-status-details-bin", self.status())
            trailing_metadata = (*trailing_metadata, pair)
        context.set_trailing_metadata(trailing_metadata)
        context.abort(self.code, self.message)


@dataclass(frozen=True)
class Hang:
    """An answer that does not come before the caller has given up."""


@dataclass(frozen=True)
class Call:
    """What the server was asked."""

    method: str
    request: Any
    seconds_remaining: float
    metadata: Mapping[str, str | bytes]


@dataclass
class ScriptedServer:
    """Serves all services on a free port. Answers `answers` in order, then `last` for ever."""

    answers: deque[Message | Abort | Hang] = field(default_factory=deque)
    last: Message | Abort | Hang | None = None
    calls: list[Call] = field(default_factory=list)
    called: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
        metering_service_pb2_grpc.add_MeteringServiceServicer_to_server(
            _Servicer(self), self._server
        )
        ledger_service_pb2_grpc.add_LedgerServiceServicer_to_server(_Servicer(self), self._server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(_Servicer(self), self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(grace=1).wait()

    def answer(self, *answers: Message | Abort | Hang) -> None:
        """Prepare the next answers."""
        self.answers.extend(answers)

    @property
    def request(self) -> Any:
        """The only request there was."""
        (call,) = self.calls
        return call.request

    def serve(self, method: str, request: Message, context: grpc.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        self.calls.append(Call(method, request, context.time_remaining(), metadata))
        self.called.set()
        answer = self.answers.popleft() if self.answers else self.last
        if isinstance(answer, Abort):
            answer.raise_in(context)
        if isinstance(answer, Hang):
            given_up = threading.Event()
            if context.add_callback(given_up.set):
                given_up.wait()
        return answer


class _Servicer:
    def __init__(self, server: ScriptedServer) -> None:
        self._scripted = server

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return functools.partial(self._scripted.serve, method)


def error_info(reason: str, applied: str = "NO", **metadata: str) -> error_details_pb2.ErrorInfo:
    """Build the detail that every error of the server carries."""
    return error_details_pb2.ErrorInfo(
        reason=reason, domain="meterhold", metadata={"applied": applied, **metadata}
    )


def retry_info(milliseconds: int) -> error_details_pb2.RetryInfo:
    """Build the detail that asks to wait."""
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(milliseconds)
    return error_details_pb2.RetryInfo(retry_delay=delay)
