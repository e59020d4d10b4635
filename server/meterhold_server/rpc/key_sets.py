"""Where the public keys of an issuer of tokens are found: a file, or a URL (RFC 7517)."""

from __future__ import annotations

import time
from http.client import HTTPException
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

KEY_SET_BYTES_MAX: Final = 256 * 1024

RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
ALGORITHMS_OF_CURVES: Final = {
    "P-256": "ES256",
    "P-384": "ES384",
    "P-521": "ES512",
    "Ed25519": "EdDSA",
    "Ed448": "EdDSA",
}
ALGORITHMS: Final = frozenset((*RSA_ALGORITHMS, *ALGORITHMS_OF_CURVES.values()))
"""All that tokens may be signed with (RFC 7518): who has the public key can make no token."""

_FETCH_SECONDS_MAX: Final = 5.0
_CHUNK_BYTES: Final = 16 * 1024


class KeySetError(Exception):
    """A key set that cannot be had or used. The message says which one, and why."""


class KeySetSource(Protocol):
    """Where a key set is read, again every `refresh_seconds`."""

    @property
    def refresh_seconds(self) -> float: ...

    def read(self) -> bytes:
        """The key set as it is now. Blocks for some seconds at most. Raises KeySetError."""
        ...


class KeySetFile(NamedTuple):
    """A file, which is to be replaced at once: written beside, and renamed."""

    path: Path
    refresh_seconds: float = 2.0

    def __str__(self) -> str:
        return f"the key set {self.path}"

    def read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                data = file.read(KEY_SET_BYTES_MAX + 1)
        except OSError as error:
            raise KeySetError(f"{self} cannot be read: {error.strerror}") from error
        return _not_too_large(data, self)


class KeySetUrl(NamedTuple):
    """A URL of the issuer. Redirects are not followed: they could lead away from TLS."""

    url: str
    refresh_seconds: float = 300.0

    def __str__(self) -> str:
        return f"the key set {self.url}"

    def read(self) -> bytes:
        deadline = time.monotonic() + _FETCH_SECONDS_MAX
        request = Request(self.url, headers={"Accept": "application/json"})
        data = b""
        try:
            with build_opener(_NoRedirects).open(request, timeout=_FETCH_SECONDS_MAX) as response:
                while len(data) <= KEY_SET_BYTES_MAX and (chunk := response.read1(_CHUNK_BYTES)):
                    data += chunk
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"it takes longer than {_FETCH_SECONDS_MAX:.0f} s")
        except HTTPError as error:
            error.close()
            raise KeySetError(f"{self} cannot be fetched: {error}") from error
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise KeySetError(f"{self} cannot be fetched: {reason}") from error
        return _not_too_large(data, self)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: the answer itself is then the error."""


def _not_too_large(data: bytes, source: KeySetSource) -> bytes:
    if len(data) > KEY_SET_BYTES_MAX:
        raise KeySetError(f"{source} has more than {KEY_SET_BYTES_MAX} bytes")
    return data
