"""Keys as their callers meet them: made, used, rotated, revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

import pytest

import meterhold
from meterhold_server.batching.failures import Failure
from meterhold_server.batching.reader import Reader
from meterhold_server.core.credentials import ApiKey, Scope, api_key_of, credential_id_of
from meterhold_server.core.model import Rules
from meterhold_server.rpc.access import Guest
from meterhold_server.rpc.authentication import CredentialAccess
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.service import Context, Service
from meterhold_server.storage.connection import connect_credentials
from support.database import DatabaseServer, name_of
from support.engines import Observer
from support.keys import bearer, make_certificate, make_key, revoke
from support.service import service

NOBODY: Any = None
STRANGER = api_key_of(credential_id_of(b"nobody has"), b"this secret, of 32 bytes in all!")


class Call:
    """As much of a call as tells who makes it."""

    def __init__(self, *metadata: tuple[str, str], names: tuple[str, ...] = ()) -> None:
        self._metadata = metadata
        self._names = names

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"x509_subject_alternative_name": [name.encode() for name in self._names]}


class Counted(Reader):
    """A reader that counts what it is asked."""

    count = 0

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return await super().run(*args, **kwargs)


class Watched(CredentialAccess):
    """Access that is refreshed by hand."""

    def __init__(self, url: str, confirmed_seconds_max: float) -> None:
        self.reader = Counted(url, threads=1, connect=connect_credentials)
        others = self.reader, self.reader, NOBODY, self.reader
        nobody = Service(NOBODY, self.reader, Caller("", Rules()), *others)
        super().__init__(nobody, confirmed_seconds_max=confirmed_seconds_max)

    async def caller(self, call: Call) -> Caller:
        guest: Guest = await self.guest(cast(Context, call))
        return guest.service.caller

    async def problem(self, call: Call) -> str:
        with pytest.raises(Refusal) as raised:
            await self.caller(call)
        assert raised.value.reason == "CREDENTIAL_INVALID"
        return str(raised.value)


@asynccontextmanager
async def watched(url: str, confirmed_seconds_max: float = 60.0) -> AsyncIterator[Watched]:
    access = Watched(url, confirmed_seconds_max)
    try:
        yield access
    finally:
        await access.close()
        await access.reader.close()


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    observer = Observer(database_url)
    yield observer
    observer.close()


def by(key: ApiKey) -> Call:
    return Call(*bearer(key))


async def test_the_namespace_comes_from_the_key_alone(
    database_url: str, observer: Observer
) -> None:
    keys = {name: make_key(database_url, name).text for name in ("acme", "globex")}
    async with service(database_url, auth="keys", namespace="unused") as address:
        for name, key in keys.items():
            async with meterhold.AsyncClient(address, api_key=key) as client:
                await client.grant_once("alice", len(name), idempotency_key="gift")
        for name, key in keys.items():
            async with meterhold.AsyncClient(address, api_key=key) as client:
                assert (await client.balance("alice")).available_micros == len(name)
    assert observer.ask("SELECT namespace FROM account ORDER BY 1") == [
        ("acme",),
        ("globex",),
    ]


async def test_who_calls_is_what_the_credential_says(database_url: str) -> None:
    key = make_key(database_url, "acme", Scope.READ, Scope.GRANT)
    async with watched(database_url) as access:
        caller = await access.caller(by(key))
    assert caller.namespace == "acme"
    assert caller.credential_id == key.credential_id
    assert caller.scopes == {Scope.READ, Scope.GRANT}


NO_KEY = "no credential came with the call: send `authorization: Bearer mh_…`"
MALFORMED = "the authorization is not `Bearer mh_…` with a whole API key"
INVALID = "the credential is unknown or revoked"


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ((), NO_KEY),
        ((("x-api-key", STRANGER.text),), NO_KEY),
        ((("authorization", ""),), MALFORMED),
        ((("authorization", "Bearer"),), MALFORMED),
        ((("authorization", STRANGER.text),), MALFORMED),
        ((("authorization", f"Basic {STRANGER.text}"),), MALFORMED),
        ((("authorization", f"Bearer {STRANGER.text} "),), MALFORMED),
        ((("authorization", f"Bearer {STRANGER.text}"),), INVALID),
        ((("authorization", f"bearer {STRANGER.text}"),), INVALID),
    ],
)
async def test_without_a_key_nobody_comes_in(
    database_url: str, metadata: tuple[tuple[str, str], ...], problem: str
) -> None:
    async with watched(database_url) as access:
        assert await access.problem(Call(*metadata)) == problem


async def test_a_wrong_secret_is_told_as_a_key_that_does_not_exist(database_url: str) -> None:
    key = make_key(database_url)
    wrong = ApiKey(key.credential_id, STRANGER.secret)
    async with watched(database_url) as access:
        assert await access.problem(by(wrong)) == INVALID
        assert (await access.caller(by(key))).credential_id == key.credential_id
        assert await access.problem(by(wrong)) == INVALID, "also once the right one is known"


async def test_two_keys_live_side_by_side_for_rotation(database_url: str) -> None:
    old, new = make_key(database_url), make_key(database_url)
    async with watched(database_url) as access:
        for key in (old, new):
            assert (await access.caller(by(key))).credential_id == key.credential_id
        revoke(database_url, old.credential_id)
        await access.refresh()
        assert await access.problem(by(old)) == INVALID
        assert (await access.caller(by(new))).credential_id == new.credential_id


async def test_a_revoked_key_opens_nothing_within_the_time_that_is_stated(
    database_url: str,
) -> None:
    """Also if it is never read anew, as when the refresh hangs."""
    key = make_key(database_url)
    async with watched(database_url, confirmed_seconds_max=0.0) as access:
        await access.caller(by(key))
        revoke(database_url, key.credential_id)
        assert await access.problem(by(key)) == INVALID


async def test_a_revoked_key_is_noticed_by_a_server_that_runs(database_url: str) -> None:
    key = make_key(database_url)
    async with (
        service(database_url, auth="keys") as address,
        meterhold.AsyncClient(address, api_key=key.text) as client,
    ):
        await client.balance("alice")
        revoke(database_url, key.credential_id)
        async with asyncio.timeout(5):
            while await _lets_in(client):
                pass


async def _lets_in(client: meterhold.AsyncClient) -> bool:
    try:
        await client.balance("alice")
    except meterhold.CredentialInvalid:
        return False
    return True


async def test_a_known_key_costs_no_look_up(database_url: str) -> None:
    key = make_key(database_url)
    async with watched(database_url) as access:
        for _ in range(50):
            await access.caller(by(key))
        assert access.reader.count == 1


async def test_callers_who_come_at_once_share_one_look_up(database_url: str) -> None:
    key = make_key(database_url)
    async with watched(database_url) as access:
        callers = await asyncio.gather(*(access.caller(by(key)) for _ in range(200)))
        assert len(set(callers)) == 1
        assert access.reader.count == 1


async def test_one_caller_who_gives_up_takes_the_look_up_from_nobody(database_url: str) -> None:
    key = make_key(database_url)
    async with watched(database_url) as access:
        tasks = [asyncio.create_task(access.caller(by(key))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert [getattr(each, "namespace", None) for each in answers[1:]] == ["default"] * 2


async def test_strangers_do_not_reach_the_database_again_and_again(database_url: str) -> None:
    async with watched(database_url) as access:
        for _ in range(20):
            assert await access.problem(by(STRANGER)) == INVALID
        assert access.reader.count == 1


async def test_many_strangers_at_once_are_told_to_wait_and_guests_are_not(
    database_url: str,
) -> None:
    key = make_key(database_url)
    async with watched(database_url) as access:
        await access.caller(by(key))
        strangers = [
            api_key_of(credential_id_of(number.to_bytes(10, "big")), bytes(32))
            for number in range(200)
        ]
        tries = [asyncio.create_task(access.problem(by(each))) for each in strangers]
        await asyncio.sleep(0)
        assert (await access.caller(by(key))).namespace == "default"
        answers = await asyncio.gather(*tries, return_exceptions=True)
    assert {getattr(each, "reason", each) for each in answers} == {INVALID, "OVERLOADED"}
    assert all(each.retry_after_seconds for each in answers if isinstance(each, Failure))


async def test_a_key_made_after_it_was_tried_works_with_the_next_refresh(
    database_url: str, observer: Observer
) -> None:
    key = make_key(database_url)
    observer.ask("CREATE TABLE later AS SELECT * FROM credential")
    observer.ask("DELETE FROM credential")
    async with watched(database_url) as access:
        assert await access.problem(by(key)) == INVALID
        observer.ask("INSERT INTO credential SELECT * FROM later")
        await access.refresh()
        assert (await access.caller(by(key))).credential_id == key.credential_id


async def test_its_last_use_is_written_down(database_url: str, observer: Observer) -> None:
    used, unused = make_key(database_url), make_key(database_url)
    async with watched(database_url) as access:
        await access.caller(by(used))
    rows = observer.ask("SELECT credential_id, last_use_time FROM credential")
    times: dict[str, datetime | None] = dict(cast(Any, rows))
    assert times[used.credential_id] is not None
    assert times[unused.credential_id] is None


async def test_without_the_database_nobody_unconfirmed_comes_in(
    database_server: DatabaseServer, template: str
) -> None:
    url = database_server.create_database(template)
    key = make_key(url)
    async with watched(url, confirmed_seconds_max=0.0) as access:
        await access.caller(by(key))
        database_server.drop_database(name_of(url))
        with pytest.raises(Failure) as raised:
            await access.caller(by(key))
    assert raised.value.reason == "DATABASE_UNAVAILABLE"


class TestCertificates:
    async def test_one_of_its_names_tells_who_calls(self, database_url: str) -> None:
        made = make_certificate(database_url, "spiffe://acme/gateway", Scope.METER)
        async with watched(database_url) as access:
            for _ in range(3):
                caller = await access.caller(Call(names=("other", "spiffe://acme/gateway")))
                assert caller.credential_id == made
                assert caller.scopes == {Scope.METER}
            assert access.reader.count == 1

    async def test_an_unknown_one_opens_nothing(self, database_url: str) -> None:
        make_certificate(database_url, "gateway")
        async with watched(database_url) as access:
            assert await access.problem(Call(names=("Gateway", "gateway.evil"))) == INVALID

    async def test_a_revoked_one_opens_nothing_and_its_name_is_free_again(
        self, database_url: str
    ) -> None:
        old = make_certificate(database_url, "gateway")
        async with watched(database_url) as access:
            await access.caller(Call(names=("gateway",)))
            revoke(database_url, old)
            await access.refresh()
            assert await access.problem(Call(names=("gateway",))) == INVALID
            new = make_certificate(database_url, "gateway", Scope.READ)
            await access.refresh()
            caller = await access.caller(Call(names=("gateway",)))
            assert caller.credential_id == new
            assert caller.scopes == {Scope.READ}

    async def test_a_key_that_is_sent_is_what_counts(self, database_url: str) -> None:
        make_certificate(database_url, "gateway")
        key = make_key(database_url, "acme")
        async with watched(database_url) as access:
            caller = await access.caller(Call(*bearer(key), names=("gateway",)))
            assert caller.namespace == "acme"
            assert await access.problem(Call(*bearer(STRANGER), names=("gateway",))) == INVALID
