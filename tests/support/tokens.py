"""An issuer of tokens for tests: its keys, its key set, and what it signs."""

from __future__ import annotations

import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

ISSUER = "https://issuer.example"
AUDIENCE = "meterhold"


class SigningKey:
    """A private key, and how it is published."""

    def __init__(self, key_id: str, algorithm: str = "ES256") -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        self.private: Any = _private_key(key_id, algorithm)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key as a member of a key set."""
        signer: Any = get_default_algorithms()[self.algorithm]
        public = signer.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.key_id, "alg": self.algorithm, "use": "sig"}

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        """A token with these claims. `headers` are beside its algorithm and key id."""
        return jwt.encode(
            claims, self.private, self.algorithm, headers={"kid": self.key_id, **headers}
        )

    def token(self, namespace: Any = "default", scope: Any = "read", **claims: Any) -> str:
        """A good token, but for what `claims` say. None takes a claim away."""
        return self.sign(claims_of(namespace, scope, **claims))


def claims_of(namespace: Any = "default", scope: Any = "read", **others: Any) -> dict[str, Any]:
    """The claims of a good token, but for `others`. None takes a claim away."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "gateway",
        "iat": now,
        "exp": now + 600,
        "meterhold_namespace": namespace,
        "scope": scope,
        **others,
    }
    return {name: value for name, value in claims.items() if value is not None}


def key_set(*keys: SigningKey, also: tuple[dict[str, Any], ...] = ()) -> bytes:
    """A JSON Web Key Set of these keys, and of members that are given as they are."""
    return json.dumps({"keys": [*(key.jwk for key in keys), *also]}).encode()


def publish(file: Path, *keys: SigningKey) -> Path:
    """Replace a file of keys as a rotation does: at once."""
    beside = file.with_suffix(".new")
    beside.write_bytes(key_set(*keys))
    return beside.rename(file)


def token_settings(file: Path, **others: Any) -> dict[str, Any]:
    """The settings of a server that takes tokens by the keys in a file."""
    return {
        "jwt_jwks_file": file,
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
        **others,
    }


def bearer_of(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that a caller sends with its token."""
    return (("authorization", f"Bearer {token}"),)


@cache
def _private_key(key_id: str, algorithm: str) -> Any:
    """Made once for each id: keys of RSA take long to find."""
    if algorithm.startswith(("RS", "PS")):
        return rsa.generate_private_key(65537, 1024 if key_id == "weak" else 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())
