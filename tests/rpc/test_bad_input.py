"""Every wrong value of every field is refused by name, leaves no trace, and harms no server."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast

import grpc.aio
import psycopg
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import ledger_service_pb2 as ledger
from meterhold.v1 import metering_service_pb2 as metering
from meterhold.v1 import types_pb2 as types
from meterhold_server.core.model import AMOUNT_MICROS_MAX, AccountKey
from meterhold_server.rpc import page_token
from meterhold_server.rpc.handlers import REQUEST_BYTES_MAX
from meterhold_server.storage import tables
from meterhold_server.storage.verify import verify
from rpc.answers import METHODS, Told, call, refusal
from support.database import DatabaseServer, name_of
from support.service import service

IN_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")

INT64_MAX: Final = 2**63 - 1
INT64_MIN: Final = -(2**63)
SEED: Final = int(os.environ.get("METERHOLD_TEST_SEED") or random.randrange(2**32))

START_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)
_START: Final = Timestamp(seconds=int(START_TIME.timestamp()))

_ALLOWANCE: Final = types.Allowance(amount_micros=5, period=types.ALLOWANCE_PERIOD_DAILY)

VALID: Final[dict[str, Message]] = {
    message.DESCRIPTOR.name: message
    for message in (
        metering.ReserveRequest(account="alice", reservation_id="job", amount_micros=5),
        metering.SettleRequest(account="alice", reservation_id="job", amount_micros=5),
        metering.ReleaseRequest(account="alice", reservation_id="job"),
        metering.ExtendRequest(
            account="alice", reservation_id="job", add_amount_micros=5, extend_id="more"
        ),
        metering.DebitRequest(account="alice", amount_micros=5),
        metering.DebitOnceRequest(account="alice", idempotency_key="key", amount_micros=5),
        metering.GrantOnceRequest(
            account="alice",
            idempotency_key="key",
            amount_micros=5,
            cash=types.Cash(currency_code="EUR"),
        ),
        metering.RefundChargeRequest(
            account="alice",
            idempotency_key="key",
            capture=metering.Capture(reservation_id="job"),
        ),
        metering.RevokeGrantRequest(
            grant_key="key",
            account="alice",
            unit="credits",
            expected_source=types.ExpectedSource(currency_code="EUR"),
        ),
        metering.ReinstateGrantRequest(
            grant_key="key",
            account="alice",
            unit="credits",
            expected_source=types.ExpectedSource(currency_code="EUR"),
        ),
        metering.BalanceRequest(account="alice"),
        ledger.GetReservationRequest(account="alice", reservation_id="job"),
        ledger.ListReservationsRequest(account="alice"),
        ledger.ListEntriesRequest(account="alice", start_time=_START),
        ledger.GetEntryRequest(account="alice", seq=1),
        ledger.ListLotsRequest(account="alice"),
        ledger.GetStatsRequest(),
        ledger.SpendReportRequest(account="alice", start_time=_START),
        admin.ConfigureAccountRequest(account="alice", credit_limit_micros=5, allowance=_ALLOWANCE),
        admin.ConfigureDefaultsRequest(allowance=_ALLOWANCE),
        admin.GetDefaultsRequest(),
        admin.GetAccountRequest(account="alice"),
        admin.ListAccountsRequest(),
        admin.VerifyBalanceRequest(account="alice"),
        admin.RebuildBalanceRequest(account="alice"),
        admin.CreateApiKeyRequest(name="gateway", scopes=[admin.SCOPE_ADMIN]),
        admin.ListCredentialsRequest(),
        admin.RevokeCredentialRequest(credential_id="a" * 16),
    )
}
"""A request of each method that has nothing wrong with it. Each wrong value is put into one."""


class Bad(NamedTuple):
    """A value that a field must not have, and the field that is named for it, if not itself."""

    what: str
    value: Any
    named: str = ""
    too_large: bool = False


def _name(characters_max: int, *, required: bool = True) -> list[Bad]:
    rows = [
        Bad("too_long", "x" * (characters_max + 1)),
        Bad("too_long_not_ascii", "é" * (characters_max + 1)),
        Bad("nul", "a\0b"),
        Bad("line_feed", "a\nb"),
        Bad("delete", "a\x7f"),
        Bad("right_to_left_override", "a\u202eb"),
        Bad("unassigned", "\U0003ffff"),
    ]
    return [Bad("empty", ""), *rows] if required else rows


def _note(bytes_max: int) -> list[Bad]:
    return [
        Bad("too_long", "x" * (bytes_max + 1)),
        Bad("too_long_in_bytes", "é" * (bytes_max // 2 + 1)),
        Bad("nul", "a\0b"),
    ]


def _amount(least: int) -> list[Bad]:
    rows = [
        Bad("negative", -1),
        Bad("least_of_int64", INT64_MIN),
        Bad("too_large", AMOUNT_MICROS_MAX + 1, too_large=True),
        Bad("largest_of_int64", INT64_MAX, too_large=True),
    ]
    return [Bad("zero", 0), *rows] if least else rows


def _duration(seconds_max: int = 604_800) -> list[Bad]:
    return [
        Bad("negative", Duration(seconds=-1)),
        Bad("negative_nanos", Duration(nanos=-1)),
        Bad("signs_differ", Duration(seconds=1, nanos=-1)),
        Bad("second_of_nanos", Duration(nanos=10**9)),
        Bad("over_the_maximum", Duration(seconds=seconds_max + 1)),
        Bad("a_microsecond_over", Duration(seconds=seconds_max, nanos=1000)),
        Bad("largest_of_int64", Duration(seconds=INT64_MAX)),
    ]


def _struct(**values: Any) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _page_tokens(filters: tuple[Any, ...], *keys: tuple[Any, ...]) -> list[Bad]:
    """Forged ones: of the right request and with these keys in them, or wrong all through."""
    whose = filters[1]
    other = AccountKey("default", "bob", "credits") if whose == ALICE else f"not {whose}"
    of_another = (filters[0], other, *filters[2:])
    return [
        Bad("token_not_base64", "%%%"),
        Bad("token_not_ascii", "…"),
        Bad("token_nul", "\0"),
        Bad("token_cut_short", page_token.encode(filters, (7,))[:-5]),
        Bad("token_random", "bWV0ZXJob2xk"),
        Bad("token_no_list", "e30="),
        Bad("token_empty_list", "W10="),
        Bad("token_of_another_account", page_token.encode(of_another, (7,))),
        Bad("token_of_another_list", page_token.encode(("other", *filters[1:]), (7,))),
        *(Bad(f"token_with_{key}", page_token.encode(filters, key)) for key in keys),
    ]


def _time() -> list[Bad]:
    return [
        Bad("negative", Timestamp(seconds=-1)),
        Bad("negative_nanos", Timestamp(seconds=4_000_000_000, nanos=-1)),
        Bad("second_of_nanos", Timestamp(seconds=4_000_000_000, nanos=10**9)),
        Bad("year_10000", Timestamp(seconds=253_402_300_800)),
        Bad("largest_of_int64", Timestamp(seconds=INT64_MAX)),
    ]


def _groups(*groups: ledger.SpendGroup | str | int) -> list[ledger.SpendGroup]:
    """By labels, by dimensions, or as they are."""
    return [
        ledger.SpendGroup(label=group)
        if isinstance(group, str)
        else ledger.SpendGroup(dimension=cast(Any, group))
        if isinstance(group, int)
        else group
        for group in groups
    ]


ALICE: Final = AccountKey("default", "alice", "credits")
_SEQS: Final[tuple[tuple[Any, ...], ...]] = (
    (),
    (0,),
    (-1,),
    (2**63,),
    (1.5,),
    ("7",),
    (None,),
    (True,),
    (7, 7),
    ([7],),
)
_TIMES_AND_IDS: Final[tuple[tuple[Any, ...], ...]] = (
    (7,),
    ("2026-01-01T00:00:00+00:00",),
    ("2026-01-01T00:00:00+00:00", 7),
    ("2026-01-01T00:00:00+00:00", "a\0b"),
    ("yesterday", "job"),
    (True, "job"),
)

ANY: Final[list[Bad]] = []
"""No value of the field is wrong."""

ENUM: Final = [Bad("unknown", 99), Bad("negative", -1)]
COUNT: Final = [Bad("negative", -1), Bad("least_of_int64", INT64_MIN)]
PAGE_SIZE: Final = [Bad("negative", -1), Bad("least_of_int32", -(2**31))]

LABELS: Final = [
    Bad("too_many", {f"key-{number}": "" for number in range(17)}),
    Bad("empty_key", {"": "value"}),
    Bad("key_too_long", {"k" * 65: ""}, "labels.key"),
    Bad("key_too_long_in_bytes", {"é" * 33: ""}, "labels.key"),
    Bad("key_with_nul", {"a\0b": ""}, "labels.key"),
    Bad("value_too_long", {"key": "v" * 257}, "labels['key']"),
    Bad("value_with_nul", {"key": "a\0b"}, "labels['key']"),
]
METADATA: Final = [
    Bad("too_large", _struct(note="x" * 4096)),
    Bad("not_a_number", _struct(number=float("nan"))),
    Bad("too_deep", _struct(deep=[[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]])),
    Bad("infinite", _struct(deep=[{"number": float("-inf")}])),
    Bad("nul", _struct(text="a\0b")),
    Bad("nul_in_a_key", _struct(**{"a\0b": 1})),
    Bad("nul_in_the_depth", _struct(deep=[{"text": "\\\0"}])),
]
CURRENCY: Final = [
    Bad(what, code)
    for what, code in {
        "empty": "",
        "small": "eur",
        "too_long": "EURO",
        "too_short": "EU",
        "digit": "EU1",
        "not_ascii": "ÉUR",
        "nul": "E\0R",
    }.items()
]
PRIORITY: Final = [Bad("negative", -1), Bad("too_large", 1001), Bad("least", -(2**31))]

WRONG: Final[dict[str, Sequence[Bad]]] = {
    "account": _name(128),
    "SpendReportRequest.account": _name(128, required=False),
    "unit": _name(32, required=False),
    "RevokeGrantRequest.account": [Bad("empty", "", "unit"), *_name(128, required=False)],
    "ReinstateGrantRequest.account": [Bad("empty", "", "unit"), *_name(128, required=False)],
    "cumulative_fraction_ppm": [*COUNT, Bad("zero", 0), Bad("too_large", 1_000_001)],
    "cumulative_amount_micros": _amount(1),
    "allow_tombstone": ANY,
    "revocation_id": _name(128, required=False),
    "expected_source.provider": _note(128),
    "expected_source.store_id": _note(128),
    "expected_source.test_mode": ANY,
    "expected_source.currency_code": [row for row in CURRENCY if row.what != "empty"],
    "allowance.amount_micros": _amount(1),
    "allowance.period": [*ENUM, Bad("off_with_an_amount", 1, "allowance.amount_micros")],
    "allowance.anchor_time": [
        *_time(),
        Bad("after_2999", Timestamp(seconds=int(datetime(3000, 1, 1, tzinfo=UTC).timestamp()))),
    ],
    "allowance.priority": PRIORITY,
    "signup_grant.amount_micros": _amount(0),
    "signup_grant.lifetime": _duration(3660 * 86_400),
    "effective_time": _time(),
    "reservation_id": _name(128),
    "idempotency_key": _name(255),
    "amount_micros": _amount(1),
    "SettleRequest.amount_micros": _amount(0),
    "RefundChargeRequest.amount_micros": _amount(0),
    "entry_seq": [*COUNT, Bad("zero", 0)],
    "capture.reservation_id": _name(128),
    "capture.capture_id": _name(128, required=False),
    "expired_lot_grace": _duration(366 * 86_400),
    "ttl": _duration(),
    "min_amount_micros": [*_amount(0), Bad("over_the_amount", 6)],
    "min_available_micros": _amount(0),
    "on_expiry": ENUM,
    "labels": LABELS,
    "metadata": METADATA,
    "keep_open": [Bad("without_an_id", True, "capture_id")],
    "capture_id": [*_name(128, required=False), Bad("of_a_final_settle", "id")],
    "overage": ENUM,
    "DebitRequest.overage": [*ENUM, Bad("of_a_settle", types.OVERAGE_CAP)],
    "DebitOnceRequest.overage": [*ENUM, Bad("of_a_settle", types.OVERAGE_CAP)],
    "usage.provider": _note(128),
    "usage.model": _note(128),
    "usage.stop_reason": _note(64),
    "usage.input_tokens": COUNT,
    "usage.output_tokens": COUNT,
    "usage.cache_read_tokens": COUNT,
    "usage.cache_write_tokens": COUNT,
    "usage.provider_cost_micros": COUNT,
    "add_amount_micros": [*_amount(0), Bad("nothing_to_do", 0, "ttl")],
    "extend_id": _name(128),
    "request_id": _name(128, required=False),
    "legacy_keys": [
        Bad("too_many", [f"key-{number}" for number in range(9)]),
        *(Bad(b.what, ["good", b.value], "legacy_keys[1]") for b in _name(255)),
    ],
    "reason": _note(256),
    "category": ENUM,
    "priority": PRIORITY,
    "expire_time": [
        Bad("past", Timestamp(seconds=1_700_000_000)),
        Bad("epoch", Timestamp()),
        *_time(),
    ],
    "start_time": _time(),
    "end_time": [*_time(), Bad("before_the_start", Timestamp(seconds=1))],
    "cash.currency_code": CURRENCY,
    "cash.minor_units": ANY,
    "source.provider": _note(128),
    "source.order_id": _note(255),
    "source.store_id": _note(128),
    "source.variant_id": _note(128),
    "source.test_mode": ANY,
    "min_seq": COUNT,
    "include_lots": ANY,
    "states": [Bad("unknown", [1, 99], "states[1]"), Bad("unspecified", [0], "states[0]")],
    "kinds": [Bad("unknown", [1, 99], "kinds[1]"), Bad("unspecified", [0], "kinds[0]")],
    "oldest_first": ANY,
    "include_spent": ANY,
    "page_size": PAGE_SIZE,
    "ListReservationsRequest.page_token": _page_tokens(
        ("reservations", ALICE, []), *_TIMES_AND_IDS
    ),
    "ListEntriesRequest.page_token": _page_tokens(
        ("entries", ALICE, [], False, [], START_TIME, None), *_SEQS
    ),
    "ListLotsRequest.page_token": _page_tokens(("lots", ALICE, False), *_SEQS),
    "ListAccountsRequest.page_token": _page_tokens(
        ("accounts", "default", ""), (7,), ("a",), ("a", 7), ("a\0b", "credits"), (None, "credits")
    ),
    "ListCredentialsRequest.page_token": _page_tokens(("credentials", "default"), *_TIMES_AND_IDS),
    "account_prefix": _name(128, required=False),
    "name": _name(128),
    "scopes": [
        Bad("unknown", [1, 99], "scopes[2]"),
        Bad("unspecified", [0], "scopes[1]"),
    ],
    "operations_per_second_max": [
        Bad("negative", -1),
        Bad("too_large", 1_000_001),
        Bad("largest_of_int32", 2**31 - 1),
    ],
    "credential_id": _name(128),
    "credit_limit_micros": _amount(0),
    "holds_use_credit": ANY,
    "frozen": ANY,
    "seq": [*COUNT, Bad("zero", 0)],
    "debit_key": _name(255),
    "grant_key": _name(255),
    "refund_key": _name(255),
    "row_limit": [*PAGE_SIZE, Bad("too_large", 1001)],
    "group_by": [
        Bad("too_many", _groups("a", "b", "c", "d")),
        Bad("of_nothing", _groups("a", ledger.SpendGroup()), "group_by[1]"),
        Bad("unspecified", _groups(0), "group_by[0].dimension"),
        Bad("unknown", _groups(1, 99), "group_by[1].dimension"),
        Bad("label_twice", _groups("a", "b", "a"), "group_by[2]"),
        Bad("dimension_twice", _groups(1, 1), "group_by[1]"),
        *(Bad(f"label_{b.what}", _groups(b.value), "group_by[0].label") for b in _note(64)),
        Bad("label_empty", _groups("a", ""), "group_by[1].label"),
    ],
}
"""By the field's path, or by message and path where a message has rules of its own."""

METHOD_OF: Final = {
    method.input_type.name: method
    for name, method in METHODS.items()
    if name not in ("Batch", "Stream")
}
"""But for Batch and Stream, whose fields are those of other requests: see their own tests."""


def _paths(message: Descriptor, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field that a caller can set, those of our own messages within messages too."""
    for field in message.fields:
        inner = field.message_type
        ours = inner is not None and inner.file.package == message.file.package
        if inner is not None and ours and not field.is_repeated:
            yield from _paths(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field


def _key(message: str, path: str) -> str:
    own = f"{message}.{path}"
    return own if own in WRONG else path


def _put(request: Any, path: str, value: Any) -> None:
    *outer, name = path.split(".")
    for part in outer:
        request = getattr(request, part)
    if isinstance(value, Message):
        getattr(request, name).CopyFrom(value)
    elif isinstance(value, dict):
        getattr(request, name).update(value)
    elif isinstance(value, list):
        getattr(request, name).extend(value)
    else:
        setattr(request, name, value)


def _valid(message: str) -> Any:
    copy = GetMessageClass(METHOD_OF[message].input_type)()
    copy.CopyFrom(VALID[message])
    return copy


FIELDS: Final = [
    (message, path, field)
    for message, method in METHOD_OF.items()
    for path, field in _paths(method.input_type)
]
ROWS: Final = [
    pytest.param(message, path, bad, id=f"{message}-{path}-{bad.what}")
    for message, path, _ in FIELDS
    for bad in WRONG.get(_key(message, path), ())
]
TEXTS: Final = [
    pytest.param(message, path, id=f"{message}-{path}")
    for message, path, field in FIELDS
    if field.type == FieldDescriptor.TYPE_STRING
    or (field.message_type is not None and field.name in ("labels", "metadata"))
]


def test_the_table_has_a_row_for_every_field() -> None:
    """A field that is added to a request has to be thought about here."""
    assert set(VALID) == set(METHOD_OF)
    keys = {_key(message, path) for message, path, _ in FIELDS}
    assert keys - set(WRONG) == set(), "fields without a row"
    assert set(WRONG) - keys == set(), "rows without a field"


class Served(NamedTuple):
    channel: grpc.aio.Channel
    database: psycopg.Connection[Any]

    def rows(self) -> int:
        """In all tables together."""
        counts = " + ".join(
            f"(SELECT count(*) FROM {table.name})" for table in tables.metadata.sorted_tables
        )
        row = self.database.execute(f"SELECT {counts}".encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_served(database_server: DatabaseServer, template: str) -> AsyncIterator[Served]:
    """One server and one database for all rows, as none of them may leave anything."""
    url = database_server.create_database(template)
    with psycopg.connect(url, autocommit=True) as database:
        async with service(url) as address, grpc.aio.insecure_channel(address) as channel:
            yield Served(channel, database)
    database_server.drop_database(name_of(url))


@pytest_asyncio.fixture(loop_scope="module")
async def served(module_served: Served) -> AsyncIterator[Served]:
    before = module_served.rows()
    yield module_served
    assert module_served.rows() == before, "a trace in the database"
    alive = await call(module_served.channel, METHODS["Balance"], VALID["BalanceRequest"])
    assert isinstance(alive, bytes), "the server does not answer any more"


@IN_ONE_LOOP
@pytest.mark.parametrize(("message", "path", "bad"), ROWS)
async def test_a_wrong_value_is_refused_by_name(
    served: Served, message: str, path: str, bad: Bad
) -> None:
    request = _valid(message)
    _put(request, path, bad.value)
    answer = await refusal(served.channel, METHOD_OF[message], request)
    _check_refused(answer, too_large=bad.too_large)
    assert answer.fields == {bad.named or path}
    assert set(answer.info.metadata["fields"].split(",")) == answer.fields


@IN_ONE_LOOP
@pytest.mark.parametrize("message", METHOD_OF)
async def test_all_wrong_fields_are_named_at_once(served: Served, message: str) -> None:
    request, named = _valid(message), dict[str, str]()
    fields = METHOD_OF[message].input_type.fields_by_name
    for path, _ in _paths(METHOD_OF[message].input_type):
        bads = WRONG[_key(message, path)]
        # The clock of the database is asked for what is right in itself.
        if bads and path != "keep_open":
            bad = bads[2 if path == "expire_time" else 0]
            _put(request, path, bad.value)
            # Of a oneof only what was put last is there.
            oneof = fields[path.partition(".")[0]].containing_oneof
            others = {field.name for field in oneof.fields} if oneof else set()
            others.discard(path.partition(".")[0])
            named = {p: name for p, name in named.items() if p.partition(".")[0] not in others}
            named[path] = bad.named or path
    answer = await refusal(served.channel, METHOD_OF[message], request)
    _check_refused(answer)
    assert answer.fields == set(named.values())
    assert answer.info.metadata["fields"].split(",") == [field for field, _ in answer.violations]


@IN_ONE_LOOP
@pytest.mark.parametrize(("message", "path"), TEXTS)
async def test_text_that_is_not_utf_8_is_refused(served: Served, message: str, path: str) -> None:
    request = _valid(message)
    marked = "~mark~"
    match path.rpartition(".")[2]:
        case "labels":
            value: Any = {marked: ""} if message.startswith("Grant") else {"key": marked}
        case "metadata":
            value = _struct(key=marked) if message.startswith("Grant") else _struct(**{marked: 1})
        case "legacy_keys":
            value = [marked]
        case _:
            value = marked
    _put(request, path, value)
    for wrong in (b"~\xff\xfe\xfd\xfc~", b"~\xed\xa0\x80\xed~", b"~\xc0\x80\xc0\x80~"):
        data = request.SerializeToString().replace(marked.encode(), wrong)
        assert wrong in data
        answer = await refusal(served.channel, METHOD_OF[message], data)
        _check_refused(answer)
        assert answer.fields == {"request"}


@IN_ONE_LOOP
@pytest.mark.parametrize("message", METHOD_OF)
async def test_a_message_that_is_too_large_is_refused(served: Served, message: str) -> None:
    for size in (REQUEST_BYTES_MAX + 1, 5 * 1024 * 1024):
        request = _valid(message)
        texts = (f for f in request.DESCRIPTOR.fields if f.type == FieldDescriptor.TYPE_STRING)
        setattr(request, next(texts).name, "x" * size)
        answer = await refusal(served.channel, METHOD_OF[message], request)
        _check_refused(answer)
        assert answer.fields == {"request"}


@IN_ONE_LOOP
@pytest.mark.parametrize(
    ("message", "path", "value"),
    [
        ("GrantOnceRequest", "legacy_keys", ["\n"] * 20_000),
        ("GrantOnceRequest", "labels", {f"\0{number:05}é": "\0" for number in range(3_000)}),
        ("GrantOnceRequest", "labels", {"é" * 120 + f"{number}": "\0" for number in range(200)}),
        ("ListEntriesRequest", "kinds", [99] * 30_000),
        ("ListReservationsRequest", "states", [-1] * 5_000),
    ],
    ids=["legacy_keys", "labels", "long_labels", "kinds", "states"],
)
async def test_more_faults_than_an_answer_can_hold_are_told_in_part(
    served: Served, message: str, path: str, value: Any
) -> None:
    """The details travel in headers, and those are limited: gRPC itself drops larger answers."""
    request = _valid(message)
    _put(request, path, value)
    answer = await refusal(served.channel, METHOD_OF[message], request)
    _check_refused(answer)
    assert all(field.startswith(path) for field in answer.fields if field != "request")


@pytest.mark.slow
async def test_mutated_messages_do_no_harm(address: str, database_url: str) -> None:
    """Bytes changed at random are refused, or mean something: never a bug, never a broken book."""
    chance = random.Random(SEED)
    print(f"METERHOLD_TEST_SEED={SEED}")  # noqa: T201 - to run a failure again
    refused = 0
    async with grpc.aio.insecure_channel(address) as channel:
        for _ in range(200):
            message = chance.choice(list(METHOD_OF))
            data = _mutated(VALID[message].SerializeToString(), chance)
            answer = await call(channel, METHOD_OF[message], data)
            if isinstance(answer, Told):
                refused += 1
                assert answer.code not in ("UNKNOWN", "INTERNAL"), data
                assert answer.info.domain == "meterhold", data
                assert answer.applied == "NO", data
        alive = await call(channel, METHODS["Balance"], VALID["BalanceRequest"])
        assert isinstance(alive, bytes)
    assert refused > 50
    assert verify(database_url).violations == ()


def _mutated(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.1:
        return chance.randbytes(chance.randrange(200))
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(4):
            case 0:
                changed[place : place + 1] = chance.randbytes(1)
            case 1:
                changed[place:place] = chance.randbytes(chance.randint(1, 8))
            case 2:
                del changed[place : place + chance.randint(1, 4)]
            case _:
                changed += changed[place:]
    return bytes(changed)


def _check_refused(answer: Told, *, too_large: bool = False) -> None:
    if too_large:
        assert (answer.code, answer.reason) == ("OUT_OF_RANGE", "AMOUNT_OUT_OF_RANGE"), answer
    else:
        assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD"), answer
    assert answer.info.domain == "meterhold"
    assert answer.applied == "NO"
    assert all(description for _, description in answer.violations)
