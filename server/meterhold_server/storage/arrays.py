"""Columns of values as PostgreSQL's arrays, in its binary format.

A statement of the hot path gets its rows as one array a column: the database reads them in less
time than JSON, and Python writes them in less time, too (`python -m benchmarks.parameters`).

The format of an array: dimensions, whether any is NULL, the type; length, first index; then each
value behind its length, -1 for NULL. All integers are big-endian. See array_recv in PostgreSQL's
source, src/backend/utils/adt/arrayfuncs.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Boolean, DateTime, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.types import TypeEngine

_HEAD: Final = Struct(">5i")
_LENGTH: Final = Struct(">i")
_INT64: Final = Struct(">q")
_NULL: Final = _LENGTH.pack(-1)
_UUID_LENGTH: Final = _LENGTH.pack(16).hex()
_BOOLEANS: Final = (b"\0", b"\1")
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


Packing = Callable[[Any], bytes]
"""How the values of a column become a parameter."""


def packing_of(kind: TypeEngine[Any]) -> Packing:
    """The packing of an array, or of a time. Raises KeyError for a type that is not here yet."""
    if isinstance(kind, ARRAY):
        return _PACKINGS[type(kind.item_type)]
    return _SCALARS[type(kind)]


@lru_cache(maxsize=1024)
def _of_numbers(count: int, letter: str) -> Struct:
    return Struct(">5i" + f"i{letter}" * count)


def _integers(of_type: int, size: int, letter: str) -> Callable[[Sequence[int | None]], bytes]:
    one = Struct(f">i{letter}")

    def pack(values: Sequence[int | None]) -> bytes:
        count = len(values)
        if None in values:
            texts = (_NULL if value is None else one.pack(size, value) for value in values)
            return _HEAD.pack(1, 1, of_type, count, 1) + b"".join(texts)
        numbers: list[Any] = [size] * (2 * count)
        numbers[1::2] = values
        return _of_numbers(count, letter).pack(1, 0, of_type, count, 1, *numbers)

    return pack


def _array(of_type: int, values: Sequence[Any], binary: Callable[[Any], bytes]) -> bytes:
    count = len(values)
    head = _HEAD.pack(1, 1, of_type, count, 1)
    if values.count(values[0]) == count:
        # As often as not: the kinds, times and flags of a batch, and what nobody has set.
        return head + _sized(values[0], binary) * count
    return head + b"".join([_sized(value, binary) for value in values])


def _sized(value: Any, binary: Callable[[Any], bytes]) -> bytes:
    if value is None:
        return _NULL
    content = binary(value)
    return _LENGTH.pack(len(content)) + content


def _texts(values: Sequence[str | None]) -> bytes:
    return _array(25, values, str.encode)


def _booleans(values: Sequence[bool]) -> bytes:
    return _array(16, values, _BOOLEANS.__getitem__)


def _times(values: Sequence[datetime | None]) -> bytes:
    return _array(1184, values, _time)


def _time(value: datetime) -> bytes:
    """Microseconds since 2000."""
    return _INT64.pack((value - _EPOCH) // _MICROSECOND)


def _jsons(values: Sequence[Any]) -> bytes:
    return _array(3802, values, _json)


def _json(value: Any) -> bytes:
    """JSON behind its version. Named tuples are written as arrays; text is JSON already."""
    if isinstance(value, str):
        return b"\1" + value.encode()
    return b"\1" + orjson.dumps(value, default=tuple)


def _uuids(values: Sequence[str]) -> bytes:
    """All at once. As text they took PostgreSQL a seventh of its time for a batch of Debits."""
    digits = "".join([_UUID_LENGTH + value for value in values]).replace("-", "")
    return _HEAD.pack(1, 0, 2950, len(values), 1) + bytes.fromhex(digits)


_PACKINGS: Final[dict[type[TypeEngine[Any]], Packing]] = {
    UUID: _uuids,
    BigInteger: _integers(20, 8, "q"),
    Integer: _integers(23, 4, "i"),
    Text: _texts,
    Boolean: _booleans,
    DateTime: _times,
    JSONB: _jsons,
}
_SCALARS: Final[dict[type[TypeEngine[Any]], Packing]] = {DateTime: _time}
