"""Free-form metadata: plain Python in, `google.protobuf.Struct` on the wire, and back.

The wire knows one kind of number, a double. An int that a double cannot hold is refused instead of
being changed in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import struct_pb2


def to_struct(metadata: Mapping[str, Any]) -> struct_pb2.Struct:
    """Turn a mapping of JSON values into a Struct; an error names what does not fit."""
    return _to_struct("metadata", metadata)


def from_struct(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Turn a Struct into a dict. Whole numbers come back as int."""
    return {key: _from_value(value) for key, value in struct.fields.items()}


def _to_struct(path: str, values: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    for key, value in values.items():
        if not isinstance(key, str):
            raise TypeError(f"{path}: a key must be a str, not {type(key).__name__}")
        struct.fields[key].CopyFrom(_to_value(f"{path}[{key!r}]", value))
    return struct


def _to_value(path: str, value: object) -> struct_pb2.Value:
    match value:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=value)
        case str():
            return struct_pb2.Value(string_value=value)
        case int() | float():
            return struct_pb2.Value(number_value=_to_double(path, value))
        case Mapping():
            return struct_pb2.Value(struct_value=_to_struct(path, value))
        case list() | tuple():
            values = [_to_value(f"{path}[{index}]", item) for index, item in enumerate(value)]
            return struct_pb2.Value(list_value=struct_pb2.ListValue(values=values))
    raise TypeError(f"{path}: {type(value).__name__} is not a JSON value")


def _to_double(path: str, value: float) -> float:
    try:
        double = float(value)
    except OverflowError:
        double = float("inf")
    if isinstance(value, int) and double != value:
        raise ValueError(f"{path}: {value} does not fit a double; send it as a str")
    return double


def _from_value(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value)
        case "list_value":
            return [_from_value(item) for item in value.list_value.values]
    return None
