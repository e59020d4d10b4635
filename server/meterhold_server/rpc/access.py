"""Who may come in: the guests of a server, and what each of them may do."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from meterhold_server.core.credentials import Scope
from meterhold_server.core.token_bucket import TokenBucket
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.service import Context, Service


class Guest(NamedTuple):
    """A caller who was let in: the service as it is for them, and how often they may come."""

    service: Service
    bucket: TokenBucket | None = None

    def admit(self, scope: Scope | None, operation_count: int) -> None:
        """Raise Refusal if the call needs a scope that is missing, or comes too soon."""
        if scope is not None:
            self.service.caller.require(scope)
        if self.bucket is not None:
            self._take(self.bucket, operation_count)

    def _take(self, bucket: TokenBucket, operation_count: int) -> None:
        wait_seconds = bucket.take(operation_count, time.monotonic())
        if wait_seconds:
            details = {
                "operations_per_second_max": bucket.per_second,
                "credential_id": self.service.caller.credential_id,
            }
            raise Refusal("RATE_LIMITED", details, retry_after_seconds=wait_seconds)


class Access(Protocol):
    """Tells guests by what they bring."""

    async def guest(self, context: Context) -> Guest:
        """Who calls. Raises Refusal CREDENTIAL_INVALID, or Failure if that cannot be told now."""
        ...


class OpenAccess:
    """Lets everybody in, as one and the same guest with every scope."""

    def __init__(self, service: Service) -> None:
        self._guest = Guest(service)

    async def guest(self, context: Context) -> Guest:
        return self._guest
