"""What is done to the bytes of a message: each mutation is a function in `MUTATIONS`, by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_VARINT, _FIXED64, _LENGTH, _GROUP, _END_GROUP, _FIXED32 = range(6)
_FIELD_MAX: Final = 2**29 - 1
_NOT_UTF_8: Final = (
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf5\x80\x80\x80",
    b"\x80",
    b"\xe2\x82",
)
_EXTREMES: Final = (0, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)

OVERSIZED_BYTES: Final = 64 * 1024 + 1
"""One byte more than a message may have that is no Batch."""


class Sample(NamedTuple):
    """A message to be mutated, what it is of, and another one to take parts from."""

    data: bytes
    of: Descriptor
    other: bytes


class _Span(NamedTuple):
    """Where a field stands: its tag begins, its content begins, and it ends."""

    start: int
    content: int
    end: int
    number: int
    wire_type: int


Mutation = Callable[[Sample, random.Random], bytes]


def varint(value: int) -> bytes:
    """A number of up to 64 bits, as the wire has it."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def _bits_flipped(sample: Sample, chance: random.Random) -> bytes:
    changed = bytearray(sample.data or b"\0")
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _bytes_replaced(sample: Sample, chance: random.Random) -> bytes:
    start, end = _cut(sample.data, chance)
    return sample.data[:start] + chance.randbytes(end - start) + sample.data[end:]


def _bytes_inserted(sample: Sample, chance: random.Random) -> bytes:
    place = chance.randint(0, len(sample.data))
    new = chance.randbytes(chance.choice((1, 2, 8, 64)))
    return sample.data[:place] + new + sample.data[place:]


def _truncated(sample: Sample, chance: random.Random) -> bytes:
    return sample.data[: chance.randint(0, len(sample.data))]


def _span_deleted(sample: Sample, chance: random.Random) -> bytes:
    start, end = _cut(sample.data, chance)
    return sample.data[:start] + sample.data[end:]


def _span_doubled(sample: Sample, chance: random.Random) -> bytes:
    start, end = _cut(sample.data, chance)
    return sample.data[:end] + sample.data[start:end] + sample.data[end:]


def _field_deleted(sample: Sample, chance: random.Random) -> bytes:
    if not (spans := list(_spans(sample.data))):
        return b""
    span = chance.choice(spans)
    return sample.data[: span.start] + sample.data[span.end :]


def _fields_doubled(sample: Sample, chance: random.Random) -> bytes:
    spans = list(_spans(sample.data))
    times = chance.choice((1, 3, 40))
    copies = [chance.choice(spans) for _ in range(times)] if spans else []
    return sample.data + b"".join(sample.data[span.start : span.end] for span in copies)


def _spliced(sample: Sample, chance: random.Random) -> bytes:
    """The head of one message and the tail of another."""
    head = chance.randint(0, len(sample.data))
    tail = chance.randint(0, len(sample.other))
    return sample.data[:head] + sample.other[tail:]


def _merged(sample: Sample, chance: random.Random) -> bytes:
    """Two whole messages: of each field the last one counts."""
    return sample.other + sample.data


def _wire_type_changed(sample: Sample, chance: random.Random) -> bytes:
    if not (spans := list(_spans(sample.data))):
        return tag(1, chance.randrange(8))
    span = chance.choice(spans)
    changed = tag(span.number, chance.randrange(8))
    return sample.data[: span.start] + changed + sample.data[span.content :]


def _nested(sample: Sample, chance: random.Random) -> bytes:
    """A message within itself, many times, where the field is one; or groups, which few know."""
    number = _number_of(sample.of, chance)
    levels = chance.choice((2, 50, 99, 101, 1000, 5000))
    if chance.random() < 0.5:
        groups = tag(number, _GROUP) * levels
        closed = tag(number, _END_GROUP) * (levels - chance.randrange(2))
        return sample.data + groups + closed
    inner = b""
    for _ in range(min(levels, 1000)):
        inner = tag(number, _LENGTH) + varint(len(inner)) + inner
    return sample.data + inner


def _struct_nested(sample: Sample, chance: random.Random) -> bytes:
    """Lists in lists, in each field that can have them: as deep as a parser goes, and deeper."""
    inner = b"\x1a\x01x"  # Value.string_value
    for _ in range(chance.choice((10, 15, 16, 17, 30, 33, 48, 49, 50, 51, 200))):
        values = b"\x0a" + varint(len(inner)) + inner  # ListValue.values
        inner = b"\x32" + varint(len(values)) + values  # Value.list_value
    entry = b"\x0a\x01k\x12" + varint(len(inner)) + inner
    struct = b"\x0a" + varint(len(entry)) + entry
    fields = [f.number for f in sample.of.fields if _is_struct(f)]
    number = chance.choice(fields or [_number_of(sample.of, chance)])
    return sample.data + tag(number, _LENGTH) + varint(len(struct)) + struct


def _huge_varint(sample: Sample, chance: random.Random) -> bytes:
    """Ten bytes and more, where a number of 64 bits needs no more than ten."""
    number = _number_of(sample.of, chance)
    ends = chance.choice((b"\x01", b"\x02", b"\x7f", b""))
    value = b"\xff" * chance.choice((4, 9, 10, 11, 100)) + ends
    return sample.data + tag(number, _VARINT) + value


def _length_lies(sample: Sample, chance: random.Random) -> bytes:
    """A field that says it is longer than the message."""
    length = chance.choice((len(sample.data) + 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63))
    number = _number_of(sample.of, chance)
    return sample.data + tag(number, _LENGTH) + varint(length) + sample.other[:20]


def _not_utf_8(sample: Sample, chance: random.Random) -> bytes:
    texts = [
        field.number for field in sample.of.fields if field.type == FieldDescriptor.TYPE_STRING
    ]
    number = chance.choice(texts) if texts else _number_of(sample.of, chance)
    text = b"a" * chance.randrange(3) + chance.choice(_NOT_UTF_8) + b"b" * chance.randrange(3)
    return sample.data + tag(number, _LENGTH) + varint(len(text)) + text


def _nul(sample: Sample, chance: random.Random) -> bytes:
    """A NUL in the place of any byte that may be one of a text."""
    changed = bytearray(sample.data)
    places = [place for place, byte in enumerate(changed) if 0x20 <= byte < 0x7F]
    for place in chance.sample(places, min(len(places), chance.randint(1, 3))):
        changed[place] = 0
    return bytes(changed)


def _unknown_field(sample: Sample, chance: random.Random) -> bytes:
    number = chance.choice((0, 99, 19_000, _FIELD_MAX, chance.randint(1, _FIELD_MAX)))
    content = chance.choice(
        (
            tag(number, _VARINT) + varint(chance.getrandbits(64)),
            tag(number, _FIXED64) + chance.randbytes(8),
            tag(number, _LENGTH) + varint(8) + chance.randbytes(8),
            tag(number, _GROUP) + sample.other + tag(number, _END_GROUP),
            tag(number, _FIXED32) + chance.randbytes(4),
        )
    )
    return content + sample.data if chance.random() < 0.5 else sample.data + content


def _unknown_enum(sample: Sample, chance: random.Random) -> bytes:
    enums = [field.number for field in sample.of.fields if field.enum_type is not None]
    number = chance.choice(enums) if enums else _number_of(sample.of, chance)
    value = chance.choice((7, 99, 2**31 - 1, 2**31, 2**64 - 1))
    return sample.data + tag(number, _VARINT) + varint(value)


def _extreme_number(sample: Sample, chance: random.Random) -> bytes:
    number = _number_of(sample.of, chance)
    return sample.data + tag(number, _VARINT) + varint(chance.choice(_EXTREMES))


def _inner_changed(sample: Sample, chance: random.Random) -> bytes:
    """A mutation of a message within the message, whose length is right again."""
    inner = [span for span in _spans(sample.data) if span.wire_type == _LENGTH]
    if not inner:
        return _bits_flipped(sample, chance)
    span = chance.choice(inner)
    field = sample.of.fields_by_number.get(span.number)
    within = field.message_type if field is not None and field.message_type else sample.of
    content = _content(sample.data, span)
    name = chance.choice([each for each in MUTATIONS if each not in _WHOLE])
    changed = MUTATIONS[name](Sample(content, within, sample.other), chance)
    whole = tag(span.number, _LENGTH) + varint(len(changed)) + changed
    return sample.data[: span.start] + whole + sample.data[span.end :]


def _empty(sample: Sample, chance: random.Random) -> bytes:
    return b""


def _noise(sample: Sample, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 5, 50, 500)))


def _oversized(sample: Sample, chance: random.Random) -> bytes:
    """Larger than a message may be, though a parser would have it."""
    missing = max(0, OVERSIZED_BYTES - len(sample.data))
    return sample.data + tag(_FIELD_MAX, _LENGTH) + varint(missing) + b"x" * missing


MUTATIONS: Final[dict[str, Mutation]] = {
    function.__name__.strip("_").replace("_", " "): function
    for function in (
        _bits_flipped, _bytes_replaced, _bytes_inserted, _truncated, _span_deleted, _span_doubled,
        _field_deleted, _fields_doubled, _spliced, _merged, _wire_type_changed, _nested,
        _struct_nested, _huge_varint, _length_lies, _not_utf_8, _nul, _unknown_field,
        _unknown_enum, _extreme_number, _inner_changed, _empty, _noise, _oversized,
    )
}  # fmt: skip

_WHOLE: Final = ("oversized", "inner changed")
"""Mutations of a whole message, and of none within one."""

_RARE: Final = {"oversized": 0.1, "empty": 0.3}
_WEIGHTS: Final = [_RARE.get(name, 1.0) for name in MUTATIONS]


def mutated(sample: Sample, chance: random.Random) -> tuple[bytes, list[str]]:
    """The message after one mutation to three, and their names."""
    names = chance.choices(list(MUTATIONS), _WEIGHTS, k=chance.choice((1, 1, 2, 3)))
    for name in names:
        sample = sample._replace(data=MUTATIONS[name](sample, chance))
    return sample.data, names


def _cut(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randint(0, len(data))
    return start, min(len(data), start + chance.choice((1, 2, 4, 16)))


def _number_of(of: Descriptor, chance: random.Random) -> int:
    return int(chance.choice(of.fields).number) if of.fields else 1


def _is_struct(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.name == "Struct"


def _content(data: bytes, span: _Span) -> bytes:
    _, start = _read_varint(data, span.content)
    return data[start : span.end]


def _spans(data: bytes) -> Iterator[_Span]:
    """The fields of a message, up to the first thing that is none."""
    place = 0
    while place < len(data):
        start = place
        key, content = _read_varint(data, place)
        match key & 7:
            case 0:
                _, place = _read_varint(data, content)
            case 1:
                place = content + 8
            case 2:
                length, place = _read_varint(data, content)
                place += length
            case 5:
                place = content + 4
            case _:
                return
        if key >> 3 == 0 or place > len(data):
            return
        yield _Span(start, content, place, key >> 3, key & 7)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at a place, and where it ends: beyond the data if it does not."""
    value = shift = 0
    while place < len(data):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    return value, len(data) + 1
