"""Which signatures are taken for good, and which key sets can be used."""

from __future__ import annotations

import base64
import hmac
import json
import traceback
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from meterhold_server.core.tokens import TokenRefusedError
from meterhold_server.rpc.key_sets import KeySetError
from meterhold_server.rpc.signatures import TOKEN_CHARACTERS_MAX, PublicKeys
from support.tokens import SigningKey, claims_of, key_set

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
KEY, OTHER = SigningKey("first"), SigningKey("second")
RSA = SigningKey("rsa", "RS256")
KEYS = PublicKeys.parse(key_set(KEY, RSA), ALGORITHMS)

MALFORMED = "neither a whole API key, `mh_…`, nor a whole token (JWT)"
SIGNATURE = "the token's signature is not by the key that it names"
UNKNOWN = "is not in the issuer's key set"
NOT_ALLOWED = "algorithm is not allowed here; allowed are ES256, EdDSA, PS256, RS256"


def part(value: object) -> str:
    return encoded(json.dumps(value).encode())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def hmac_by_the_public_key() -> str:
    """The oldest trick: whoever has the public key could make such a token."""
    public = RSA.private.public_key()
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signed = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(claims_of())}"
    return f"{signed}.{encoded(hmac.digest(secret, signed.encode(), 'sha256'))}"


def altered(token: str) -> str:
    header, _, signature = token.split(".")
    return ".".join((header, part(claims_of("another")), signature))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_signature(algorithm: str) -> None:
    key = SigningKey(f"a-{algorithm}", algorithm)
    claims = claims_of()
    assert PublicKeys.parse(key_set(key), ALGORITHMS).claims(key.sign(claims)) == claims


BAD = {
    "another key of that name": (OTHER.sign(claims_of(), kid="first"), SIGNATURE),
    "other claims": (altered(KEY.token()), SIGNATURE),
    "no signature": (KEY.token().rpartition(".")[0] + ".", SIGNATURE),
    "a key of its own in it": (OTHER.sign(claims_of(), kid="first", jwk=OTHER.jwk), SIGNATURE),
    "a key that is not known": (OTHER.token(), UNKNOWN),
    "no name of a key": (KEY.sign(claims_of(), kid=""), UNKNOWN),
    "the algorithm of another key": (RSA.sign(claims_of(), kid="first"), UNKNOWN),
    "the algorithm none": (
        f"{part({'alg': 'none', 'kid': 'first'})}.{part(claims_of())}.",
        NOT_ALLOWED,
    ),
    "HMAC by the public key": (hmac_by_the_public_key(), NOT_ALLOWED),
    "an algorithm that is not a text": (f"{part({'alg': ['ES256']})}.{part({})}.AA", NOT_ALLOWED),
    "no algorithm": (f"{part({'kid': 'first'})}.{part({})}.AA", NOT_ALLOWED),
    "a name that is not a text": (f"{part({'alg': 'ES256', 'kid': 7})}.{part({})}.AA", MALFORMED),
    "an extension that is critical": (KEY.sign(claims_of(), crit=["b64"], b64=True), MALFORMED),
    "nothing": ("", MALFORMED),
    "one part": ("abc", MALFORMED),
    "two parts": ("abc.abc", MALFORMED),
    "five parts, encrypted": ("a.b.c.d.e", MALFORMED),
    "not base64": ("!!!.???.***", MALFORMED),
    "not ASCII": ("ä.ö.ü", MALFORMED),
    "not JSON": ("AAAA.AAAA.AAAA", MALFORMED),
    "very deep": (f"{encoded(b'[' * 3000)}.AA.AA", MALFORMED),
    "huge": (KEY.token(more="x" * TOKEN_CHARACTERS_MAX), "more than 8192 characters"),
}


@pytest.mark.parametrize(("token", "problem"), BAD.values(), ids=BAD.keys())
def test_what_is_refused(token: str, problem: str) -> None:
    with pytest.raises(TokenRefusedError) as refused:
        KEYS.claims(token)
    assert problem in str(refused.value)
    told = "".join(traceback.format_exception(refused.value))
    assert "During handling" not in told, "what led here may have parts of the token in it"


def test_claims_that_are_no_object_are_refused() -> None:
    signed = jwt.api_jws.encode(b"[1]", KEY.private, "ES256", headers={"kid": "first"})
    with pytest.raises(TokenRefusedError, match="nor a whole token"):
        KEYS.claims(signed)


def test_a_key_without_a_name_is_for_tokens_that_name_none() -> None:
    nameless = {name: value for name, value in KEY.jwk.items() if name not in ("kid", "alg")}
    keys = PublicKeys.parse(key_set(RSA, also=(nameless,)), ALGORITHMS)
    token = jwt.encode(claims_of(), KEY.private, "ES256")
    assert keys.claims(token)["sub"] == "gateway"
    with pytest.raises(TokenRefusedError, match="not in the issuer's key set"):
        keys.claims(jwt.encode(claims_of(), RSA.private, "RS256"))


def test_a_key_that_names_no_algorithm_is_for_all_that_fit_it() -> None:
    jwk = {name: value for name, value in RSA.jwk.items() if name != "alg"}
    keys = PublicKeys.parse(key_set(also=(jwk,)), ALGORITHMS)
    for algorithm in ("RS256", "PS256"):
        token = jwt.encode(claims_of(), RSA.private, algorithm, headers={"kid": "rsa"})
        assert keys.claims(token)["sub"] == "gateway"


def test_a_key_is_not_used_with_another_algorithm_than_it_names() -> None:
    token = jwt.encode(claims_of(), RSA.private, "PS256", headers={"kid": "rsa"})
    with pytest.raises(TokenRefusedError, match="not in the issuer's key set"):
        KEYS.claims(token)


@pytest.mark.parametrize(
    "member",
    [
        {**KEY.jwk, "use": "enc"},
        {**KEY.jwk, "crv": "secp256k1"},
        {**KEY.jwk, "x": 5},
        {**KEY.jwk, "kty": "oct", "k": "c2VjcmV0"},
        {**KEY.jwk, "kty": "new"},
        {**KEY.jwk, "kid": 7},
        {"kty": "RSA", "kid": "first"},
        SigningKey("weak", "RS256").jwk,
        "not an object",
        {},
    ],
    ids=["encrypts", "curve", "number", "secret", "kind", "name", "empty", "weak", "text", "none"],
)
def test_members_that_cannot_be_used_are_passed_over(member: Any) -> None:
    keys = PublicKeys.parse(key_set(RSA, also=(member,)), ALGORITHMS)
    assert keys.claims(RSA.token())["sub"] == "gateway"
    with pytest.raises(KeySetError, match="has no key for ES256, EdDSA, PS256, RS256"):
        PublicKeys.parse(key_set(also=(member,)), ALGORITHMS)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "not an object with a list of `keys`"),
        (b'{"keys": {}}', "not an object with a list of `keys`"),
        (b'{"keys": []}', "has no key for"),
        (key_set(KEY, KEY), "two keys 'first' for ES256"),
        (key_set(also=(ECAlgorithm.to_jwk(KEY.private, as_dict=True),)), "has a private key"),
        (key_set(also=(RSAAlgorithm.to_jwk(RSA.private, as_dict=True),)), "has a private key"),
    ],
)
def test_key_sets_that_cannot_be_used(data: bytes, problem: str) -> None:
    with pytest.raises(KeySetError, match=problem):
        PublicKeys.parse(data, ALGORITHMS)


def test_only_what_is_allowed_is_taken() -> None:
    keys = PublicKeys.parse(key_set(KEY, RSA), ["ES256"])
    assert keys.claims(KEY.token())["sub"] == "gateway"
    with pytest.raises(TokenRefusedError, match="allowed are ES256"):
        keys.claims(RSA.token())
