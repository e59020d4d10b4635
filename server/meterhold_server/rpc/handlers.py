"""How a call passes: its bytes are parsed, its method is run, and whatever goes wrong is told.

The handlers are made from the services' descriptors, so that no method can be forgotten. Who calls
is found out first: a stranger learns nothing, not even what is wrong with a request.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Literal, NamedTuple

import grpc
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from meterhold.v1 import metering_service_pb2
from meterhold_server.batching.failures import Failure, FailureReason
from meterhold_server.rpc import units
from meterhold_server.rpc.access import Access, Guest
from meterhold_server.rpc.errors import DETAILS_KEY, Error, ErrorStatus, Refusal, status_of
from meterhold_server.rpc.scopes import BY_OPERATION, SCOPES
from meterhold_server.rpc.service import Context, Service, was_sent_before
from meterhold_server.rpc.validation import InvalidRequest, Violation

REQUEST_BYTES_MAX: Final = 64 * 1024
"""The largest message that is looked at. Any valid request is far smaller, but for a Batch."""

BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest message of a Batch that is looked at."""

REQUEST_ID_KEY: Final = "x-request-id"

_log = structlog.get_logger(__name__)

Behavior = Callable[[Any, Context], Awaitable[Any]]
StreamBehavior = Callable[[AsyncIterator[Any], Context], AsyncGenerator[Any, None]]


LogCalls = Literal["none", "failed", "all"]
"""Which finished calls are logged. `failed` are those that failed by no fault of the caller."""


class Malformed(NamedTuple):
    """What stands for a request that could not be parsed. Of a stream, nobody knows its id."""

    description: str
    id: int = 0

    def error(self) -> InvalidRequest:
        """What it is refused with."""
        return InvalidRequest([Violation("request", self.description)])


class Refused(NamedTuple):
    """What stands for a message of a stream that was not let in."""

    id: int
    refusal: Refusal


def generic_handler(
    service: ServiceDescriptor,
    servicer_of: Callable[[Service], object],
    access: Access,
    log_calls: LogCalls,
) -> grpc.GenericRpcHandler:
    """Handlers for every method of a service: unary, or streams in both directions.

    Each call has a servicer of its own, made of the service as it is for its caller.
    """
    entrance = _Entrance(servicer_of, access, log_calls)
    handlers = {method.name: _handler(method, entrance) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def open_handler(service: ServiceDescriptor, servicer: object) -> grpc.GenericRpcHandler:
    """Handlers for a service that is not ours and open to all: health and reflection.

    By themselves they would answer UNKNOWN to what cannot be parsed.
    """
    handlers = {
        method.name: _open_handler(method, getattr(servicer, method.name))
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _open_handler(method: MethodDescriptor, behavior: Any) -> grpc.RpcMethodHandler[Any, Any]:
    async def call(request: Any, context: Context) -> Any:
        if isinstance(request, Malformed):
            await _refuse(request, context)
        return await behavior(request, context)

    async def stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for response in behavior(_well_formed(requests, context), context):
            yield response

    of_stream: dict[tuple[bool, bool], tuple[Any, Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, call),
        (False, True): (grpc.unary_stream_rpc_method_handler, call),
        (True, True): (grpc.stream_stream_rpc_method_handler, stream),
    }
    make, run = of_stream[method.client_streaming, method.server_streaming]
    handler: grpc.RpcMethodHandler[Any, Any] = make(run, _deserializer(method), _serialize)
    return handler


async def _well_formed(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, Malformed):
            await _refuse(request, context)
        yield request


async def _refuse(request: Malformed, context: Context) -> None:
    await _abort(context, status_of(request.error()), _request_id(_metadata(context)))


class _Entrance(NamedTuple):
    """What all calls of a service pass."""

    servicer_of: Callable[[Service], object]
    access: Access
    log_calls: LogCalls


def _handler(method: MethodDescriptor, entrance: _Entrance) -> grpc.RpcMethodHandler[Any, Any]:
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(
            _stream_behavior(method, entrance),
            request_deserializer=_deserializer(method),
            response_serializer=_serialize,
        )
    return grpc.unary_unary_rpc_method_handler(
        _behavior(method, entrance),
        request_deserializer=_deserializer(method),
        response_serializer=_serialize,
    )


def _deserializer(method: MethodDescriptor) -> Callable[[bytes], Any]:
    parse = GetMessageClass(method.input_type).FromString
    bytes_max = BATCH_BYTES_MAX if method.name in ("Batch", "Stream") else REQUEST_BYTES_MAX

    def deserialize(data: bytes) -> Any:
        if len(data) > bytes_max:
            return Malformed(f"has {len(data)} bytes, at most {bytes_max} are allowed")
        try:
            return parse(data)
        except DecodeError:
            return Malformed("is not a message of this method, or has text that is not UTF-8")

    return deserialize


def _serialize(response: Message) -> bytes:
    return response.SerializeToString()


def _behavior(of: MethodDescriptor, entrance: _Entrance) -> Behavior:
    method, log_calls = of.name, entrance.log_calls
    scope = SCOPES[of.full_name]
    is_batch = scope is BY_OPERATION
    log_all = log_calls == "all"

    async def call(request: Any, context: Context) -> Any:
        started = time.perf_counter()
        guest: Guest | None = None
        try:
            guest = await entrance.access.guest(context)
            guest.admit(scope, _operation_count(request) if is_batch else 1)
            if isinstance(request, Malformed):
                raise request.error()
            run: Behavior = getattr(entrance.servicer_of(guest.service), method)
            response = await run(request, context)
        except (InvalidRequest, Refusal, Failure) as error:
            await _tell(context, method, error, started, log_calls, guest)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            await _tell(context, method, _bug(error), started, log_calls, guest)
        else:
            if log_all:
                _log_call(method, _request_id(_metadata(context)), "OK", "", started, guest)
            return response

    return call


def _stream_behavior(of: MethodDescriptor, entrance: _Entrance) -> Any:
    method, log_calls = of.name, entrance.log_calls

    async def call(requests: AsyncIterator[Any], context: Context) -> None:
        started = time.perf_counter()
        guest: Guest | None = None
        try:
            guest = await entrance.access.guest(context)
            # From here on the transport sends nothing a second time by itself.
            await context.send_initial_metadata(())
            run: StreamBehavior = getattr(entrance.servicer_of(guest.service), method)
            admitted = _admitted(requests, context, entrance.access)
            async with aclosing(run(admitted, context)) as responses:
                async for response in responses:
                    await context.write(response)
        except Exception as error:
            await _tell(context, method, as_error(error), started, log_calls, guest)
        else:
            if log_calls == "all":
                _log_call(method, _request_id(_metadata(context)), "OK", "", started, guest)

    return call


async def _admitted(
    requests: AsyncIterator[Any], context: Context, access: Access
) -> AsyncIterator[Any]:
    """What a stream asks for, each as a call of its own: a credential can be revoked meanwhile."""
    async for request in requests:
        guest = await access.guest(context)
        try:
            guest.admit(BY_OPERATION, _operation_count(request))
        except Refusal as refusal:
            yield Refused(request.id, refusal)
        else:
            yield request


def as_error(error: Exception) -> Error:
    """What a call that raised it is told."""
    return error if isinstance(error, InvalidRequest | Refusal | Failure) else _bug(error)


def _operation_count(request: Any) -> int:
    """How many operations a Batch counts for: no more than one may have."""
    if isinstance(request, Malformed):
        return 1
    asked = request.batch if isinstance(request, metering_service_pb2.StreamRequest) else request
    return min(max(len(asked.operations), 1), units.OPERATIONS_MAX)


def _bug(error: Exception) -> Failure:
    """An error that nobody expected: its cause goes to the log, its id to the caller."""
    error_id = secrets.token_hex(8)
    _log.error("call_failed", error_id=error_id, exc_info=error)
    return Failure(FailureReason.INTERNAL, "a bug in the server", applied=None, error_id=error_id)


async def _tell(
    context: Context,
    method: str,
    error: Error,
    started: float,
    log_calls: LogCalls,
    guest: Guest | None,
) -> None:
    request_id = _request_id(_metadata(context))
    status = status_of(error, retried=was_sent_before(context))
    ours = isinstance(error, Failure)
    if log_calls == "all" or (ours and log_calls == "failed"):
        _log_call(method, request_id, status.code.name, status.reason, started, guest)
    await _abort(context, status, request_id)


async def _abort(context: Context, status: ErrorStatus, request_id: str) -> None:
    trailing = ((DETAILS_KEY, status.with_request_id(request_id)), (REQUEST_ID_KEY, request_id))
    await context.abort(status.code, status.message, trailing)


def _metadata(context: Context) -> dict[str, str]:
    return {key: str(value) for key, value in context.invocation_metadata() or ()}


def _request_id(metadata: dict[str, str]) -> str:
    """The caller's id of the request if it sent a sane one, else a new one."""
    given = metadata.get(REQUEST_ID_KEY, "")
    return given if 0 < len(given) <= 128 and given.isprintable() else secrets.token_hex(8)


def _log_call(
    method: str, request_id: str, code: str, reason: str, started: float, guest: Guest | None
) -> None:
    caller = guest.service.caller if guest else None
    _log.info(
        "call",
        method=method,
        request_id=request_id,
        namespace=caller.namespace if caller else "",
        credential_id=caller.credential_id if caller else "",
        code=code,
        reason=reason,
        milliseconds=round((time.perf_counter() - started) * 1000, 2),
    )
