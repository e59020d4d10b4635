"""Tokens as a server meets them: checked once, kept until they end, by keys that are rotated."""

from __future__ import annotations

import asyncio
import gc
import http.server
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from meterhold_server.core.credentials import Scope
from meterhold_server.core.model import Rules
from meterhold_server.core.tokens import TokenTerms
from meterhold_server.rpc import key_sets, tokens
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.key_sets import KeySetError, KeySetFile, KeySetSource, KeySetUrl
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.service import Service
from meterhold_server.rpc.signatures import PublicKeys
from meterhold_server.rpc.tokens import TokenAccess
from support.tokens import AUDIENCE, ISSUER, SigningKey, claims_of, key_set, publish
from support.waiting import until

KEY, NEXT = SigningKey("first"), SigningKey("next")
UNKNOWN = "the token's key, its `kid` and `alg`, is not in the issuer's key set"
NOBODY: Any = None


class OneNamespace:
    """Reads for a service that nothing is read with."""

    def within(self, namespace: str) -> OneNamespace:
        return self

    def in_line(self, namespace: str) -> OneNamespace:
        return self


class Given:
    """A source that answers what it is given, when it is let, and counts how often it is asked."""

    refresh_seconds = 3600.0

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.count = 0
        self.let = threading.Event()
        self.let.set()

    def read(self) -> bytes:
        self.count += 1
        assert_soon(self.let)
        if not self.data:
            raise KeySetError("the key set is not there")
        return self.data


READS: Any = OneNamespace()
SERVICE = Service(NOBODY, READS, Caller("", Rules()), READS, READS, NOBODY, NOBODY)


@asynccontextmanager
async def opened(source: KeySetSource, **options: Any) -> AsyncIterator[TokenAccess]:
    terms = TokenTerms(ISSUER, AUDIENCE)
    access = TokenAccess(SERVICE, source, terms, ["ES256"], **options)
    await access.start()
    try:
        yield access
    finally:
        await access.close()


async def caller(access: TokenAccess, token: str) -> Caller:
    return (await access.guest(token)).service.caller


async def problem(access: TokenAccess, token: str) -> str:
    with pytest.raises(Refusal) as raised:
        await access.guest(token)
    assert raised.value.reason == "CREDENTIAL_INVALID"
    return str(raised.value)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens whose signatures were checked."""
    checked: list[str] = []
    claims = PublicKeys.claims

    def counted(self: PublicKeys, token: str) -> dict[str, Any]:
        checked.append(token)
        return claims(self, token)

    monkeypatch.setattr(PublicKeys, "claims", counted)
    return checked


async def test_who_calls_is_what_the_token_says() -> None:
    async with opened(Given(key_set(KEY))) as access:
        known = await caller(access, KEY.token("acme", "read grant", sub="ci"))
    assert (known.namespace, known.credential_id) == ("acme", "jwt:ci")
    assert known.scopes == {Scope.READ, Scope.GRANT}


async def test_a_token_is_checked_once_until_it_ends(checks: list[str]) -> None:
    now = 1_800_000_000.0
    token = KEY.sign(claims_of(iat=None, exp=now + 60))
    async with opened(Given(key_set(KEY)), clock=lambda: now) as access:
        for _ in range(50):
            await access.guest(token)
        assert checks == [token]
        now += 89
        await access.guest(token)
        now += 1
        assert await problem(access, token) == "the token has expired: send a new one"
        now -= 1
        await access.guest(token)
    assert checks == [token] * 3


async def test_what_was_refused_is_not_remembered_as_good(checks: list[str]) -> None:
    token = KEY.token(aud="another")
    async with opened(Given(key_set(KEY))) as access:
        for _ in range(3):
            assert "does not name the audience" in await problem(access, token)
    assert checks == [token] * 3


async def test_no_more_tokens_are_kept_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, checks: list[str]
) -> None:
    monkeypatch.setattr(tokens, "_CHECKED_MAX", 2)
    one, two, three = (KEY.token(sub=name) for name in ("one", "two", "three"))
    async with opened(Given(key_set(KEY))) as access:
        for token in (one, two, three, two, three, one):
            await access.guest(token)
        assert len(access._checked) == 2
    assert checks == [one, two, three, one]


async def test_a_key_that_is_gone_opens_nothing_also_for_tokens_that_were_checked() -> None:
    source = Given(key_set(KEY))
    async with opened(source) as access:
        old = KEY.token()
        await access.guest(old)
        source.data = key_set(KEY, NEXT)
        assert await access.refresh()
        await access.guest(old)
        await access.guest(NEXT.token())
        source.data = key_set(NEXT)
        assert await access.refresh()
        assert await problem(access, old) == UNKNOWN
        await access.guest(NEXT.token())


async def test_a_set_that_stayed_the_same_lets_no_token_be_checked_again(
    checks: list[str],
) -> None:
    async with opened(Given(key_set(KEY))) as access:
        token = KEY.token()
        await access.guest(token)
        assert await access.refresh()
        await access.guest(token)
    assert checks == [token]


async def test_the_keys_before_stay_in_use_while_new_ones_cannot_be_had() -> None:
    source = Given(key_set(KEY))
    async with opened(source) as access:
        with structlog.testing.capture_logs() as logs:
            for unusable in (b"", b"no JSON", key_set(), key_set(KEY, KEY)):
                source.data = unusable
                assert not await access.refresh()
                await access.guest(KEY.token())
    assert [event["event"] for event in logs] == ["jwks_not_read"] * 4
    assert [event["log_level"] for event in logs] == ["warning"] * 4


@pytest.mark.parametrize("data", [b"", b"no JSON", key_set()], ids=["absent", "no JSON", "empty"])
async def test_nobody_starts_without_keys(data: bytes) -> None:
    with pytest.raises(KeySetError):
        async with opened(Given(data)):
            pass


class TestAnUnknownKey:
    """Its name can be made up by anybody, and so must not have the keys read again and again."""

    async def test_is_looked_for_in_a_newer_set(self) -> None:
        source = Given(key_set(KEY))
        async with opened(source, reload_seconds_min=0.0) as access:
            source.data = key_set(KEY, NEXT)
            await access.guest(NEXT.token())
            await access.guest(NEXT.token())
        assert source.count == 2

    async def test_is_not_looked_for_again_within_some_seconds(self) -> None:
        source = Given(key_set(KEY))
        async with opened(source, reload_seconds_min=3600.0) as access:
            for _ in range(20):
                assert await problem(access, NEXT.token()) == UNKNOWN
        assert source.count == 1

    async def test_is_looked_for_once_for_all_who_name_it_at_the_same_time(self) -> None:
        source = Given(key_set(KEY))
        async with opened(source, reload_seconds_min=0.0) as access:
            await access.guest(known := KEY.token())
            source.data = key_set(KEY, NEXT)
            source.let.clear()
            waiting = [asyncio.create_task(access.guest(NEXT.token())) for _ in range(200)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            # The event loop is free meanwhile, and those who are known come in.
            await access.guest(known)
            await access.guest(KEY.token(sub="another"))
            source.let.set()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(answers[0], asyncio.CancelledError)
        assert not any(isinstance(answer, BaseException) for answer in answers[1:])
        assert source.count == 2

    async def test_stays_unknown_if_the_keys_cannot_be_had(self) -> None:
        source = Given(key_set(KEY))
        async with opened(source, reload_seconds_min=0.0) as access:
            source.data = b""
            assert await problem(access, NEXT.token()) == UNKNOWN


class TestRates:
    async def test_all_tokens_of_a_subject_share_one_and_others_have_their_own(self) -> None:
        async with opened(Given(key_set(KEY)), operations_per_second_max=1) as access:
            first, second = KEY.token(), KEY.token(iat=None)
            assert first != second
            (await access.guest(first)).admit(Scope.READ, 1)
            with pytest.raises(Refusal) as refused:
                (await access.guest(second)).admit(Scope.READ, 1)
            assert refused.value.reason == "RATE_LIMITED"
            assert refused.value.details["credential_id"] == "jwt:gateway"
            (await access.guest(KEY.token(sub="another"))).admit(Scope.READ, 1)

    async def test_buckets_do_not_pile_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tokens, "_BUCKETS_MAX", 3)
        async with opened(Given(key_set(KEY)), operations_per_second_max=1) as access:
            for number in range(10):
                await access.guest(KEY.token(sub=str(number)))
            assert len(access._buckets) == 3


class TestFiles:
    async def test_a_replaced_file_is_read_by_itself(self, tmp_path: Path) -> None:
        file = publish(tmp_path / "jwks.json", KEY)
        source = KeySetFile(file, refresh_seconds=0.01)
        async with opened(source, reload_seconds_min=3600.0) as access:
            publish(file, NEXT)
            await until(lambda: _lets_in(access, NEXT.token()))
            assert await problem(access, KEY.token()) == UNKNOWN

    def test_one_that_is_not_there_or_too_large_is_named(self, tmp_path: Path) -> None:
        file = tmp_path / "jwks.json"
        with pytest.raises(KeySetError, match=r"jwks\.json cannot be read: No such file"):
            KeySetFile(file).read()
        file.write_bytes(b" " * (key_sets.KEY_SET_BYTES_MAX + 1))
        with pytest.raises(KeySetError, match=r"jwks\.json has more than 262144 bytes"):
            KeySetFile(file).read()


async def _lets_in(access: TokenAccess, token: str) -> bool:
    try:
        await access.guest(token)
    except Refusal:
        return False
    return True


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Website:
    """A server of HTTP on loopback, which answers as it is told."""

    def __init__(self) -> None:
        self.answer: Answer = answer(key_set(KEY))
        self.paths: list[str] = []
        website = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                website.paths.append(self.path)
                website.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def answer(body: bytes, code: int = 200, **headers: str) -> Answer:
    def send(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def assert_soon(event: threading.Event) -> None:
    assert event.wait(timeout=20)


@pytest.fixture
def website() -> Iterator[Website]:
    made = Website()
    yield made
    made.close()
    gc.collect()


class TestUrls:
    async def test_the_keys_are_fetched_and_fetched_anew(self, website: Website) -> None:
        async with opened(KeySetUrl(website.url), reload_seconds_min=0.0) as access:
            await access.guest(KEY.token())
            website.answer = answer(key_set(NEXT))
            await access.guest(NEXT.token())
        assert website.paths == ["/jwks.json"] * 2

    @pytest.mark.parametrize(
        ("reply", "problem"),
        [
            (answer(b"gone", 404), "cannot be fetched: HTTP Error 404"),
            (answer(b"", 500), "cannot be fetched: HTTP Error 500"),
            (answer(b"", 302, Location="/other"), "cannot be fetched: HTTP Error 302"),
            (answer(b" " * (key_sets.KEY_SET_BYTES_MAX + 1)), "has more than 262144 bytes"),
            (lambda handler: handler.wfile.write(b"what?\r\n\r\n"), "cannot be fetched: "),
            (lambda handler: handler.connection.close(), "cannot be fetched: "),
        ],
        ids=["absent", "broken", "elsewhere", "huge", "no HTTP", "cut"],
    )
    def test_what_cannot_be_fetched_is_told(
        self, website: Website, reply: Answer, problem: str
    ) -> None:
        website.answer = reply
        with pytest.raises(KeySetError, match=problem) as raised:
            KeySetUrl(website.url).read()
        assert website.url in str(raised.value)
        assert website.paths == ["/jwks.json"], "redirects are not followed"

    def test_one_that_comes_drop_by_drop_is_given_up(
        self, website: Website, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_sets, "_FETCH_SECONDS_MAX", 0.2)
        enough = threading.Event()

        def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.end_headers()
            while not enough.wait(0.02):
                handler.wfile.write(b" ")

        website.answer = drip
        with pytest.raises(KeySetError, match="takes longer than"):
            KeySetUrl(website.url).read()
        enough.set()

    def test_one_that_is_silent_is_given_up(
        self, website: Website, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(key_sets, "_FETCH_SECONDS_MAX", 0.1)
        enough = threading.Event()
        website.answer = lambda _: assert_soon(enough)
        with pytest.raises(KeySetError, match="cannot be fetched: timed out"):
            KeySetUrl(website.url).read()
        enough.set()

    def test_where_nobody_listens(self, website: Website) -> None:
        website.close()
        with pytest.raises(KeySetError, match=r"cannot be fetched: .*refused"):
            KeySetUrl(website.url).read()
