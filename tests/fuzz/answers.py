"""What is wrong with an answer: nothing, if it is a success or a refusal that says so in full."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

import grpc
import grpc.aio
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from meterhold.v1 import metering_service_pb2
from meterhold_server.rpc.errors import CODES, DETAILS_KEY, DOMAIN

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Above it gRPC itself refuses a message, before the service has seen it."""

_ERROR: Final = metering_service_pb2.BatchError.DESCRIPTOR
_OURS: Final = metering_service_pb2.DESCRIPTOR.package
_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_INDEFINITE: Final = ("INTERNAL", "UNKNOWN")

CALL_ENDED: Final = "(had ended)"
"""In the place of a code: a call had ended before its next message was sent."""

_WRITTEN_TOO_LATE: Final = "Internal error from Core"
"""So gRPC tells its own caller, which then cannot know what the call had ended with."""


class Answer(NamedTuple):
    """An answer to one message: its code, the messages if it was one, and what is wrong with it."""

    code: str
    messages: tuple[Message, ...] = ()
    problem: str = ""


def of_success(method: MethodDescriptor, *parts: bytes) -> Answer:
    """What to think of the messages of an answer, the errors within them, too."""
    parse = GetMessageClass(method.output_type).FromString
    try:
        messages = tuple(parse(part) for part in parts)
    except DecodeError:
        return Answer("OK", problem="the answer cannot be parsed")
    errors = (error for message in messages for error in _errors_in(message))
    problems = (_wrong_with_details(_NAMES[error.code], error.details) for error in errors)
    return Answer("OK", messages, next(filter(None, problems), ""))


def of_error(method: MethodDescriptor, error: grpc.aio.AioRpcError, request_bytes: int) -> Answer:
    """What to think of a status. `request_bytes` of the largest message that was sent."""
    code = error.code().name
    if method.client_streaming and error.details() == _WRITTEN_TOO_LATE:
        return Answer(CALL_ENDED)
    if code in _INDEFINITE:
        return Answer(code, problem=f"is {code}: {error.details()}")
    if request_bytes > MESSAGE_BYTES_MAX:
        right = code == "RESOURCE_EXHAUSTED"
        return Answer(code, problem="" if right else f"is {code}, though far too large")
    data = dict(error.trailing_metadata() or ()).get(DETAILS_KEY, b"")
    if not data and not is_ours(method):
        right = code == "NOT_FOUND"
        return Answer(code, problem="" if right else f"is {code}: {error.details()}")
    status = status_pb2.Status.FromString(data if isinstance(data, bytes) else data.encode())
    return Answer(code, problem=_wrong_with_details(code, status.details))


def is_ours(method: MethodDescriptor) -> bool:
    """Whether errors of a method are by our own rules; health has codes alone."""
    return str(method.full_name).startswith(_OURS)


def _wrong_with_details(code: str, details: object) -> str:
    """What is missing in the details of an error. Each says why, and what was done."""
    infos = [
        error_details_pb2.ErrorInfo.FromString(detail.value)
        for detail in details  # type: ignore[attr-defined]
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
    ]
    if code in _INDEFINITE:
        return f"is {code} within an answer: {infos}"
    if len(infos) != 1:
        return f"is {code} with {len(infos)} ErrorInfo, not one"
    [info] = infos
    if info.domain != DOMAIN or info.reason not in CODES or CODES[info.reason].name != code:
        return f"is {code}, and its reason {info.reason!r} of {info.domain!r}"
    if info.metadata["applied"] not in ("NO", "UNKNOWN"):
        return f"is {code} and does not say whether it was applied"
    return ""


def _errors_in(message: Message) -> Iterator[metering_service_pb2.BatchError]:
    if isinstance(message, metering_service_pb2.BatchError):
        yield message
    elif _may_have_errors(message.DESCRIPTOR):
        for field, value in message.ListFields():
            if field.message_type is not None:
                for each in value if field.is_repeated else (value,):
                    yield from _errors_in(each)


@cache
def _may_have_errors(of: Descriptor) -> bool:
    """Whether errors can be in such a message, in the place of an answer."""
    if of.file.package != _OURS:
        return False
    inner = (field.message_type for field in of.fields if field.message_type is not None)
    return of.full_name == _ERROR.full_name or any(map(_may_have_errors, inner))
