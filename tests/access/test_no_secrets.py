"""A secret is in no log, no error, no trace and no table, whatever goes wrong."""

from __future__ import annotations

from typing import Any

import grpc.aio
import psycopg
import pytest
import structlog.testing

from core.book import ALICE
from meterhold.v1 import metering_service_pb2 as metering
from meterhold_server.core.credentials import ApiKey, Scope
from meterhold_server.rpc import metering as metering_servicer
from meterhold_server.rpc.access import Guest
from meterhold_server.storage.tables import metadata
from rpc.answers import METHODS, call
from support.keys import bearer, make_key
from support.service import ServerProcess, service

BALANCE = metering.BalanceRequest(account=ALICE.account)
DEBIT = metering.DebitRequest(account=ALICE.account, amount_micros=5)


def attempts(key: ApiKey, unknown: ApiKey) -> list[tuple[tuple[str, str], ...]]:
    """The right key, and every way of sending it, or another, wrongly."""
    whole = key.text
    swapped = ApiKey(key.credential_id, unknown.secret)
    texts = [
        f"Bearer {whole}",
        f"bearer {whole}",
        whole,
        f"Basic {whole}",
        f"Bearer {whole}x",
        f"Bearer {key.secret}",
        f"Bearer {unknown.text}",
        f"Bearer {swapped.text}",
    ]
    return [(("authorization", text),) for text in texts] + [
        (("x-api-key", whole),),
        (("cookie", f"key={whole}"), *bearer(key)),
    ]


@pytest.mark.slow
async def test_no_log_and_no_answer_has_one(database_url: str) -> None:
    key = make_key(database_url, "default", Scope.READ, operations_per_second_max=1)
    unknown = ApiKey("a" * 16, key.secret[::-1])
    answers: list[Any] = []
    settings = {"auth": "keys", "log_calls": "all", "log_level": "debug"}
    with ServerProcess(database_url, **settings) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            for metadata_sent in attempts(key, unknown) * 4:
                for method, request in (("Balance", BALANCE), ("Debit", DEBIT)):
                    answers.append(await call(channel, METHODS[method], request, metadata_sent))
        server.terminate()
    codes = {getattr(answer, "code", "OK") for answer in answers}
    assert codes == {"OK", "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"}
    calls = [event for event in server.events if event["event"] == "call"]
    assert len(calls) == len(answers)
    assert {(each["namespace"], each["credential_id"]) for each in calls} == {
        ("default", key.credential_id),
        ("", ""),
    }
    for text in (repr(answers), repr(server.events)):
        assert key.secret not in text
        assert unknown.secret not in text
    assert key.credential_id in repr(answers), "what is public is told"


async def test_no_report_of_a_bug_has_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(database_url)

    async def broken(self: Any, request: Any, context: Any) -> None:
        raise LookupError(f"{self._service.caller} of {Guest(self._service)}")

    monkeypatch.setattr(metering_servicer.MeteringServicer, "Balance", broken)
    async with (
        service(database_url, auth="keys", log_calls="all") as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        with structlog.testing.capture_logs() as logs:
            told = await call(channel, METHODS["Balance"], BALANCE, bearer(key))
    assert "LookupError" in repr(logs)
    assert key.secret not in repr(logs) + repr(told)


def test_no_table_has_one(database_url: str) -> None:
    key = make_key(database_url)
    with psycopg.connect(database_url) as connection:
        found = [
            connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall()
            for name in metadata.tables
        ]
    assert key.credential_id in repr(found)
    assert key.secret not in repr(found)
    assert key.secret_hash.hex() in repr(found)
