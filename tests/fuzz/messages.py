"""Random messages of any descriptor: plausible ones, that may be accepted, and wild ones.

Nothing is known of any message: what a plausible value is depends on the name and type of a field.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

_DEPTH_MAX: Final = 6
_FIRST: Final = 5
"""How many fields at the head of a message are nearly always set: what is required stands there."""

_FIRST_FULLNESS: Final = 0.97
_LEARNED_MAX: Final = 200
_ACCEPTED_MAX: Final = 20
_FOLLOWING_CHANCE: Final = 0.6
_FOLLOWED: Final = ("reservation_id", "idempotency_key", "grant_key")

_NAMES: Final = {
    "account": ("ann", "ben", "cleo", "dora"),
    "unit": ("", "", "", "credits", "tokens"),
    "currency_code": ("EUR", "USD"),
    "account_prefix": ("", "a", "be"),
    "page_token": ("",),
    "service": ("", "meterhold.v1.MeteringService", "none"),
    "file_by_filename": ("meterhold/v1/types.proto", "none.proto"),
    "file_containing_symbol": ("meterhold.v1.Balance", "none"),
    "all_extension_numbers_of_type": ("google.protobuf.MethodOptions", "meterhold.v1.Balance"),
    "containing_type": ("google.protobuf.MethodOptions", "none"),
}
"""Texts by the name of a field, where a short random one would not do."""

_SCALES: Final = {"GrantOnceRequest": 1000, "ConfigureAccountRequest": 1000}
"""By message: what puts something in is larger than what takes it out, or all would be refused."""

_WORDS: Final = ("gpt", "openai", "de", "stop", "a b", "naïve", "東京")
_KEYS: Final = ("_key", "_keys", "_id")
_FEW_KEYS: Final = 20
_MANY_KEYS: Final = 2000

_WILD_TEXTS: Final = (
    "", "\0", "a\0b", " ", "\n", "\x7f", "\u202e", "\ufeff", "\U0010ffff", "x" * 65, "x" * 256,
    "é" * 200, "x" * 5000, "%s%n", "'; DROP TABLE entry; --", "../../etc/passwd", "${jndi:x}",
    "\\u0000", '{"a": 1}', "-1", "NaN", "W10=", "e30=",
)  # fmt: skip

_WILD_NUMBERS: Final = (
    0, 1, -1, 2**31 - 1, -(2**31), 2**31, 2**32 - 1, 2**32, 2**53, 2**53 + 1, 10**15, 10**15 + 1,
    10**18, 2**62, 2**63 - 1, -(2**63), 2**64 - 1,
)  # fmt: skip
_WILD_FRACTIONS: Final = (
    0.0,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    float("inf"),
    float("-inf"),
    float("nan"),
)

_BOUNDS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Messages:
    """Makes messages, all by one random generator."""

    def __init__(self, chance: random.Random, *, now_seconds: float) -> None:
        """Plausible times are around `now_seconds`, since the epoch."""
        self._chance = chance
        self._now_seconds = now_seconds
        self._learned: defaultdict[str, list[str]] = defaultdict(list)
        self._accepted: list[Message] = []

    def plausible(self, of: Descriptor) -> Message:
        """One whose every field may well be right."""
        message = self._made(of, 0.0, _DEPTH_MAX)
        if self._accepted and self._chance.random() < _FOLLOWING_CHANCE:
            _name_the_same(message, self._chance.choice(self._accepted))
        return message

    def wild(self, of: Descriptor) -> Message:
        """One of which some fields, or all, are what no caller should send."""
        return self._made(of, self._chance.choice((0.1, 0.3, 1.0)), _DEPTH_MAX)

    def follow(self, accepted: Message) -> None:
        """Ask again, by whatever method, for what a request has named that was accepted."""
        if any(name in accepted.DESCRIPTOR.fields_by_name for name in _FOLLOWED):
            self._accepted.append(accepted)
            del self._accepted[:-_ACCEPTED_MAX]

    def learn(self, answer: Message) -> None:
        """Ask for what an answer names: tokens of pages, keys, ids that were drawn by lot."""
        for field, value in answer.ListFields():
            name = str(field.name).removeprefix("next_")
            if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
                if name.endswith(("_token", *_KEYS)):
                    known = self._learned[name]
                    known.append(value)
                    del known[:-_LEARNED_MAX]
            elif field.message_type is not None and field.is_repeated:
                if not field.message_type.GetOptions().map_entry:
                    for each in value[:2]:
                        self.learn(each)
            elif isinstance(value, Message):
                self.learn(value)

    def _made(self, of: Descriptor, wildness: float, depth: int) -> Message:
        message = GetMessageClass(of)()
        match of.full_name:
            case "google.protobuf.Timestamp" if not self._is_wild(wildness):
                seconds = self._now_seconds + self._chance.uniform(-7, 60) * 86_400
                setattr(message, "seconds", int(seconds))  # noqa: B010
                return message
            case "google.protobuf.Duration" if not self._is_wild(wildness):
                setattr(message, "seconds", self._chance.choice((1, 60, 3600)))  # noqa: B010
                return message
        fullness = self._chance.choice((0.1, 0.3, 0.7, 1.0))
        for field in self._chosen(of):
            first = field.index < _FIRST and field.message_type is None
            if self._chance.random() < (_FIRST_FULLNESS if first else fullness):
                self._set(message, field, wildness, depth)
        return message

    def _chosen(self, of: Descriptor) -> list[FieldDescriptor]:
        """The fields of a message, of each oneof one."""
        alone = [field for field in of.fields if field.containing_oneof is None]
        return alone + [self._chance.choice(oneof.fields) for oneof in of.oneofs]

    def _set(self, message: Any, field: FieldDescriptor, wildness: float, depth: int) -> None:
        inner = field.message_type
        if inner is not None and depth == 0:
            return
        if inner is not None and inner.GetOptions().map_entry:
            self._set_map(getattr(message, field.name), inner, wildness, depth)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(self._count(wildness)):
                if inner is None:
                    values.append(self._scalar(field, wildness))
                else:
                    values.append(self._made(inner, wildness, depth - 1))
        elif inner is not None:
            getattr(message, field.name).CopyFrom(self._made(inner, wildness, depth - 1))
        else:
            setattr(message, field.name, self._scalar(field, wildness))

    def _set_map(self, values: Any, entry: Descriptor, wildness: float, depth: int) -> None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self._count(wildness)):
            name = self._scalar(key, wildness)
            if value.message_type is None:
                values[name] = self._scalar(value, wildness)
            else:
                values[name].CopyFrom(self._made(value.message_type, wildness, depth - 1))

    def _count(self, wildness: float) -> int:
        if self._is_wild(wildness) and self._chance.random() < 0.05:
            return self._chance.choice((17, 101, 1001))
        return self._chance.choice((1, 1, 2, 3))

    def _is_wild(self, wildness: float) -> bool:
        return wildness > 0 and self._chance.random() < wildness

    def _scalar(self, field: FieldDescriptor, wildness: float) -> Any:
        chance, wild = self._chance, self._is_wild(wildness)
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_BOOL:
                return chance.random() < 0.15
            case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
                return chance.randbytes(chance.randrange(64))
            case FieldDescriptor.CPPTYPE_STRING:
                return chance.choice(_WILD_TEXTS) if wild else self._text(field.name)
            case FieldDescriptor.CPPTYPE_ENUM:
                return self._enum(field, wild)
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return chance.choice(_WILD_FRACTIONS) if wild else chance.randrange(100)
            case _:
                low, high = _BOUNDS[field.cpp_type]
                if wild:
                    return min(max(chance.choice(_WILD_NUMBERS), low), high)
                return self._number(field)

    def _number(self, field: FieldDescriptor) -> int:
        if field.name.startswith("min_"):
            return self._chance.randint(0, 2)
        message = field.containing_type.name if field.containing_type else ""
        scale = _SCALES.get(message, 1)
        return self._chance.randint(1, self._chance.choice((9, 100, 1000))) * scale

    def _text(self, name: str) -> str:
        if (known := self._learned.get(name)) and self._chance.random() < 0.5:
            return self._chance.choice(known)
        if name in _NAMES:
            return self._chance.choice(_NAMES[name])
        if name.endswith(_KEYS):
            keys = self._chance.choice((_FEW_KEYS, _MANY_KEYS))
            return f"key-{self._chance.randrange(keys)}"
        return self._chance.choice(_WORDS)

    def _enum(self, field: FieldDescriptor, wild: bool) -> int:
        assert field.enum_type is not None
        known = [value.number for value in field.enum_type.values]
        if wild:
            return self._chance.choice((-1, len(known), 99, 2**31 - 1, -(2**31)))
        return int(self._chance.choice(known))


def _name_the_same(message: Message, other: Message) -> None:
    """Put the texts of one message into the fields of another that have their names."""
    for field, value in other.ListFields():
        own = message.DESCRIPTOR.fields_by_name.get(field.name)
        if _is_text(field) and own is not None and _is_text(own) and own.containing_oneof is None:
            setattr(message, own.name, value)


def _is_text(field: Any) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated)
