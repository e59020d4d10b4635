"""Tokens against a real server: whose namespace, which scopes, and no word of them in any log."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from pydantic import ValidationError

import meterhold
from cli.test_command import Run, run
from meterhold.v1 import metering_service_pb2 as metering
from meterhold_server.config import ServeSettings
from meterhold_server.core.credentials import Scope
from meterhold_server.rpc.key_sets import KeySetError
from rpc.answers import METHODS, call, refusal
from support.certificates import needs_openssl, self_signed, signed_by
from support.keys import make_certificate, make_key
from support.service import ServerProcess, service
from support.tokens import AUDIENCE, ISSUER, SigningKey, bearer_of, publish, token_settings

__all__ = ["run"]

KEY, STRANGER = SigningKey("first"), SigningKey("stranger")
BALANCE = metering.BalanceRequest(account="alice")
DEBIT = metering.DebitRequest(account="alice", amount_micros=5)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return publish(tmp_path / "jwks.json", KEY)


@pytest.fixture
async def address(database_url: str, keys: Path) -> AsyncIterator[str]:
    async with service(database_url, namespace="unused", **token_settings(keys)) as served:
        yield served


async def test_the_namespace_comes_from_the_token_alone(address: str) -> None:
    tokens = {name: KEY.token(name, "grant read") for name in ("acme", "globex")}
    for name, token in tokens.items():
        async with meterhold.AsyncClient(address, api_key=token) as client:
            await client.grant_once("alice", len(name), idempotency_key="gift")
    for name, token in tokens.items():
        async with meterhold.AsyncClient(address, api_key=token) as client:
            assert (await client.balance("alice")).available_micros == len(name)
            assert [entry.amount_micros async for entry in client.list_entries("alice")] == [
                len(name)
            ]


async def test_an_api_key_and_a_token_of_one_namespace_see_the_same(
    address: str, database_url: str
) -> None:
    key = make_key(database_url, "acme")
    async with meterhold.AsyncClient(address, api_key=key.text) as client:
        await client.grant_once("alice", 7, idempotency_key="gift")
    async with meterhold.AsyncClient(address, api_key=KEY.token("acme")) as client:
        assert (await client.balance("alice")).available_micros == 7


async def test_it_opens_what_its_scopes_say(address: str) -> None:
    async with meterhold.AsyncClient(address, api_key=KEY.token(scope="read openid")) as client:
        await client.balance("alice")
        with pytest.raises(meterhold.ScopeMissing) as raised:
            await client.debit("alice", 5)
    assert raised.value.scope == "meter"
    assert "jwt:gateway" in str(raised.value)
    async with meterhold.AsyncClient(address, api_key=KEY.token(scope="openid")) as client:
        with pytest.raises(meterhold.ScopeMissing):
            await client.balance("alice")


async def test_what_is_wrong_is_told_as_an_invalid_credential(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        for token, problem in (
            (KEY.token(exp=1), "the token has expired: send a new one"),
            (KEY.token(aud="another"), "`aud` does not name the audience 'meterhold'"),
            (STRANGER.token(), "the token's key, its `kid` and `alg`, is not in the issuer's"),
            ("abc", "neither a whole API key, `mh_…`, nor a whole token (JWT)"),
            ("mh_abc", "the authorization is not `Bearer mh_…` with a whole API key"),
        ):
            told = await refusal(channel, METHODS["Balance"], BALANCE, bearer_of(token))
            assert (told.code, told.reason) == ("UNAUTHENTICATED", "CREDENTIAL_INVALID")
            assert problem in told.message


async def test_a_client_goes_on_with_the_newest_token(address: str) -> None:
    tokens = [KEY.token(exp=1), KEY.token()]
    async with meterhold.AsyncClient(address, api_key=lambda: tokens[0]) as client:
        with pytest.raises(meterhold.CredentialInvalid, match="has expired: send a new one"):
            await client.balance("alice")
        del tokens[0]
        assert (await client.balance("alice")).ledger_seq == 0


async def test_the_audit_log_names_its_subject(run: Run, address: str, database_url: str) -> None:
    token = KEY.token("acme", "grant admin", sub="billing@acme")
    async with meterhold.AsyncClient(address, api_key=token) as client:
        await client.grant_once("alice", 100, idempotency_key="gift")
        made = await client.create_api_key("more", scopes=[meterhold.Scope.GRANT])
        with pytest.raises(meterhold.ScopeMissing):
            await client.create_api_key("too much", scopes=[meterhold.Scope.READ])
    told = run("audit", "--namespace", "acme", database_url=database_url)
    found = [json.loads(line) for line in told.out.splitlines()]
    assert [(each["action"], each["actor"], each["subject"]) for each in found] == [
        ("CreateCredential", "jwt:billing@acme", made.credential.credential_id),
        ("GrantOnce", "jwt:billing@acme", "gift"),
    ]


async def test_its_rate_is_that_of_its_subject(database_url: str, keys: Path) -> None:
    settings = token_settings(keys, jwt_operations_per_second_max=1)
    async with (
        service(database_url, **settings) as address,
        meterhold.AsyncClient(address, api_key=KEY.token(iat=None)) as first,
        meterhold.AsyncClient(address, api_key=KEY.token()) as second,
    ):
        await first.balance("alice")
        with pytest.raises(meterhold.RateLimited, match="jwt:gateway"):
            await second.balance("alice")


async def test_a_stream_ends_with_the_first_message_after_its_token_s_end(
    address: str, keys: Path
) -> None:
    """Here by a key that is taken back: it is looked for with each message."""
    async with grpc.aio.insecure_channel(address) as channel:
        stream: Any = channel.stream_stream("/meterhold.v1.MeteringService/Stream")(
            metadata=bearer_of(KEY.token(scope="meter"))
        )
        release = metering.ReleaseRequest(account="alice", reservation_id="none")
        batch = metering.BatchRequest(operations=[metering.BatchOperation(release=release)])
        message = metering.StreamRequest(id=1, batch=batch).SerializeToString()
        await stream.write(message)
        await stream.read()
        publish(keys, STRANGER)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await _exchange_until_the_end(stream, message)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def _exchange_until_the_end(stream: Any, message: bytes) -> None:
    while True:
        await stream.write(message)
        await stream.read()


@needs_openssl
async def test_a_token_that_is_sent_counts_and_not_the_certificate(
    database_url: str, tmp_path: Path, keys: Path
) -> None:
    root = self_signed(tmp_path, "root", loopback=True)
    client = signed_by(root, tmp_path, "gateway")
    make_certificate(database_url, "gateway", Scope.READ)
    tls = meterhold.Tls(
        root_certificates=root.certificate.read_bytes(),
        private_key=client.private_key.read_bytes(),
        certificate_chain=client.certificate.read_bytes(),
    )
    settings = token_settings(
        keys,
        tls_certificate=root.certificate,
        tls_private_key=root.private_key,
        tls_client_roots=root.certificate,
    )
    async with service(database_url, **settings) as address:
        async with meterhold.AsyncClient(address, tls=tls, api_key=KEY.token("acme", "grant")) as c:
            await c.grant_once("alice", 5, idempotency_key="gift")
            with pytest.raises(meterhold.ScopeMissing):
                await c.balance("alice")
        async with meterhold.AsyncClient(address, tls=tls) as by_certificate:
            assert (await by_certificate.balance("alice")).ledger_seq == 0
        async with meterhold.AsyncClient(address, tls=tls, api_key=STRANGER.token()) as c:
            with pytest.raises(meterhold.CredentialInvalid):
                await c.balance("alice")


@pytest.mark.slow
async def test_no_log_and_no_answer_has_a_token_or_a_part_of_one(
    database_url: str, keys: Path
) -> None:
    canary = "canary-in-a-claim"
    tokens = [
        KEY.token(private=canary),
        KEY.token(private=canary, exp=1),
        KEY.token(private=canary, nbf=2**40),
        KEY.token(private=canary, iss=canary),
        KEY.token(private=canary, aud=canary),
        KEY.token(private=canary, sub=f"{canary}\n"),
        KEY.token(private=canary, meterhold_namespace=[canary]),
        KEY.token(private=canary, scope={canary: canary}),
        STRANGER.token(private=canary),
        STRANGER.sign({"private": canary}, kid="first"),
        KEY.token(private=canary)[:-9],
        KEY.token(private=canary) + ".x",
        KEY.token(private=canary * 300),
    ]
    answers: list[Any] = []
    settings = token_settings(keys, log_calls="all", log_level="debug")
    with ServerProcess(database_url, **settings) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            for token in tokens:
                for metadata in (
                    bearer_of(token),
                    (("authorization", token),),
                    (("authorization", f"Basic {token}"),),
                ):
                    for method, request in (("Balance", BALANCE), ("Debit", DEBIT)):
                        answers.append(await call(channel, METHODS[method], request, metadata))
        server.terminate()
    codes = {getattr(answer, "code", "OK") for answer in answers}
    assert codes == {"OK", "UNAUTHENTICATED", "PERMISSION_DENIED"}
    calls = [event for event in server.events if event["event"] == "call"]
    assert {event["credential_id"] for event in calls} == {"jwt:gateway", ""}
    text = repr(answers) + repr(server.events)
    assert canary not in text
    for token in tokens:
        for part in token.split("."):
            assert len(part) < 9 or part not in text


@pytest.mark.slow
def test_each_process_of_a_server_takes_tokens(database_url: str, keys: Path) -> None:
    with ServerProcess(database_url, workers=2, **token_settings(keys)) as server:
        for _ in range(8):
            with meterhold.Client(server.address, api_key=KEY.token()) as client:
                client.balance("alice")


async def test_a_server_does_not_start_without_the_keys(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(KeySetError, match=r"none\.json cannot be read"):
        async with service(database_url, **token_settings(tmp_path / "none.json")):
            pass


async def test_without_the_extra_a_server_says_what_to_install(
    database_url: str, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "meterhold_server.rpc.tokens", raising=False)
    monkeypatch.delitem(sys.modules, "meterhold_server.rpc.signatures", raising=False)
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(KeySetError, match=r"pip install 'meterhold\[jwt\]'"):
        async with service(database_url, **token_settings(keys)):
            pass


def test_a_wrong_start_is_told_without_a_traceback(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    settings = {
        f"METERHOLD_{name.upper()}": str(value)
        for name, value in token_settings(tmp_path / "none.json", workers=1).items()
    }
    done = run("serve", "--address", "127.0.0.1:0", database_url=database_url, **settings)
    assert done.code == 1
    assert "none.json cannot be read: No such file or directory" in done.err
    assert "Traceback" not in done.err


NAMED = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"jwt_jwks_file": "a.json"}, "tokens need jwt_issuer and jwt_audience"),
        ({"jwt_jwks_file": "a.json", "jwt_issuer": ISSUER}, "tokens need jwt_issuer and"),
        ({"jwt_issuer": ISSUER}, "tokens need the keys of their issuer"),
        (
            {**NAMED, "jwt_jwks_file": "a.json", "jwt_jwks_url": "https://a.example"},
            "both set: one has the keys",
        ),
        ({**NAMED, "jwt_jwks_url": "http://issuer.example/keys"}, "must be an https URL"),
        ({**NAMED, "jwt_jwks_url": "file:///etc/keys"}, "must be an https URL"),
        ({**NAMED, "jwt_jwks_url": "ftp://127.0.0.1/keys"}, "must be an https URL"),
        ({**NAMED, "jwt_jwks_url": "https:///keys"}, "must be an https URL"),
        ({**NAMED, "jwt_jwks_url": "https://me:secret@a.example"}, "a user or a password"),
        ({"jwt_algorithms": "HS256"}, "'HS256' is not one of ES256, ES384"),
        ({"jwt_algorithms": "RS256,none"}, "'none' is not one of"),
        ({"jwt_algorithms": ""}, "'' is not one of"),
        ({"jwt_leeway_seconds": 301}, "less than or equal to 300"),
        ({**NAMED, "jwt_jwks_file": "a.json", "auth": "none"}, "nobody is asked for a token"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as raised:
        ServeSettings.model_validate(settings)
    assert "me:secret" not in str(raised.value.errors(include_input=False, include_url=False))


@pytest.mark.parametrize(
    "url", ["https://issuer.example/keys", "http://localhost:9/keys", "http://[::1]:9/keys"]
)
def test_settings_that_do(url: str) -> None:
    settings = ServeSettings.model_validate({"jwt_jwks_url": url, **NAMED})
    assert settings.asks_for_credentials, "whoever takes tokens wants to know who calls"
    assert settings.token_source is not None
