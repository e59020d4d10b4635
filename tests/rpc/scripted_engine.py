"""A real server in front of an engine that carries nothing out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc.aio

from meterhold_server.batching.failures import Failure
from meterhold_server.core.model import Rules
from meterhold_server.core.operations import Operation
from meterhold_server.core.outcomes import Outcome
from meterhold_server.rpc.access import Guest, OpenAccess
from meterhold_server.rpc.errors import Refusal
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.server import RpcServer
from meterhold_server.rpc.service import Context, Service

RETRYING: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.02s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"],
            },
        }
    ]
}
"""Every failure is retried once, so that the caller gets what the second attempt is told."""


class ScriptedEngine:
    """Carries nothing out: answers what a test has prepared, one attempt after the other."""

    def __init__(self, answers: Iterable[Failure | Outcome]) -> None:
        self._answers = iter(answers)

    def submit(self, operation: Operation, deadline: float) -> asyncio.Future[Outcome]:
        answer = next(self._answers)
        if isinstance(answer, Failure):
            raise answer
        future = asyncio.get_running_loop().create_future()
        future.set_result(answer)
        return future

    async def submit_many(
        self, operations: Sequence[Operation], deadline: float, order: int | None
    ) -> list[Failure | Outcome]:
        return [next(self._answers) for _ in operations]


class ClosedAccess:
    """Lets nobody in."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal

    async def guest(self, context: Context) -> Guest:
        raise self._refusal


@asynccontextmanager
async def scripted(
    *answers: Failure | Outcome, retrying: bool = False, refusal: Refusal | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a real server in front of a ScriptedEngine. `refusal` lets nobody in."""
    engine: Any = ScriptedEngine(answers)
    no_reader: Any = None
    service = Service(engine, no_reader, Caller("default", Rules()), *[no_reader] * 4)
    access = ClosedAccess(refusal) if refusal else OpenAccess(service)
    server = RpcServer(access, reflect=False, log_calls="none", share_port=False)
    port = server.listen("127.0.0.1:0", None)
    await server.start()
    options = [("grpc.service_config", json.dumps(RETRYING))] if retrying else []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        yield channel
    await server.stop(notice_seconds=0, grace_seconds=1)
