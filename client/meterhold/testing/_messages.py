"""Plain Python values → answers of the wire, by the names of the fields. For `Stub.answers`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass

from meterhold import _metadata
from meterhold._enums import DebitStatus
from meterhold.v1 import admin_service_pb2, ledger_service_pb2, metering_service_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
    from google.protobuf.message import Message

METHODS: dict[str, MethodDescriptor] = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower(): method
    for service in (
        metering_service_pb2.DESCRIPTOR.services_by_name["MeteringService"],
        ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"],
        admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
    )
    for method in service.methods
    if method.name not in ("Batch", "Stream")
}
"""Every call, by its name as a method of the client. There is none for Batch and Stream."""

# The client answers what is in these fields instead of the message that they are in.
_UNWRAPPED = {
    "balance": "balance",
    "get_reservation": "reservation",
    "get_entry": "entry",
    "configure_account": "account",
    "get_account": "account",
    "configure_defaults": "defaults",
    "get_defaults": "defaults",
    "revoke_credential": "credential",
}

# What a server never contradicts: a field that is left out follows from another.
_STATUS = ("status", "replayed", {False: DebitStatus.DEBITED, True: DebitStatus.REPLAYED})
_FOLLOWS: dict[str, tuple[str, str, Mapping[bool, object]]] = {
    "reserve": ("created", "replayed", {False: True, True: False}),
    "debit": _STATUS,
    "debit_once": _STATUS,
    "grant_once": ("entry", "pending", {False: {}, True: None}),
}


def response(call: str, fields: Mapping[str, Any]) -> Message:
    """Make the answer of a call, with some fields set, by their names in what the client answers.

    Raises ValueError that names a field which does not exist, and what protobuf raises for a value
    that does not fit.
    """
    message: Message = GetMessageClass(METHODS[call].output_type)()
    if follows := _FOLLOWS.get(call):
        name, other, by_other = follows
        fields = {name: by_other[bool(fields.get(other))], **fields}
    if inner := _UNWRAPPED.get(call):
        # An account has a field `account` of its own, which is not the one around it.
        beside = set(_fields(message)) - set(_fields(getattr(message, inner)))
        outer = {name: value for name, value in fields.items() if name in beside}
        fields = {inner: {n: v for n, v in fields.items() if n not in outer}, **outer}
    _fill(message, fields)
    return message


def _fields(message: Message) -> Mapping[str, Any]:
    return message.DESCRIPTOR.fields_by_name


def _fill(message: Message, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        field = _fields(message).get(name)
        if field is None:
            has = ", ".join(_fields(message))
            raise ValueError(f"{message.DESCRIPTOR.name} has no {name}; its fields: {has}")
        if value is not None:
            _set(message, field, value)


def _set(message: Message, field: FieldDescriptor, value: Any) -> None:
    there = getattr(message, field.name)
    if field.enum_type is not None and field.is_repeated:
        there.extend(_number(field, item) for item in value)
    elif field.enum_type is not None:
        setattr(message, field.name, _number(field, value))
    elif field.message_type is None and field.is_repeated:
        there.extend(value)
    elif field.message_type is None:
        setattr(message, field.name, value)
    elif field.message_type.GetOptions().map_entry:
        there.update(value)
    elif field.is_repeated:
        for item in value:
            _fill_part(there.add(), item)
    else:
        there.SetInParent()
        _fill_part(there, value)


def _fill_part(message: Any, value: Any) -> None:
    """Fill a message from what the client has in its place: a time, a dict, one of its results."""
    match message.DESCRIPTOR.full_name:
        case "google.protobuf.Timestamp":
            message.FromDatetime(value)
        case "google.protobuf.Duration":
            message.FromTimedelta(value)
        case "google.protobuf.Struct":
            message.CopyFrom(_metadata.to_struct(value))
        case _ if dataclasses.is_dataclass(value):
            _fill(message, {name: getattr(value, name) for name in _fields(message)})
        case _:
            _fill(message, value)


def _number(field: FieldDescriptor, value: str) -> int:
    """Number of an enum's member, which Python names without the prefix of the wire."""
    assert field.enum_type is not None
    unspecified, *members = field.enum_type.values
    prefix = unspecified.name.removesuffix("UNSPECIFIED")
    numbers = {member.name.removeprefix(prefix): member.number for member in members}
    if value not in numbers:
        raise ValueError(f"{field.name} must be one of {', '.join(numbers)}, not {value!r}")
    return numbers[value]
