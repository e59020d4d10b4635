"""Reports and filters in memory answer as the real service does, to the last field."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
import pytest
from google.protobuf.message import Message

import meterhold
import meterhold.testing
from meterhold.v1 import ledger_service_pb2 as pb
from meterhold.v1 import types_pb2

from .calls import Caller
from .conftest import SetClock

_START: Final = datetime(2026, 1, 30, 22, tzinfo=UTC)
_CALLS: Final = 150
_READS: Final = 60

_GROUPS: Final = [
    pb.SpendGroup(label="run"),
    pb.SpendGroup(label="nobody's"),
    *(pb.SpendGroup(dimension=number) for number in pb.SpendDimension.values() if number),
]


@pytest.mark.slow
async def test_reports_and_filtered_pages_are_those_of_the_real_service(
    real: meterhold.AsyncClient, set_clock: SetClock
) -> None:
    memory = meterhold.testing.InMemory(now=_START)
    set_clock(memory.now)
    chance = random.Random(random.getrandbits(64))
    twins = (real, memory.async_client())
    caller = Caller(chance, "round", memory.now)
    for number in range(_CALLS):
        if (pause := caller.pause()) or number % 10 == 0:
            memory.advance(pause or timedelta(hours=9))
            set_clock(memory.now)
        asked = caller.call()
        for client in twins:
            await _ask(client, asked.method, asked.arguments)
    answered = 0
    for _ in range(_READS):
        method, request = _read(chance, memory.now)
        expected = await _read_all(real, method, request)
        assert await _read_all(twins[1], method, request) == expected, request
        answered += isinstance(expected[0], Message)
    assert answered > _READS // 2


def _read(chance: random.Random, now: datetime) -> tuple[str, Any]:
    """A call of LedgerService, at random."""
    labels = chance.choice([{}, {}, {"run": "r1"}, {"run": "r1", "node": "n-7"}, {"run": "?"}])
    account = chance.choice(["round-alice", "round-alice", "round-bob", "nobody"])
    request: Any = chance.choice(
        [
            pb.GetStatsRequest(unit=chance.choice(["", "tokens"])),
            pb.GetEntryRequest(account=account, refund_key=f"round-{chance.randrange(8)}"),
            pb.ListEntriesRequest(
                account=account,
                labels=labels,
                kinds=chance.sample(types_pb2.EntryKind.values()[1:], chance.randrange(4)),
                page_size=chance.choice([0, 1, 3]),
                oldest_first=chance.choice([True, False]),
            ),
            pb.SpendReportRequest(
                account=chance.choice([account, ""]),
                labels=labels,
                group_by=chance.sample(_GROUPS, chance.randrange(4)),
                row_limit=chance.choice([0, 1, 1000]),
            ),
        ]
    )
    for name in ("start_time", "end_time"):
        if name in request.DESCRIPTOR.fields_by_name and chance.random() < 0.4:
            past = timedelta(hours=chance.randrange(24 * 12))
            getattr(request, name).FromDatetime(now - past)
    return type(request).__name__.removesuffix("Request"), request


async def _ask(client: meterhold.AsyncClient, method: str, arguments: dict[str, Any]) -> None:
    """Whatever comes of it: another test looks at that."""
    try:
        answer = getattr(client, method)(**arguments)
        if hasattr(answer, "__aiter__"):
            _ = [item async for item in answer]
        else:
            await answer
    except meterhold.MeterholdError:
        return


async def _read_all(client: meterhold.AsyncClient, method: str, request: Any) -> list[Any]:
    """The answer, or all pages with their tokens, or the refusal."""
    asked, pages = type(request)(), list[Any]()
    asked.CopyFrom(request)
    while True:
        try:
            page = await getattr(client._calls.ledger, method)(asked, timeout=10)
        except grpc.aio.AioRpcError as error:
            return [error.code(), error.details()]
        pages.append(page)
        token = getattr(page, "next_page_token", "")
        if not token:
            return pages
        asked.page_token = token
