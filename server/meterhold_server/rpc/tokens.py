"""Callers known by tokens (JWT): signed by an issuer, whose public keys are read now and then.

A token is checked when it is first seen; until it ends, a call then costs a hash and one look into
a dict. The keys are read anew beside the calls. All times of tokens are by this process's clock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

import structlog

from meterhold_server.core.token_bucket import TokenBucket
from meterhold_server.core.tokens import TokenHolder, TokenRefusedError, TokenTerms, token_holder
from meterhold_server.rpc.access import Guest
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.key_sets import KeySetError, KeySetSource
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.service import Service
from meterhold_server.rpc.signatures import PublicKeys, UnknownKeyError

RELOAD_SECONDS_MIN: Final = 10.0
"""How often the keys are read at most because a token names one that is unknown."""

_RETRY_SECONDS: Final = 10.0
_CHECKED_MAX: Final = 10_000
_BUCKETS_MAX: Final = 10_000

_log = structlog.get_logger(__name__)

_K = TypeVar("_K")
_V = TypeVar("_V")


class _Checked(NamedTuple):
    """A token that was found good, until `end_seconds`, and whom it lets in."""

    guest: Guest
    end_seconds: float


class TokenAccess:
    """Lets those in who hold a token. Make it, and use it, in one event loop."""

    def __init__(
        self,
        service: Service,
        source: KeySetSource,
        terms: TokenTerms,
        algorithms: Iterable[str],
        *,
        operations_per_second_max: int | None = None,
        reload_seconds_min: float = RELOAD_SECONDS_MIN,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`service` is as it is for nobody in particular. `start` it before it is used.

        `operations_per_second_max` is for each subject, None = no limit. `clock` answers seconds
        since 1970.
        """
        self._service = service
        self._source = source
        self._terms = terms
        self._algorithms = tuple(algorithms)
        self._operations_per_second_max = operations_per_second_max
        self._reload_seconds_min = reload_seconds_min
        self._clock = clock
        self._keys: PublicKeys | None = None
        self._data = b""
        self._read_at = 0.0
        self._reading: asyncio.Task[bool] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._checked: dict[bytes, _Checked] = {}
        self._buckets: dict[str, TokenBucket] = {}

    async def start(self) -> None:
        """Read the keys, and go on doing so. Raises KeySetError: nobody starts without any."""
        await self._read()
        self._refreshing = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        for task in (self._refreshing, self._reading):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def guest(self, token: str) -> Guest:
        """Who holds a token. Raises Refusal CREDENTIAL_INVALID."""
        digest = sha256(token.encode()).digest()
        known = self._checked.get(digest)
        if known is not None and self._clock() < known.end_seconds:
            return known.guest
        self._checked.pop(digest, None)
        try:
            holder = await self._holder(token)
        except TokenRefusedError as refused:
            raise Refusal("CREDENTIAL_INVALID", {"problem": str(refused)}) from None
        guest = self._guest_of(holder)
        _make_room(self._checked, _CHECKED_MAX)
        self._checked[digest] = _Checked(guest, holder.end_seconds)
        return guest

    async def refresh(self) -> bool:
        """Read the keys anew, once for all who ask meanwhile. Answers whether they could be read.

        Those before stay in use if they cannot.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(self._try_to_read())
        # The task is shared: whoever gives up must not take it from the others.
        return await asyncio.shield(self._reading)

    async def _holder(self, token: str) -> TokenHolder:
        try:
            claims = self._current_keys.claims(token)
        except UnknownKeyError:
            if not await self._read_for_a_stranger():
                raise
            claims = self._current_keys.claims(token)
        return token_holder(claims, self._terms, self._clock())

    @property
    def _current_keys(self) -> PublicKeys:
        assert self._keys is not None, "it was started"
        return self._keys

    async def _read_for_a_stranger(self) -> bool:
        """Look for a key that is not known, but seldom: anybody can make up the name of one."""
        is_due = time.monotonic() - self._read_at >= self._reload_seconds_min
        return (is_due or self._reading is not None) and await self.refresh()

    async def _try_to_read(self) -> bool:
        try:
            await self._read()
        except Exception as error:
            known = isinstance(error, KeySetError)
            _log.warning("jwks_not_read", error=str(error) if known else repr(error))
            return False
        finally:
            self._reading = None
        return True

    async def _read(self) -> None:
        self._read_at = time.monotonic()
        data = await asyncio.to_thread(self._source.read)
        if data == self._data:
            return
        try:
            keys = PublicKeys.parse(data, self._algorithms)
        except KeySetError as error:
            raise KeySetError(f"{self._source} cannot be used: {error}") from error
        self._data, self._keys = data, keys
        # A token by a key that is gone must be looked at again.
        self._checked.clear()
        _log.info("jwks_read", source=str(self._source))

    async def _keep_fresh(self) -> None:
        seconds = self._source.refresh_seconds
        while True:
            await asyncio.sleep(seconds)
            done = await self.refresh()
            seconds = self._source.refresh_seconds if done else _RETRY_SECONDS

    def _guest_of(self, holder: TokenHolder) -> Guest:
        rules = self._service.caller.rules
        caller = Caller(holder.namespace, rules, holder.credential_id, holder.scopes)
        return Guest(self._service.of(caller), self._bucket_of(holder.subject))

    def _bucket_of(self, subject: str) -> TokenBucket | None:
        """One for all tokens of a subject: a new token does not fill it."""
        per_second = self._operations_per_second_max
        if per_second is None:
            return None
        bucket = self._buckets.pop(subject, None) or TokenBucket(per_second, time.monotonic())
        _make_room(self._buckets, _BUCKETS_MAX)
        self._buckets[subject] = bucket
        return bucket


def _make_room(kept: dict[_K, _V], count_max: int) -> None:
    """Let go of what was put in first, if there is no room for more."""
    if len(kept) >= count_max:
        del kept[next(iter(kept))]
