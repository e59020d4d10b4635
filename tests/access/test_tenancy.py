"""Another namespace's ids answer exactly as ids that do not exist, and nothing of it changes.

Every request is sent twice, from namespaces of the same name: to a server that has a second tenant,
and to one that has none. The cases are made of the descriptors, so that a new call or field has to
be given its row.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any, Final, NamedTuple

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import meterhold
from meterhold.v1 import ledger_service_pb2 as ledger
from meterhold.v1 import metering_service_pb2 as metering
from meterhold.v1.metering_service_pb2_grpc import MeteringServiceStub
from meterhold_server.storage import tables
from meterhold_server.storage.connection import connect
from meterhold_server.storage.exchange import Connection
from rpc.answers import METHODS, Told, call
from rpc.test_bad_input import VALID
from support.contents import rows
from support.database import DatabaseServer, name_of
from support.keys import add_key, bearer, make_key
from support.service import service

IN_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")

OTHER: Final = "other"
"""The second tenant. It has an account of a name that everybody has, and one that only it has."""

IDS: Final[dict[str, tuple[str, ...]]] = {
    "account": ("alice", "their-account"),
    "account_prefix": ("al", "their-"),
    "unit": ("credits", "their-unit"),
    "reservation_id": ("job", "their-open", "their-settled", "their-released"),
    "capture_id": ("their-capture",),
    "extend_id": ("their-extension",),
    "request_id": ("their-request",),
    "idempotency_key": ("key", "their-gift", "their-debit", "their-refund", "their-pending"),
    "legacy_keys": ("their-gift", "their-tombstone"),
    "grant_key": ("their-gift", "their-pending", "their-tombstone"),
    "debit_key": ("their-debit",),
    "refund_key": ("their-refund",),
    "revocation_id": ("their-dispute",),
    "credential_id": ("their-credential",),
    "page_token": ("their-token",),
}
"""By the name of the field that names something: what the second tenant has of it."""

NOT_IDS: Final = {
    *("reason", "provider", "order_id", "store_id", "variant_id", "currency_code", "label"),
    *("model", "stop_reason", "variant", "name"),
}
"""Fields that say something, and name nothing that could be found."""


OF_OPERATIONS: Final = ("Batch", "Stream")
"""Methods whose messages have nothing but operations of other methods."""


class Case(NamedTuple):
    """A request with an id of the second tenant in a field; all that it names may be its."""

    method: str
    path: tuple[str, ...]
    value: str
    all_theirs: bool
    funded: bool

    @property
    def name(self) -> str:
        whose = "all theirs" if self.all_theirs else "alone"
        funded = "funded" if self.funded else "empty"
        return f"{self.method}-{'.'.join(self.path)}-{self.value}-{whose}-{funded}"


def id_fields(of: Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all fields that name something. Fails on a text that nobody has looked at."""
    for field in of.fields:
        here = (*path, str(field.name))
        if field.type == FieldDescriptor.TYPE_STRING:
            if field.name in IDS:
                yield here
            else:
                assert field.name in NOT_IDS, f"{here}: is it an id? Add it to IDS or NOT_IDS"
        elif field.message_type is not None and _is_ours(field.message_type):
            yield from id_fields(field.message_type, here)


def _is_ours(message: Descriptor) -> bool:
    return message.file.package == "meterhold.v1" and not message.GetOptions().map_entry


def cases() -> list[Case]:
    return [
        Case(method, path, value, all_theirs, funded)
        for method in METHODS
        if method not in OF_OPERATIONS
        for path in id_fields(METHODS[method].input_type)
        for value in IDS[path[-1]]
        for all_theirs in (False, True)
        for funded in (False, True)
    ]


CASES: Final = cases()


class Server(NamedTuple):
    channel: grpc.aio.Channel
    database: Connection


class Servers(NamedTuple):
    shared: Server
    alone: Server
    found: dict[str, str]
    """What stands in for ids that are drawn by lot."""
    theirs: dict[str, list[tuple[Any, ...]]]
    numbers: Iterator[int]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(database_server: DatabaseServer, template: str) -> AsyncIterator[Servers]:
    urls = [database_server.create_database(template) for _ in range(2)]
    async with (
        service(urls[0], auth="keys", sweep=False) as shared,
        service(urls[1], auth="keys", sweep=False) as alone,
        grpc.aio.insecure_channel(shared) as to_shared,
        grpc.aio.insecure_channel(alone) as to_alone,
    ):
        with connect(urls[0]) as first, connect(urls[1]) as second:
            key = make_key(urls[0], OTHER)
            async with meterhold.AsyncClient(shared, api_key=key.text) as tenant:
                await _move_in(tenant)
            yield Servers(
                Server(to_shared, first),
                Server(to_alone, second),
                {
                    "their-token": await _their_token(to_shared, bearer(key)),
                    "their-credential": key.credential_id,
                },
                _theirs(first),
                count(),
            )
    for url in urls:
        database_server.drop_database(name_of(url))


async def _move_in(tenant: meterhold.AsyncClient) -> None:
    """The second tenant has one of everything, in both of its accounts."""
    for account in ("alice", "their-account"):
        key = "" if account == "alice" else "-2"
        await tenant.grant_once(account, 10_000, idempotency_key=f"their-gift{key}")
        await tenant.grant_once(account, 9, idempotency_key="key" + key)
        await tenant.reserve(account, 100, reservation_id="their-open")
        await tenant.extend(account, reservation_id="their-open", extend_id="their-extension",
                            add_amount_micros=1)  # fmt: skip
        await tenant.reserve(account, 100, reservation_id="job")
        await tenant.reserve(account, 100, reservation_id="their-settled")
        await tenant.settle(account, 10, reservation_id="their-settled", keep_open=True,
                            capture_id="their-capture")  # fmt: skip
        await tenant.settle(account, 50, reservation_id="their-settled")
        await tenant.reserve(account, 100, reservation_id="their-released")
        await tenant.release(account, reservation_id="their-released")
        await tenant.debit(account, 5, request_id="their-request")
        debited = await tenant.debit_once(account, 5, idempotency_key=f"their-debit{key}")
        await tenant.refund_charge(
            account, 1, entry_seq=debited.entry.seq, idempotency_key=f"their-refund{key}"
        )
    await tenant.grant_once("alice", 9, idempotency_key="their-units", unit="their-unit")
    await tenant.revoke_grant("key", account="alice", amount_micros=1,
                              revocation_id="their-dispute")  # fmt: skip
    await tenant.revoke_grant("their-tombstone", amount_micros=1, allow_tombstone=True)


async def _their_token(channel: grpc.aio.Channel, metadata: Any) -> str:
    request = ledger.ListEntriesRequest(account="alice", page_size=1)
    answer = await call(channel, METHODS["ListEntries"], request, metadata)
    assert isinstance(answer, bytes)
    return ledger.ListEntriesResponse.FromString(answer).next_page_token


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 500
    assert {case.method for case in CASES} == METHODS.keys() - {*OF_OPERATIONS, "CreateApiKey"}


@pytest.mark.slow
@IN_ONE_LOOP
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_what_another_has_is_as_what_nobody_has(servers: Servers, case: Case) -> None:
    namespace = f"tenant-{next(servers.numbers)}"
    request = _request(case, servers.found)
    shared = await _told(servers.shared, namespace, case, request)
    alone = await _told(servers.alone, namespace, case, request)
    assert shared == alone
    assert _theirs(servers.shared.database) == servers.theirs


@IN_ONE_LOOP
async def test_in_a_batch_it_is_the_same(servers: Servers) -> None:
    """All cases that a Batch can have, in one message."""
    fields = {
        str(field.message_type.name): str(field.name)
        for field in metering.BatchOperation.DESCRIPTOR.fields
        if field.message_type is not None
    }
    operations = []
    for case in CASES:
        if (name := str(METHODS[case.method].input_type.name)) in fields and not case.funded:
            wrapped: dict[str, Any] = {fields[name]: _request(case, servers.found)}
            operations.append(metering.BatchOperation(**wrapped))
    assert len(operations) > 100
    case = Case("Batch", (), "", all_theirs=False, funded=True)
    request = metering.BatchRequest(operations=operations)
    namespace = f"tenant-{next(servers.numbers)}"
    shared = await _told(servers.shared, namespace, case, request)
    assert shared == await _told(servers.alone, namespace, case, request)
    in_stream = [await _streamed(server, request) for server in (servers.shared, servers.alone)]
    assert in_stream[0] == in_stream[1]
    assert _theirs(servers.shared.database) == servers.theirs


async def _streamed(server: Server, request: metering.BatchRequest) -> list[str]:
    """What each operation comes to in a stream of a new tenant."""
    metadata = bearer(add_key(server.database, "tenant-of-a-stream"))
    stub: Any = MeteringServiceStub(server.channel)
    stream = stub.Stream(metadata=metadata)
    await stream.write(metering.StreamRequest(id=1, batch=request))
    answer = await stream.read()
    await stream.done_writing()
    assert len(answer.batch.results) == len(request.operations)
    return [
        f"{result.WhichOneof('result')} {result.error.message}" for result in answer.batch.results
    ]


def _request(case: Case, found: dict[str, str]) -> Message:
    """A valid request but for the ids of the second tenant."""
    request = type(valid := VALID[str(METHODS[case.method].input_type.name)])()
    request.CopyFrom(valid)
    if case.all_theirs:
        for path in id_fields(METHODS[case.method].input_type):
            if path[-1] in ("account", "reservation_id", "grant_key"):
                _set(request, path, IDS[path[-1]][1])
    _set(request, case.path, found.get(case.value, case.value))
    return request


def _set(request: Any, path: tuple[str, ...], value: str) -> None:
    *outer, name = path
    for step in outer:
        request = getattr(request, step)
    if name == "legacy_keys":
        request.legacy_keys.append(value)
    else:
        setattr(request, name, value)


def _theirs(database: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that the second tenant has. Of its key the last use is written down now and then."""
    found = rows(database, OTHER)
    used = [column.name for column in tables.credential.c].index("last_use_time")
    found["credential"] = [row[:used] + row[used + 1 :] for row in found["credential"]]
    return found


async def _told(server: Server, namespace: str, case: Case, request: Message) -> str:
    """All that a tenant of that name is answered, but for what is different each time."""
    metadata = bearer(add_key(server.database, namespace))
    if case.funded:
        gift = metering.GrantOnceRequest(
            account="alice", idempotency_key="own-gift", amount_micros=1000
        )
        reserve = metering.ReserveRequest(account="alice", reservation_id="job", amount_micros=9)
        for method, own in (("GrantOnce", gift), ("Reserve", reserve)):
            assert isinstance(await call(server.channel, METHODS[method], own, metadata), bytes)
    answer = await call(server.channel, METHODS[case.method], request, metadata)
    if isinstance(answer, Told):
        return _without_times(repr((answer.code, answer.message, answer.info, answer.violations)))
    return _without_times(str(GetMessageClass(METHODS[case.method].output_type).FromString(answer)))


def _without_times(text: str) -> str:
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?\+00:00", "<time>", text)
    return re.sub(r"(_time|anchor_time) \{[^}]*\}", "<time>", text)
