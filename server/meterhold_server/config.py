"""Settings: from flags, then the environment (METERHOLD_…), then these defaults."""

from __future__ import annotations

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from meterhold_server.batching.lane import LaneLimits
from meterhold_server.core.credentials import NAMESPACE_CHARACTERS_MAX
from meterhold_server.core.model import Rules
from meterhold_server.core.tokens import TokenTerms
from meterhold_server.rpc.handlers import LogCalls
from meterhold_server.rpc.key_sets import ALGORITHMS, KeySetFile, KeySetSource, KeySetUrl

PREFIX = "METERHOLD_"

_WORKERS_DEFAULT_MAX = 4


LogFormat = Literal["auto", "json", "console"]
"""JSON lines for programs, `console` for people; `auto` is `console` on a terminal, else JSON."""


Auth = Literal["auto", "keys", "none"]
"""`keys`: every caller proves a credential. `none`: nobody does, on a loopback address alone.

`auto` is `none` on a loopback address without TLS and without tokens, else `keys`.
"""


class CommandSettings(BaseSettings):
    """What every command can be told: how to log."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        env_ignore_empty=True,
        extra="ignore",
    )

    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    log_format: LogFormat = "auto"
    print_config: Annotated[bool, Field(description="print the settings and exit")] = False

    def printed(self) -> str:
        """The settings as environment variables, without secrets."""
        shown = self.model_dump(mode="json", exclude={"print_config"})
        lines = (f"{PREFIX}{name.upper()}={_text(value)}" for name, value in shown.items())
        return "\n".join(lines)


class DatabaseSettings(CommandSettings):
    """Which database."""

    database_url: Annotated[
        SecretStr | None,
        Field(description="libpq URL of a PostgreSQL 15 to 18; without one, an embedded server"),
    ] = None
    data_directory: Annotated[
        Path | None, Field(description="where the embedded PostgreSQL keeps its data")
    ] = None
    allow_unsafe_database: Annotated[
        bool, Field(description="accept a database that may lose commits in a crash; for tests")
    ] = False


class NamespaceSettings(DatabaseSettings):
    """Whose it is."""

    namespace: Annotated[
        str,
        Field(
            min_length=1,
            max_length=NAMESPACE_CHARACTERS_MAX,
            description="the tenant that it belongs to",
        ),
    ] = "default"


class EngineSettings(DatabaseSettings):
    """The lanes and the rules."""

    namespace: Annotated[
        str,
        Field(
            min_length=1,
            max_length=NAMESPACE_CHARACTERS_MAX,
            description="the tenant, where no credential tells",
        ),
    ] = "default"
    lanes: Annotated[PositiveInt, Field(le=64, description="writers in a process")] = 2
    batch_operations_max: Annotated[PositiveInt, Field(le=10_000)] = 256
    queue_operations_max: PositiveInt = 4096
    queue_wait_seconds_max: PositiveFloat = 2.0
    ttl_default_seconds: PositiveInt = 900
    ttl_max_seconds: PositiveInt = 604_800
    settle_grace_seconds: PositiveInt = 86_400
    sweep_interval_seconds: PositiveFloat = 0.5

    @property
    def rules(self) -> Rules:
        return Rules(
            timedelta(seconds=self.ttl_default_seconds),
            timedelta(seconds=self.ttl_max_seconds),
            timedelta(seconds=self.settle_grace_seconds),
        )

    @property
    def lane_limits(self) -> LaneLimits:
        return LaneLimits(
            batch_operations_max=self.batch_operations_max,
            queue_operations_max=self.queue_operations_max,
            queue_wait_seconds_max=self.queue_wait_seconds_max,
        )

    @model_validator(mode="after")
    def _ttl_in_order(self) -> EngineSettings:
        if self.ttl_default_seconds > self.ttl_max_seconds:
            raise ValueError("ttl_default_seconds is more than ttl_max_seconds")
        return self


def workers_default() -> int:
    """How many processes pay: each can keep a core busy, and the database wants some, too."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, _WORKERS_DEFAULT_MAX)


class TokenSettings(EngineSettings):
    """Callers with tokens (JWT)."""

    jwt_jwks_file: Annotated[
        Path | None, Field(description="take tokens, by the keys in this file (JSON Web Key Set)")
    ] = None
    jwt_jwks_url: Annotated[
        str | None, Field(description="take tokens, by the keys at this https URL")
    ] = None
    jwt_issuer: Annotated[
        str | None, Field(min_length=1, description="the claim `iss` of every token")
    ] = None
    jwt_audience: Annotated[
        str | None, Field(min_length=1, description="what the claim `aud` must name")
    ] = None
    jwt_namespace_claim: Annotated[
        str, Field(min_length=1, description="the claim that names the namespace")
    ] = "meterhold_namespace"
    jwt_scope_claim: Annotated[
        str, Field(min_length=1, description="the claim with meter, grant, read, admin")
    ] = "scope"
    jwt_algorithms: Annotated[
        str, Field(description=f"what tokens may be signed with: {','.join(sorted(ALGORITHMS))}")
    ] = "RS256,PS256,ES256,EdDSA"
    jwt_leeway_seconds: Annotated[
        int, Field(ge=0, le=300, description="how far the issuer's clock may be from ours")
    ] = 30
    jwt_operations_per_second_max: Annotated[
        PositiveInt | None,
        Field(le=1_000_000, description="of each subject, in each server process; none = any"),
    ] = None

    @property
    def token_source(self) -> KeySetSource | None:
        """Where the keys of tokens are; None if no tokens are taken."""
        if self.jwt_jwks_file is not None:
            return KeySetFile(self.jwt_jwks_file)
        return KeySetUrl(self.jwt_jwks_url) if self.jwt_jwks_url is not None else None

    @property
    def token_terms(self) -> TokenTerms:
        """Which tokens are taken, if any are."""
        assert self.jwt_issuer is not None
        assert self.jwt_audience is not None
        return TokenTerms(
            self.jwt_issuer,
            self.jwt_audience,
            self.jwt_namespace_claim,
            self.jwt_scope_claim,
            self.jwt_leeway_seconds,
        )

    @field_validator("jwt_algorithms")
    @classmethod
    def _known_algorithms(cls, names: str) -> str:
        if unknown := sorted(set(names.split(",")) - ALGORITHMS):
            raise ValueError(
                f"{unknown[0]!r} is not one of {', '.join(sorted(ALGORITHMS))}: what is not signed"
                " with a private key is not taken"
            )
        return names

    @field_validator("jwt_jwks_url")
    @classmethod
    def _safe_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        local = parts.scheme == "http" and _is_loopback_host(parts.hostname or "")
        if not parts.hostname or (parts.scheme != "https" and not local):
            raise ValueError("must be an https URL; http is for loopback addresses alone")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not have a user or a password: it is shown in logs")
        return url

    @model_validator(mode="after")
    def _tokens_are_complete(self) -> TokenSettings:
        if self.jwt_jwks_file is not None and self.jwt_jwks_url is not None:
            raise ValueError("jwt_jwks_file and jwt_jwks_url are both set: one has the keys")
        named = self.jwt_issuer is not None, self.jwt_audience is not None
        if self.token_source is not None and not all(named):
            raise ValueError("tokens need jwt_issuer and jwt_audience, which each must name")
        if self.token_source is None and any(named):
            raise ValueError("tokens need the keys of their issuer: jwt_jwks_file or jwt_jwks_url")
        return self


class ServeSettings(TokenSettings):
    """The server."""

    address: Annotated[
        str, Field(description="host:port to listen on; port 0 takes a free one")
    ] = "127.0.0.1:7717"
    workers: Annotated[
        PositiveInt,
        Field(
            le=256,
            default_factory=workers_default,
            description=f"server processes on the port; one a core, at most {_WORKERS_DEFAULT_MAX}",
        ),
    ]
    sweep: Annotated[bool, Field(description="sweep in this server")] = True
    summarize: Annotated[
        bool, Field(description="sum up charges in this server, for reports of large accounts")
    ] = True
    summarize_interval_seconds: PositiveFloat = 300.0
    reflection: Annotated[bool, Field(description="serve gRPC reflection")] = True
    log_calls: Annotated[LogCalls, Field(description="which finished calls to log")] = "failed"
    auth: Annotated[
        Auth,
        Field(description="`keys` = only callers with a credential; `none` = on loopback only"),
    ] = "auto"
    tls_certificate: Annotated[Path | None, Field(description="PEM file, the whole chain")] = None
    tls_private_key: Annotated[Path | None, Field(description="PEM file")] = None
    tls_client_roots: Annotated[
        Path | None, Field(description="PEM file; every client must then have a certificate by it")
    ] = None
    allow_plaintext: Annotated[
        bool, Field(description="listen without TLS on an address that is not loopback")
    ] = False
    drain_notice_seconds: Annotated[
        float, Field(ge=0, description="from NOT_SERVING to refusing calls, for balancers")
    ] = 0.0
    drain_grace_seconds: Annotated[PositiveFloat, Field(description="for running calls")] = 20.0

    @property
    def asks_for_credentials(self) -> bool:
        """Whether a caller has to prove a credential."""
        if self.auth == "auto":
            is_private = self.tls_certificate is None and _is_loopback(self.address)
            return self.token_source is not None or not is_private
        return self.auth == "keys"

    @model_validator(mode="after")
    def _closed_by_default(self) -> ServeSettings:
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("tls_certificate and tls_private_key go together")
        if self.tls_client_roots and not self.tls_certificate:
            raise ValueError("tls_client_roots needs TLS: set tls_certificate and tls_private_key")
        if self.auth == "none" and not _is_loopback(self.address):
            raise ValueError(
                f"auth is none, and address {self.address} is not loopback: anybody could come in; "
                "use auth=keys, and make a key with `meterhold-server keys create`"
            )
        if self.auth == "none" and self.token_source is not None:
            raise ValueError("auth is none, so that nobody is asked for a token: set auth=keys")
        if self.tls_certificate or self.allow_plaintext or _is_loopback(self.address):
            return self
        raise ValueError(
            f"address {self.address} is not loopback and there is no TLS: set tls_certificate and "
            "tls_private_key, or allow_plaintext if the network is trusted"
        )


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of host:port or [host]:port. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.strip("[]"), int(port)


def _is_loopback(address: str) -> bool:
    host, _ = host_and_port(address)
    return _is_loopback_host(host)


def _is_loopback_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
