"""Checking the fields of a request: all that is wrong with it is collected and said at once.

Written by hand rather than declared in the protos: annotations there would put one more import into
every caller's generated code, in every language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeVar

import orjson
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from meterhold.v1 import types_pb2
from meterhold_server.core.model import AMOUNT_MICROS_MAX

ACCOUNT_CHARACTERS_MAX: Final = 128
UNIT_CHARACTERS_MAX: Final = 32
ID_CHARACTERS_MAX: Final = 128
KEY_CHARACTERS_MAX: Final = 255
LABELS_MAX: Final = 16
LABEL_KEY_BYTES_MAX: Final = 64
LABEL_VALUE_BYTES_MAX: Final = 256
METADATA_BYTES_MAX: Final = 4096
# A level is up to three messages of the wire, of which most languages read no more than 100 within
# each other, and an answer has more around the metadata than the request had.
METADATA_DEPTH_MAX: Final = 16
LEGACY_KEYS_MAX: Final = 8
PRIORITY_MAX: Final = 1000

# gRPC drops an answer whose headers, in base64 or percent-encoded, have more than 8 KiB together.
_VIOLATIONS_BYTES_MAX: Final = 4200
_MESSAGE_BYTES_MAX: Final = 400

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIMESTAMP_SECONDS_MAX: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
_INT64_MAX: Final = 2**63 - 1
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_E = TypeVar("_E", bound=StrEnum)


class Violation(NamedTuple):
    """What is wrong with a field, by its path in the request."""

    field: str
    description: str
    too_large: bool = False


class InvalidRequest(Exception):
    """A request with fields that cannot be accepted."""

    def __init__(self, violations: list[Violation]) -> None:
        text = "; ".join(f"{v.field}: {v.description}" for v in violations).encode()
        if len(text) > _MESSAGE_BYTES_MAX:
            text = text[: _MESSAGE_BYTES_MAX - 3] + b"..."
        super().__init__(text.decode(errors="ignore"))
        self.violations = violations


class _WithMetadata(Protocol):
    @property
    def metadata(self) -> Struct: ...

    def HasField(self, field_name: Literal["metadata"], /) -> bool: ...


class _WithUsage(Protocol):
    @property
    def usage(self) -> types_pb2.Usage: ...

    def HasField(self, field_name: Literal["usage"], /) -> bool: ...


class Fields:
    """Checks one request. Each method answers the field's value, or a stand-in if it is wrong."""

    __slots__ = ("_violations",)

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def wrong(self, field: str, description: str, *, too_large: bool = False) -> None:
        self._violations.append(Violation(field, description, too_large))

    def done(self) -> None:
        """Raise InvalidRequest if anything was wrong."""
        if self._violations:
            raise InvalidRequest(_told(self._violations))

    def text(self, field: str, value: str, characters_max: int, *, required: bool = True) -> str:
        """Printable characters: no control characters, no NUL, no lone spaces but U+0020."""
        if not value:
            if required:
                self.wrong(field, f"is required, 1 to {characters_max} characters")
        elif len(value) > characters_max:
            self.wrong(field, f"has {len(value)} characters, at most {characters_max} are allowed")
        elif not value.isprintable():
            self.wrong(field, "has characters that are not printable")
        return value

    def note(self, field: str, value: str, bytes_max: int) -> str:
        """Free text: anything but NUL."""
        if len(value) * 4 > bytes_max and len(value.encode()) > bytes_max:
            self.wrong(field, f"has {len(value.encode())} bytes, at most {bytes_max} are allowed")
        if "\0" in value:
            self.wrong(field, "contains NUL")
        return value

    def amount(self, field: str, value: int, *, least: int = 0) -> int:
        if value < least:
            self.wrong(field, f"is {value}, at least {least} is required")
        elif value > AMOUNT_MICROS_MAX:
            self.wrong(field, f"is {value}, at most {AMOUNT_MICROS_MAX} is allowed", too_large=True)
        return value

    def count(self, field: str, value: int, most: int = _INT64_MAX) -> int:
        if not 0 <= value <= most:
            self.wrong(field, f"is {value}, from 0 to {most} is allowed")
        return value

    def one_of(self, field: str, number: int, values: Mapping[int, _E | None]) -> _E | None:
        """An enum value by its number; None where the table says so, as for UNSPECIFIED."""
        if number not in values:
            self.wrong(field, f"is {number}, which is not a value of this enum or not allowed here")
            return None
        return values[number]

    def duration(self, field: str, value: Duration, most: timedelta) -> timedelta | None:
        """A length of time; None for 0. Less than a microsecond counts as none."""
        if value.seconds < 0 or value.nanos < 0 or value.nanos > 999_999_999:
            self.wrong(field, "is negative or malformed")
            return None
        if value.seconds > most.total_seconds():
            self.wrong(field, f"is {value.seconds} s, at most {most.total_seconds():.0f} s allowed")
            return None
        length = timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
        if length > most:
            self.wrong(field, f"is over {most.total_seconds():.0f} s")
        return length or None

    def time(self, field: str, value: Timestamp) -> datetime:
        """An instant from 1970 to 9999, to the microsecond."""
        if not 0 <= value.seconds <= _TIMESTAMP_SECONDS_MAX or not 0 <= value.nanos < 10**9:
            self.wrong(field, "is not a time between 1970 and 9999")
            return _EPOCH
        return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)

    def optional_time(self, field: str, message: Message) -> datetime | None:
        """The instant of a field of the message; None if it is unset."""
        return self.time(field, getattr(message, field)) if message.HasField(field) else None

    def time_range(self, request: Message) -> tuple[datetime | None, datetime | None]:
        """The `start_time` and `end_time` of a request; None for one that is not set."""
        start, end = (self.optional_time(name, request) for name in ("start_time", "end_time"))
        if start and end and end < start:
            self.wrong("end_time", "is before start_time")
        return start, end

    def labels(self, field: str, value: Mapping[str, str]) -> dict[str, str] | None:
        if not value:
            return None
        if len(value) > LABELS_MAX:
            self.wrong(field, f"has {len(value)} entries, at most {LABELS_MAX} are allowed")
        for key, text in value.items():
            if not key:
                self.wrong(field, "has an empty key")
            self.note(f"{field}.key", key, LABEL_KEY_BYTES_MAX)
            self.note(f"{field}[{key[:LABEL_KEY_BYTES_MAX]!r}]", text, LABEL_VALUE_BYTES_MAX)
        return dict(value)

    def metadata(self, request: _WithMetadata) -> str | None:
        """The free-form `metadata` of a request as JSON text; None if there is none."""
        if not request.HasField("metadata") or not request.metadata.fields:
            return None
        field, value = "metadata", request.metadata
        try:
            found = MessageToDict(value)
            text = orjson.dumps(found)
        except (ValueError, TypeError, RecursionError):
            self.wrong(field, "cannot be written as JSON: NaN, Infinity or an unset value")
            return None
        if _is_deeper(found, METADATA_DEPTH_MAX):
            self.wrong(field, f"is nested more than {METADATA_DEPTH_MAX} deep")
        if len(text) > METADATA_BYTES_MAX:
            self.wrong(
                field, f"has {len(text)} bytes as JSON, at most {METADATA_BYTES_MAX} allowed"
            )
        if _ESCAPED_NUL.search(text):
            self.wrong(field, "contains NUL")
        return text.decode()

    def usage(self, request: _WithUsage) -> dict[str, Any] | None:
        """What is set of the `usage` of a request, by field name; None if nothing is."""
        if not request.HasField("usage"):
            return None
        texts = {"provider": 128, "model": 128, "stop_reason": 64}
        found: dict[str, Any] = {}
        for descriptor, content in request.usage.ListFields():
            name = descriptor.name
            path = f"usage.{name}"
            if name in texts:
                found[name] = self.note(path, content, texts[name])
            else:
                found[name] = self.count(path, content)
        return found or None


def _told(violations: list[Violation]) -> list[Violation]:
    """The first violations, as many as fit into the headers of an answer, and how many are left.

    Those of a sane request all fit.
    """
    left = _VIOLATIONS_BYTES_MAX
    for number, violation in enumerate(violations):
        # The name is sent twice: in the details of the violation and in the list of all fields.
        left -= 2 * len(violation.field.encode()) + len(violation.description.encode()) + 8
        if left < 0:
            rest = Violation(
                "request", f"has {len(violations) - number} more fields that are wrong"
            )
            return [*violations[:number], rest]
    return violations


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are nested in a value of JSON more than so many deep."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)
