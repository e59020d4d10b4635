"""Who may call, and what for: credentials, their scopes, and API keys as text.

A key is `mh_<credential id>_<secret>`. The id is public: it names the credential in lists, logs and
errors. The secret has 256 random bits and is kept nowhere but as its SHA-256: of so many random
bits a hash needs neither salt nor stretching.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b32encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

ID_BYTES: Final = 10
SECRET_BYTES: Final = 32
NAMESPACE_CHARACTERS_MAX: Final = 64
API_KEY_PREFIX: Final = "mh_"

_KEY: Final = re.compile(API_KEY_PREFIX + r"([a-z2-7]{16})_([a-z2-7]{52})")


class Scope(StrEnum):
    """What a credential may be used for. None includes another."""

    METER = "meter"
    """Reserve, settle, release, extend and debit."""
    GRANT = "grant"
    """Put credits in, give charges back, and undo grants."""
    READ = "read"
    """Balances, entries, reports, accounts and verification."""
    ADMIN = "admin"
    """Configure and rebuild accounts; make, list and revoke credentials."""


ALL_SCOPES: Final = frozenset(Scope)


class ApiKey(NamedTuple):
    """The two parts of a key. Only the first may be shown."""

    credential_id: str
    secret: str

    def __repr__(self) -> str:
        return f"ApiKey({self.credential_id!r})"

    @property
    def secret_hash(self) -> bytes:
        return hashlib.sha256(self.secret.encode()).digest()

    @property
    def text(self) -> str:
        """What the caller sends: show it once, and keep it nowhere."""
        return f"{API_KEY_PREFIX}{self.credential_id}_{self.secret}"


@dataclass(frozen=True, slots=True)
class Credential:
    """An API key, or a client certificate by one of its subject alternative names.

    `operations_per_second_max` None = no limit. `last_use_time` may be a minute old.
    """

    credential_id: str
    namespace: str
    name: str
    scopes: frozenset[Scope]
    secret_hash: bytes | None
    certificate_name: str | None
    operations_per_second_max: int | None
    create_time: datetime
    last_use_time: datetime | None = None
    revoke_time: datetime | None = None

    def is_proved_by(self, key: ApiKey) -> bool:
        """Whether the key is this credential's. Takes the same time whatever differs."""
        return self.secret_hash is not None and hmac.compare_digest(
            self.secret_hash, key.secret_hash
        )


def credential_id_of(random: bytes) -> str:
    """A credential's id, made of `ID_BYTES` random bytes."""
    assert len(random) == ID_BYTES
    return b32encode(random).decode().lower()


def api_key_of(credential_id: str, random: bytes) -> ApiKey:
    """A key, made of `SECRET_BYTES` random bytes."""
    assert len(random) == SECRET_BYTES
    return ApiKey(credential_id, b32encode(random).decode().lower().rstrip("="))


def parse_api_key(text: str) -> ApiKey | None:
    """The key that a text is; None if it is none."""
    found = _KEY.fullmatch(text)
    return ApiKey(found[1], found[2]) if found else None


def parse_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes of some names. Raises ValueError, which names the wrong one."""
    found = frozenset(map(_scope, names))
    if not found:
        raise ValueError(f"at least one scope is required, of {', '.join(Scope)}")
    return found


def _scope(name: str) -> Scope:
    try:
        return Scope(name)
    except ValueError:
        raise ValueError(f"{name!r} is not a scope; they are {', '.join(Scope)}") from None
