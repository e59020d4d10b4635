"""The gRPC channel of a client: addresses, credentials, options, and the service config.

The config never holds a `timeout`: some gRPC versions cut the deadline short because of it. The
deadline is set per call by the clients.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import grpc
import grpc.aio

if TYPE_CHECKING:
    from meterhold._values import Tls

DEFAULT_TARGET = "127.0.0.1:7717"
DEFAULT_TIMEOUT_SECONDS = 10.0
DEFAULT_ATTEMPT_TIMEOUT_SECONDS = 3.0

TRIES_MAX = 4
FIRST_BACKOFF_SECONDS = 0.02
BACKOFF_SECONDS_MAX = 0.2
BACKOFF_MULTIPLIER = 2
RETRY_TOKENS_MAX = 20
RETRY_TOKEN_RATIO = 0.1

# `maxAttempts` counts the first attempt: four are three retries. gRPC lowers more than five to
# five. Every UNAVAILABLE takes a token from all calls to the target together, every success gives
# back `tokenRatio`, and nothing is retried with half of `maxTokens` or less: clients do not storm a
# server that is down.
#
# The empty name stands for every method. All may be retried: every request that changes something
# carries a key, or the server refuses to take it on a second time.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": TRIES_MAX,
                "initialBackoff": f"{FIRST_BACKOFF_SECONDS}s",
                "maxBackoff": f"{BACKOFF_SECONDS_MAX}s",
                "backoffMultiplier": BACKOFF_MULTIPLIER,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": RETRY_TOKENS_MAX, "tokenRatio": RETRY_TOKEN_RATIO},
}

# A page of 1000 entries with metadata and labels at their limits is about 10 MiB; gRPC's own limit
# is 4 MiB.
RECEIVED_MESSAGE_BYTES_MAX = 32 * 1024 * 1024

_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # A peer that has frozen is noticed by a ping; the server allows one in 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # A server that restarts is found again within a second; gRPC's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", RECEIVED_MESSAGE_BYTES_MAX),
    # Each client has a connection of its own. Those of one address would share it in a process, and
    # with it the wait after another's failure to connect, be it to a server that is gone.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", f"meterhold-python/{version('meterhold')}"),
)


ApiKey = str | Callable[[], str]
"""A key or a token, or what answers the newest one."""

Metadata = tuple[tuple[str, str], ...]

_log = logging.getLogger(__name__)


class Endpoint(NamedTuple):
    """Where to connect to and how to prove who calls."""

    target: str
    tls: Tls | None = None
    api_key: ApiKey | None = None

    def metadata(self) -> Callable[[], Metadata]:
        """What each call asks for what it carries."""
        if callable(self.api_key):
            return _Newest(self.api_key)
        always: Metadata = _bearer(self.api_key) if self.api_key else ()
        return lambda: always

    def open(self) -> grpc.Channel:
        """Open a channel. Connects when the first call is made."""
        if self.tls is None:
            return grpc.insecure_channel(self.target, options=_OPTIONS)
        return grpc.secure_channel(self.target, _credentials(self.tls), options=self._tls_options())

    def open_aio(self) -> grpc.aio.Channel:
        """Open a channel that belongs to the event loop that runs."""
        if self.tls is None:
            return grpc.aio.insecure_channel(self.target, options=_OPTIONS)
        return grpc.aio.secure_channel(
            self.target, _credentials(self.tls), options=self._tls_options()
        )

    def _tls_options(self) -> tuple[tuple[str, str | int], ...]:
        name = self.tls.server_name if self.tls else ""
        return (*_OPTIONS, ("grpc.ssl_target_name_override", name)) if name else _OPTIONS


class _Newest:
    """Carries what a function answers, which is asked before each call.

    A call must not fail otherwise than by an answer of the server, or nobody would know what became
    of it. So if the function fails, what it answered before is sent.
    """

    def __init__(self, answer: Callable[[], str]) -> None:
        self._answer = answer
        self._last: Metadata = ()

    def __call__(self) -> Metadata:
        try:
            self._last = _bearer(_checked_key(self._answer()))
        except Exception:
            _log.warning("api_key has failed; what it answered before is sent", exc_info=True)
        return self._last


def _bearer(api_key: str) -> Metadata:
    return (("authorization", f"Bearer {api_key}"),)


def _checked_key(api_key: str) -> str:
    if not api_key or not api_key.isascii() or not api_key.isprintable():
        raise ValueError("api_key must be printable ASCII, and not empty; None = no key")
    return api_key


def endpoint(target: str | Sequence[str], tls: Tls | None, api_key: ApiKey | None) -> Endpoint:
    """Check what a client is given; ValueError says what to give instead."""
    if isinstance(api_key, str):
        _checked_key(api_key)
    if api_key is not None and tls is None and not _is_local(target):
        raise ValueError(f"an api_key must not cross a network in plaintext ({target!r}): give tls")
    return Endpoint(_target(target), tls, api_key)


def _target(target: str | Sequence[str]) -> str:
    if isinstance(target, str):
        return target
    if not target:
        raise ValueError("target must name at least one address")
    if len(target) == 1:
        return target[0]
    versions = {_ip_version(address) for address in target}
    if versions not in ({4}, {6}):
        raise ValueError(
            "several targets must be literal IP addresses with ports, all IPv4 or all IPv6, not "
            f"{', '.join(target)}; for names, give one that resolves to all the addresses"
        )
    return f"ipv{versions.pop()}:{','.join(target)}"


def _ip_version(address: str) -> int | None:
    host, _, _ = address.rpartition(":")
    try:
        return ipaddress.ip_address(host.strip("[]")).version
    except ValueError:
        return None


def _is_local(target: str | Sequence[str]) -> bool:
    if not isinstance(target, str):
        return all(map(_is_local, target))
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = target.rpartition("/")[2]
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        tls.root_certificates, tls.private_key, tls.certificate_chain
    )


def checked_timeout_seconds(timeout_seconds: float) -> float:
    """Answer the timeout; ValueError unless it is a positive, finite number of seconds."""
    if not 0 < timeout_seconds < math.inf:
        raise ValueError(f"timeout_seconds must be positive and finite, not {timeout_seconds!r}")
    return timeout_seconds
