"""What a token says of its holder, once its signature was found good (RFC 7519, RFC 9068).

A holder is a credential whose namespace and scopes are claims of the issuer, instead of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from meterhold_server.core.credentials import NAMESPACE_CHARACTERS_MAX, Scope

SUBJECT_CHARACTERS_MAX: Final = 255

_SECONDS_MAX: Final = 2**53
_CREDENTIAL_ID_PREFIX: Final = "jwt:"
_SCOPES: Final[Mapping[str, Scope]] = {scope.value: scope for scope in Scope}


class TokenTerms(NamedTuple):
    """Which tokens are taken, and which of their claims have the namespace and the scopes.

    `leeway_seconds` is how far the clock of the issuer may be from ours.
    """

    issuer: str
    audience: str
    namespace_claim: str = "meterhold_namespace"
    scope_claim: str = "scope"
    leeway_seconds: int = 30


class TokenHolder(NamedTuple):
    """Who holds a token, and what for. `end_seconds` is when it opens nothing any more."""

    namespace: str
    subject: str
    scopes: frozenset[Scope]
    end_seconds: float

    @property
    def credential_id(self) -> str:
        """How logs, errors and the audit log call the holder, with every token of the issuer."""
        return _CREDENTIAL_ID_PREFIX + self.subject


class TokenRefusedError(Exception):
    """A token that opens nothing. The message says why, and has nothing of its contents."""


def token_holder(claims: Mapping[str, Any], terms: TokenTerms, now_seconds: float) -> TokenHolder:
    """The holder of a token with these claims. Raises TokenRefusedError.

    `now_seconds` and the times of a token are seconds since 1970.
    """
    end_seconds = _seconds(claims, "exp", required=True) + terms.leeway_seconds
    if now_seconds >= end_seconds:
        _refuse("the token has expired: send a new one")
    for claim in ("nbf", "iat"):
        if _seconds(claims, claim) > now_seconds + terms.leeway_seconds:
            _refuse(f"the token is not valid yet, by its claim `{claim}`: compare the clocks")
    if claims.get("iss") != terms.issuer:
        _refuse(f"the token's claim `iss` is not the issuer {terms.issuer!r}")
    if terms.audience not in _audiences(claims):
        _refuse(f"the token's claim `aud` does not name the audience {terms.audience!r}")
    return TokenHolder(
        _text(claims, terms.namespace_claim, NAMESPACE_CHARACTERS_MAX),
        _text(claims, "sub", SUBJECT_CHARACTERS_MAX),
        _scopes(claims, terms.scope_claim),
        end_seconds,
    )


def _seconds(claims: Mapping[str, Any], claim: str, *, required: bool = False) -> float:
    """A time, or 0 if there is none and none is required."""
    value: Any = claims.get(claim)
    if value is None and not required:
        return 0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # Neither NaN nor infinity is within the bounds; both would make a token that never ends.
    if not is_number or not 0 <= value < _SECONDS_MAX:
        _refuse(f"the token's claim `{claim}` is not a time, in seconds since 1970")
    return float(value)


def _audiences(claims: Mapping[str, Any]) -> list[Any]:
    audience = claims.get("aud")
    return audience if isinstance(audience, list) else [audience]


def _text(claims: Mapping[str, Any], claim: str, characters_max: int) -> str:
    value = claims.get(claim)
    if not isinstance(value, str) or not 0 < len(value) <= characters_max:
        _refuse(f"the token's claim `{claim}` is not a text of 1 to {characters_max} characters")
    if not value.isprintable():
        _refuse(f"the token's claim `{claim}` has characters that are not printable")
    return value


def _scopes(claims: Mapping[str, Any], claim: str) -> frozenset[Scope]:
    """The scopes among the words of a claim. Other words are for other services."""
    value = claims.get(claim)
    words = value.split(" ") if isinstance(value, str) else value or []
    if not isinstance(words, list):
        _refuse(f"the token's claim `{claim}` is neither a text nor a list of scopes")
    return frozenset(_SCOPES[word] for word in words if isinstance(word, str) and word in _SCOPES)


def _refuse(problem: str) -> NoReturn:
    raise TokenRefusedError(problem)
