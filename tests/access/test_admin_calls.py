"""Keys over the API: made, listed and revoked by those who may."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

import meterhold
from meterhold.testing import InMemory
from meterhold_server.core.credentials import Scope, parse_api_key
from support.keys import make_key
from support.service import service


@pytest.fixture
async def address(database_url: str) -> AsyncIterator[str]:
    async with service(database_url, auth="keys") as served:
        yield served


@pytest.fixture
async def admin(database_url: str, address: str) -> AsyncIterator[meterhold.AsyncClient]:
    key = make_key(database_url, "acme", Scope.ADMIN, Scope.READ)
    async with meterhold.AsyncClient(address, api_key=key.text) as client:
        yield client


async def test_a_key_is_made_used_listed_and_revoked(
    admin: meterhold.AsyncClient, address: str
) -> None:
    made = await admin.create_api_key(
        "gateway", scopes=[meterhold.Scope.READ], operations_per_second_max=50
    )
    key = parse_api_key(made.api_key)
    assert key is not None
    assert key.credential_id == made.credential.credential_id
    assert key.secret not in repr(made)
    assert (made.credential.name, made.credential.scopes) == ("gateway", (meterhold.Scope.READ,))
    assert made.credential.operations_per_second_max == 50
    async with meterhold.AsyncClient(address, api_key=made.api_key) as client:
        await client.balance("alice")
        with pytest.raises(meterhold.ScopeMissing):
            await client.debit("alice", 5)
    own, listed = [each async for each in admin.list_credentials(page_size=1)]
    assert listed.credential_id == key.credential_id
    assert own.scopes == (meterhold.Scope.ADMIN, meterhold.Scope.READ)
    revoked = await admin.revoke_credential(key.credential_id)
    assert revoked is not None
    assert revoked.revoke_time is not None
    assert await admin.revoke_credential(key.credential_id) == revoked


async def test_nobody_gives_a_scope_that_they_do_not_have(admin: meterhold.AsyncClient) -> None:
    scopes = [meterhold.Scope.READ, meterhold.Scope.GRANT]
    with pytest.raises(meterhold.ScopeMissing) as raised:
        await admin.create_api_key("more", scopes=scopes)
    assert raised.value.scope == "grant"
    assert len([each async for each in admin.list_credentials()]) == 1


async def test_other_namespaces_neither_see_nor_revoke_it(
    admin: meterhold.AsyncClient, database_url: str, address: str
) -> None:
    made = await admin.create_api_key("gateway", scopes=[meterhold.Scope.READ])
    other = make_key(database_url, "globex")
    async with meterhold.AsyncClient(address, api_key=other.text) as stranger:
        assert await stranger.revoke_credential(made.credential.credential_id) is None
        seen = [each.credential_id async for each in stranger.list_credentials()]
    assert seen == [other.credential_id]
    async with meterhold.AsyncClient(address, api_key=made.api_key) as client:
        await client.balance("alice")
    listed = [each async for each in admin.list_credentials()]
    assert [each.revoke_time for each in listed] == [None, None]


@pytest.mark.parametrize(
    ("name", "scopes", "per_second", "field"),
    [
        ("", [meterhold.Scope.READ], 0, "name"),
        ("x" * 129, [meterhold.Scope.READ], 0, "name"),
        ("a\nb", [meterhold.Scope.READ], 0, "name"),
        ("x", [], 0, "scopes"),
        ("x", [meterhold.Scope.READ], -1, "operations_per_second_max"),
        ("x", [meterhold.Scope.READ], 1_000_001, "operations_per_second_max"),
    ],
)
async def test_wrong_fields_are_named(
    admin: meterhold.AsyncClient,
    name: str,
    scopes: list[meterhold.Scope],
    per_second: int,
    field: str,
) -> None:
    with pytest.raises(meterhold.InvalidRequest) as raised:
        await admin.create_api_key(name, scopes=scopes, operations_per_second_max=per_second)
    assert [named for named, _ in raised.value.field_violations] == [field]


def test_keys_can_be_made_where_no_database_is() -> None:
    with InMemory().client() as client:
        made = client.create_api_key("gateway", scopes=[meterhold.Scope.METER])
        (listed,) = client.list_credentials()
        assert listed == made.credential
        revoked = client.revoke_credential(listed.credential_id)
        assert revoked is not None
        assert revoked.revoke_time is not None
        assert client.revoke_credential("none") is None
