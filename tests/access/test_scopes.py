"""Each method needs one scope, and nothing else opens it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest
import pytest_asyncio

from meterhold.v1 import metering_service_pb2 as metering
from meterhold_server.core.credentials import ALL_SCOPES, ApiKey, Scope
from meterhold_server.rpc import scopes
from meterhold_server.rpc.scopes import SCOPES, check_scopes, scope_of_operation
from rpc.answers import METHODS, SERVICES, Told, call, refusal
from rpc.test_bad_input import VALID
from support.database import DatabaseServer, name_of
from support.keys import bearer, make_key
from support.service import service

IN_ONE_LOOP = pytest.mark.asyncio(loop_scope="module")

SCOPED = {
    name: scope
    for name, method in METHODS.items()
    if (scope := SCOPES[method.full_name]) is not None
}


class Door:
    """A server that asks for keys, and a key that lacks, or has alone, each scope."""

    def __init__(self, channel: grpc.aio.Channel, database_url: str) -> None:
        self.channel = channel
        self.only = {scope: make_key(database_url, "acme", scope) for scope in Scope}
        self.all_but = {
            scope: make_key(database_url, "acme", *(ALL_SCOPES - {scope})) for scope in Scope
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(database_server: DatabaseServer, template: str) -> AsyncIterator[Door]:
    url = database_server.create_database(template)
    async with (
        service(url, auth="keys") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        yield Door(channel, url)
    database_server.drop_database(name_of(url))


def test_a_method_without_a_row_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(scopes.SCOPES, "meterhold.v1.LedgerService.ListLots")
    with pytest.raises(LookupError, match=r"no scope is set for meterhold\.v1\.\S+\.ListLots: add"):
        check_scopes(SERVICES)


def test_a_row_without_a_method_is_refused_too() -> None:
    with pytest.raises(LookupError, match=r"methods that are not there: meterhold\.v1\.Admin"):
        check_scopes(SERVICES[:2])


def test_every_operation_of_a_batch_has_the_scope_of_its_call() -> None:
    for field in metering.BatchOperation.DESCRIPTOR.oneofs_by_name["operation"].fields:
        assert field.message_type is not None
        its_call = str(field.message_type.name).removesuffix("Request")
        assert scope_of_operation(str(field.name)) == SCOPED[its_call]


@IN_ONE_LOOP
@pytest.mark.parametrize("method", METHODS)
async def test_a_stranger_is_told_nothing(door: Door, method: str) -> None:
    told = await refusal(door.channel, METHODS[method], b"\xff not even a message")
    assert (told.code, told.reason, told.applied) == (
        "UNAUTHENTICATED",
        "CREDENTIAL_INVALID",
        "NO",
    )


@IN_ONE_LOOP
@pytest.mark.parametrize(("method", "scope"), SCOPED.items())
async def test_all_other_scopes_do_not_open_it(door: Door, method: str, scope: Scope) -> None:
    """Not even the fields are looked at."""
    key = door.all_but[scope]
    told = await refusal(door.channel, METHODS[method], b"\xff", bearer(key))
    assert (told.code, told.reason) == ("PERMISSION_DENIED", "SCOPE_MISSING")
    assert dict(told.info.metadata) == {
        "applied": "NO",
        "scope": scope.value,
        "credentialId": key.credential_id,
    }


@IN_ONE_LOOP
@pytest.mark.parametrize(("method", "scope"), SCOPED.items())
async def test_its_own_scope_alone_opens_it(door: Door, method: str, scope: Scope) -> None:
    request = VALID[str(METHODS[method].input_type.name)]
    answer = await call(door.channel, METHODS[method], request, bearer(door.only[scope]))
    assert not isinstance(answer, Told) or answer.reason not in (
        "SCOPE_MISSING",
        "CREDENTIAL_INVALID",
    )


GIFT = metering.BatchOperation(
    grant_once=metering.GrantOnceRequest(
        account="bob", unit="tokens", idempotency_key="gift", amount_micros=9
    )
)
DEBIT = metering.BatchOperation(
    debit_once=metering.DebitOnceRequest(
        account="bob", unit="tokens", idempotency_key="job", amount_micros=5
    )
)


@IN_ONE_LOOP
async def test_a_batch_refuses_the_operations_that_lack_their_scope(door: Door) -> None:
    """The others are done: each stands alone."""
    granted = await _batch(door, door.only[Scope.GRANT], [GIFT, DEBIT])
    assert [_reason(result) for result in granted] == ["", "PERMISSION_DENIED"]
    metered = await _batch(door, door.only[Scope.METER], [GIFT, DEBIT])
    assert [_reason(result) for result in metered] == ["PERMISSION_DENIED", ""]
    assert metered[1].debit_once.balance.available_micros == 4


@IN_ONE_LOOP
async def test_a_chain_is_refused_whole(door: Door) -> None:
    chain = [
        metering.BatchOperation(
            linked=True,
            debit_once=metering.DebitOnceRequest(
                account="bob", unit="tokens", idempotency_key="move", amount_micros=1
            ),
        ),
        metering.BatchOperation(
            grant_once=metering.GrantOnceRequest(
                account="carol", unit="tokens", idempotency_key="moved", amount_micros=1
            )
        ),
    ]
    results = await _batch(door, door.only[Scope.METER], chain)
    assert [_reason(result) for result in results] == ["FAILED_PRECONDITION", "PERMISSION_DENIED"]


async def _batch(
    door: Door, key: ApiKey, operations: list[metering.BatchOperation]
) -> list[metering.BatchResult]:
    request = metering.BatchRequest(operations=operations)
    answer = await call(door.channel, METHODS["Batch"], request, bearer(key))
    assert isinstance(answer, bytes)
    return list(metering.BatchResponse.FromString(answer).results)


def _reason(result: metering.BatchResult) -> str:
    if not result.HasField("error"):
        return ""
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    return codes[result.error.code]
