"""Signatures of tokens, checked with PyJWT. It is the extra `jwt`: import this where it is needed.

Only what signs with a private key is known here. Whoever has the key set of an issuer can check
tokens, and must not be able to make any.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NoReturn

from jwt import PyJWK, PyJWTError
from jwt.api_jws import PyJWS
from jwt.exceptions import InvalidSignatureError

from meterhold_server.core.tokens import TokenRefusedError
from meterhold_server.rpc.key_sets import ALGORITHMS_OF_CURVES, RSA_ALGORITHMS, KeySetError

TOKEN_CHARACTERS_MAX: Final = 8 * 1024

_RSA_BITS_MIN: Final = 2048

_MALFORMED: Final = "the authorization is neither a whole API key, `mh_…`, nor a whole token (JWT)"
_UNKNOWN_KEY: Final = "the token's key, its `kid` and `alg`, is not in the issuer's key set"


class UnknownKeyError(TokenRefusedError):
    """A token whose key is not in the set. It may be in a newer one."""


class PublicKeys:
    """The keys of a key set, by their id and the algorithm that they are used with."""

    def __init__(self, keys: Mapping[tuple[str, str], PyJWK], algorithms: frozenset[str]) -> None:
        self._keys = keys
        self._algorithms = algorithms
        self._jws = PyJWS(algorithms=sorted(algorithms))

    @classmethod
    def parse(cls, data: bytes, algorithms: Iterable[str]) -> PublicKeys:
        """The keys in a JSON Web Key Set that are for these algorithms; others are passed over.

        Raises KeySetError if there are none, two of one id, or one that must be kept secret.
        """
        allowed = frozenset(algorithms)
        keys: dict[tuple[str, str], PyJWK] = {}
        for jwk in _members(data):
            if "d" in jwk:
                raise KeySetError("the key set has a private key: publish the public ones alone")
            key_id = jwk.get("kid", "")
            for algorithm in _algorithms(jwk):
                key = _usable(jwk, algorithm) if algorithm in allowed else None
                if key is None:
                    continue
                if (key_id, algorithm) in keys:
                    raise KeySetError(f"the key set has two keys {key_id!r} for {algorithm}")
                keys[key_id, algorithm] = key
        if not keys:
            raise KeySetError(f"the key set has no key for {', '.join(sorted(allowed))}")
        return cls(keys, allowed)

    def claims(self, token: str) -> dict[str, Any]:
        """What a token with a good signature says. Raises TokenRefusedError."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            _refuse(f"the token has more than {TOKEN_CHARACTERS_MAX} characters")
        try:
            key = self._key_of(self._jws.get_unverified_header(token))
            payload = self._jws.decode(token, key, algorithms=[key.algorithm_name])
        except InvalidSignatureError:
            _refuse("the token's signature is not by the key that it names")
        except (PyJWTError, ValueError, RecursionError):
            _refuse(_MALFORMED)
        return _object(payload)

    def _key_of(self, header: Mapping[str, Any]) -> PyJWK:
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            allowed = ", ".join(sorted(self._algorithms))
            _refuse(f"the token's algorithm is not allowed here; allowed are {allowed}")
        key = self._keys.get((header.get("kid", ""), algorithm))
        if key is None:
            raise UnknownKeyError(_UNKNOWN_KEY)
        return key


def _members(data: bytes) -> Iterator[dict[str, Any]]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise KeySetError("the key set is not JSON") from error
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise KeySetError("the key set is not an object with a list of `keys`")
    return (key for key in keys if isinstance(key, dict) and isinstance(key.get("kid", ""), str))


def _algorithms(jwk: Mapping[str, Any]) -> tuple[str, ...]:
    """What a key may be used with: the one that it names, else all that fit it."""
    if jwk.get("use", "sig") != "sig":
        return ()
    of_curve = ALGORITHMS_OF_CURVES.get(str(jwk.get("crv")), "")
    fitting = RSA_ALGORITHMS if jwk.get("kty") == "RSA" else (of_curve,)
    named = jwk.get("alg")
    return fitting if named is None else tuple(each for each in fitting if each == named)


def _usable(jwk: dict[str, Any], algorithm: str) -> PyJWK | None:
    try:
        key = PyJWK(jwk, algorithm)
    except (PyJWTError, ValueError):
        return None
    is_weak = jwk["kty"] == "RSA" and key.key.key_size < _RSA_BITS_MIN
    return None if is_weak else key


def _object(payload: bytes) -> dict[str, Any]:
    try:
        claims = json.loads(payload)
    except (ValueError, RecursionError):
        claims = None
    return claims if isinstance(claims, dict) else _refuse(_MALFORMED)


def _refuse(problem: str) -> NoReturn:
    # What led here may have parts of the token in it, and must not reach a log.
    raise TokenRefusedError(problem) from None
