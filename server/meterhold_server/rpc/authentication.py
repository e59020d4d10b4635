"""Callers known by credentials: an API key or a token in the metadata, or a client certificate.

A credential is looked up when it is first used. From then on a call costs one look into a dict, and
all that are known are read anew every `REFRESH_SECONDS`, beside the calls; those that were not
found are looked for again then. One that could not be read for `CONFIRMED_SECONDS_MAX` is looked up
again before it lets anybody in: that is how long a revoked one can still be used at most. Tokens
are not looked up: `tokens.py` has them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from meterhold_server.batching import failures
from meterhold_server.batching.failures import Failure
from meterhold_server.core.credentials import (
    API_KEY_PREFIX,
    ApiKey,
    Credential,
    parse_api_key,
)
from meterhold_server.core.token_bucket import TokenBucket
from meterhold_server.rpc.access import Guest
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.service import Context, Service
from meterhold_server.storage.credentials import note_use, read_certificates, read_credentials
from meterhold_server.storage.exchange import Connection

if TYPE_CHECKING:
    # What is an extra is loaded where it was asked for.
    from meterhold_server.rpc.tokens import TokenAccess

REFRESH_SECONDS: Final = 2.0
CONFIRMED_SECONDS_MAX: Final = 5.0

_NOTE_USE_SECONDS: Final = 60.0
_FORGET_SECONDS: Final = 600.0
_LOOK_UPS_MAX: Final = 64
_LOOK_UP_SECONDS: Final = 0.001
_STRANGERS_MAX: Final = 10_000

_METADATA_KEY: Final = "authorization"
_SCHEME: Final = "bearer "

_NONE: Final = "no credential came with the call: send `authorization: Bearer mh_…`"
_MALFORMED: Final = "the authorization is not `Bearer mh_…` with a whole API key"
_INVALID: Final = "the credential is unknown or revoked"

_log = structlog.get_logger(__name__)

_Read = Callable[[Connection, Sequence[str]], list[Credential]]


class _Known:
    """A credential that was looked up. `confirmed` and `used` are on the monotonic clock.

    `proof` is the authorization by which it was last proved.
    """

    __slots__ = ("confirmed", "credential", "guest", "proof", "used")

    def __init__(self, credential: Credential, guest: Guest, now: float) -> None:
        self.credential = credential
        self.guest = guest
        self.confirmed = now
        self.used = now
        self.proof = ""


class CredentialAccess:
    """Lets those in who prove a credential. Make it, and use it, in one event loop."""

    def __init__(
        self,
        service: Service,
        *,
        tokens: TokenAccess | None = None,
        refresh_seconds: float = REFRESH_SECONDS,
        confirmed_seconds_max: float = CONFIRMED_SECONDS_MAX,
    ) -> None:
        """`service` is as it is for nobody in particular. `start` it before it is used.

        `tokens` lets in who holds one; None = no token is taken.
        """
        self._service = service
        self._tokens = tokens
        self._reader = service.credentials
        self._refresh_seconds = refresh_seconds
        self._confirmed_seconds_max = confirmed_seconds_max
        self._known: dict[str, _Known] = {}
        self._known_by_proof: dict[str, _Known] = {}
        self._ids_by_certificate: dict[str, str] = {}
        self._looking_up: dict[tuple[str, ...], asyncio.Task[_Known | None]] = {}
        self._strangers: set[tuple[str, ...]] = set()
        self._noted = time.monotonic()
        self._refreshing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._refreshing = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        """Stop, and write down which credentials have been used."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing
        with suppress(Failure):
            await self._note_use()

    async def guest(self, context: Context) -> Guest:
        """As Access.guest. A key or token counts rather than the certificate of its connection."""
        now = time.monotonic()
        text = _authorization(context)
        if text is None:
            known = await self._prove_certificate(context, now)
        else:
            proved = self._known_by_proof.get(text)
            if proved is None or now - proved.confirmed > self._confirmed_seconds_max:
                if self._tokens is not None and (token := _token(text)):
                    return await self._tokens.guest(token)
                proved = await self._prove_key(text, now)
            known = proved
        known.used = now
        return known.guest

    async def refresh(self) -> None:
        """Read all known credentials anew. Raises Failure; those known stay as they are then."""
        self._strangers.clear()
        now = time.monotonic()
        for forgotten in [i for i, k in self._known.items() if k.used < now - _FORGET_SECONDS]:
            self._forget(forgotten)
        wanted = list(self._known)
        if not wanted:
            return
        read = await self._reader.run(read_credentials, wanted)
        found = {each.credential_id: each for each in read}
        for credential_id in wanted:
            if (credential := found.get(credential_id)) and credential.revoke_time is None:
                self._learn(credential, now)
            else:
                self._forget(credential_id)
        if now - self._noted >= _NOTE_USE_SECONDS:
            await self._note_use()

    async def _prove_key(self, text: str, now: float) -> _Known:
        key = _api_key(text)
        known = self._fresh(key.credential_id, now)
        if known is None:
            known = await self._look_up((key.credential_id,), read_credentials)
        if known is None or not known.credential.is_proved_by(key):
            raise _refusal(_INVALID)
        if self._known.get(key.credential_id) is known:  # It was not revoked meanwhile.
            self._known_by_proof.pop(known.proof, None)
            known.proof = text
            self._known_by_proof[text] = known
        return known

    async def _prove_certificate(self, context: Context, now: float) -> _Known:
        names = _certificate_names(context.auth_context())
        if not names:
            raise _refusal(_NONE)
        for name in names:
            if known := self._fresh(self._ids_by_certificate.get(name, ""), now):
                return known
        looked_up = await self._look_up(names, read_certificates)
        if looked_up is None or looked_up.credential.certificate_name not in names:
            raise _refusal(_INVALID)
        return looked_up

    def _fresh(self, credential_id: str, now: float) -> _Known | None:
        known = self._known.get(credential_id)
        if known is None or now - known.confirmed > self._confirmed_seconds_max:
            return None
        return known

    async def _look_up(self, wanted: tuple[str, ...], read: _Read) -> _Known | None:
        """Read a credential, once for all who wait for it. None if there is none. Raises Failure.

        Many at once can only be strangers who try, and are told to come back.
        """
        if wanted in self._strangers:
            return None
        if wanted not in self._looking_up:
            if len(self._looking_up) >= _LOOK_UPS_MAX:
                raise failures.overloaded(_LOOK_UPS_MAX, _LOOK_UPS_MAX * _LOOK_UP_SECONDS)
            task = self._looking_up[wanted] = asyncio.create_task(self._looked_up(wanted, read))
            # If it fails and everybody has left, there is nobody to be told.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        # The task is shared: whoever gives up must not take it from the others.
        return await asyncio.shield(self._looking_up[wanted])

    async def _looked_up(self, wanted: tuple[str, ...], read: _Read) -> _Known | None:
        asked = time.monotonic()
        try:
            found = await self._reader.run(read, wanted)
        finally:
            del self._looking_up[wanted]
        for credential in found:
            if credential.revoke_time is None:
                return self._learn(credential, asked)
        if len(self._strangers) < _STRANGERS_MAX:
            self._strangers.add(wanted)
        return None

    def _learn(self, credential: Credential, now: float) -> _Known:
        known = self._known.get(credential.credential_id)
        if known is not None and known.credential.secret_hash == credential.secret_hash:
            # Its guest stays, and with it what is left in the bucket: only use changes otherwise.
            known.confirmed = max(known.confirmed, now)
            return known
        known = _Known(credential, self._guest_of(credential, now), now)
        self._known[credential.credential_id] = known
        if credential.certificate_name is not None:
            self._ids_by_certificate[credential.certificate_name] = credential.credential_id
        return known

    def _guest_of(self, credential: Credential, now: float) -> Guest:
        caller = Caller(
            credential.namespace,
            self._service.caller.rules,
            credential.credential_id,
            credential.scopes,
        )
        per_second = credential.operations_per_second_max
        bucket = TokenBucket(per_second, now) if per_second is not None else None
        return Guest(self._service.of(caller), bucket)

    def _forget(self, credential_id: str) -> None:
        known = self._known.pop(credential_id, None)
        if known is None:
            return
        self._known_by_proof.pop(known.proof, None)
        name = known.credential.certificate_name
        if name is not None and self._ids_by_certificate.get(name) == credential_id:
            del self._ids_by_certificate[name]

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_seconds)
            try:
                await self.refresh()
            except Exception as error:
                # None of them lets anybody in for much longer, so that it has to be tried again.
                _log.warning("credentials_not_read", error=repr(error))

    async def _note_use(self) -> None:
        noted, self._noted = self._noted, time.monotonic()
        if used := [i for i, known in self._known.items() if known.used >= noted]:
            await self._reader.run(note_use, used)


def _authorization(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == _METADATA_KEY:
            return value if isinstance(value, str) else value.decode("latin-1")
    return None


def _bearer(text: str) -> str:
    """What an authorization bears; empty if it is none of that scheme."""
    return text[len(_SCHEME) :] if text[: len(_SCHEME)].lower() == _SCHEME else ""


def _token(text: str) -> str:
    """What an authorization bears if it is not an API key, which no token begins like."""
    borne = _bearer(text)
    return "" if borne.startswith(API_KEY_PREFIX) else borne


def _api_key(text: str) -> ApiKey:
    key = parse_api_key(_bearer(text))
    if key is None:
        raise _refusal(_MALFORMED)
    return key


def _certificate_names(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """The subject alternative names of the caller's certificate, which was verified."""
    names = auth_context.get("x509_subject_alternative_name", ())
    return tuple(name.decode(errors="replace") for name in names)


def _refusal(problem: str) -> Refusal:
    return Refusal("CREDENTIAL_INVALID", {"problem": problem})
