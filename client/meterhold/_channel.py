"""The gRPC channel of a client: options and the service config with the retry policy.

The config never holds a `timeout`: some gRPC versions cut the deadline short because of it. The
deadline is set per call by the clients.
"""

from __future__ import annotations

import json
import math

import grpc
import grpc.aio

DEFAULT_TARGET = "127.0.0.1:7717"
DEFAULT_TIMEOUT_SECONDS = 10.0

# `maxAttempts` counts the first attempt: four are three retries. gRPC lowers more than five to
# five. Every UNAVAILABLE takes a token from all calls to the target together, every success gives
# back `tokenRatio`, and nothing is retried with half of `maxTokens` or less: clients do not storm a
# server that is down.
#
# The empty name stands for every method. All may be retried, because every request that changes
# something carries a key by the time it is sent.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}

# A page of 1000 entries with metadata and labels at their limits is about 10 MiB; gRPC's own limit
# is 4 MiB.
RECEIVED_MESSAGE_BYTES_MAX = 32 * 1024 * 1024

_OPTIONS: list[tuple[str, str | int]] = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", RECEIVED_MESSAGE_BYTES_MAX),
]


def open_channel(target: str) -> grpc.Channel:
    """Open a plaintext channel. Connects when the first call is made."""
    return grpc.insecure_channel(target, options=_OPTIONS)


def open_aio_channel(target: str) -> grpc.aio.Channel:
    """Open a plaintext channel bound to the running event loop."""
    return grpc.aio.insecure_channel(target, options=_OPTIONS)


def checked_timeout_seconds(timeout_seconds: float) -> float:
    """Answer the timeout; ValueError unless it is a positive, finite number of seconds."""
    if not 0 < timeout_seconds < math.inf:
        raise ValueError(f"timeout_seconds must be positive and finite, not {timeout_seconds!r}")
    return timeout_seconds
