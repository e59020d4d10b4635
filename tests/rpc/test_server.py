"""The server as its operators meet it: health, draining, processes, TLS, and deadlines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pydantic import ValidationError

import meterhold
from meterhold import DebitStatus, MeterholdError, OutcomeUnknown
from meterhold.v1 import metering_service_pb2
from meterhold_server import app
from meterhold_server.config import ServeSettings
from meterhold_server.core.model import AccountKey
from meterhold_server.storage.verify import verify
from rpc.answers import METHODS, call, refusal
from support.certificates import needs_openssl, self_signed
from support.engines import Observer
from support.keys import make_key
from support.service import ServerProcess, service
from support.waiting import until

SERVING = health_pb2.HealthCheckResponse.ServingStatus.Value("SERVING")
NOT_SERVING = health_pb2.HealthCheckResponse.ServingStatus.Value("NOT_SERVING")
NAMES = ("meterhold.v1.MeteringService", "meterhold.v1.LedgerService")


ALICE = AccountKey("default", "alice", "credits")


@pytest.fixture
def observer(database_url: str) -> Iterator[Observer]:
    """Keeps an account from the server, so that calls for it wait as long as a test needs."""
    observer = Observer(database_url)
    yield observer
    observer.close()


async def test_health_says_serving_until_the_server_drains(database_url: str) -> None:
    stopping = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    settings = ServeSettings(address="127.0.0.1:0", drain_notice_seconds=0.3)
    serving = asyncio.create_task(
        app.serve(settings, database_url, stopping, announce=address.set_result)
    )
    async with grpc.aio.insecure_channel(await address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", *NAMES):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (await health.Check(request)).status == SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        stopping.set()
        assert (await watch.read()).status == NOT_SERVING
        # What balancers have not noticed yet is still served.
        client = meterhold.AsyncClient(channel=channel)
        assert (await client.balance("alice")).ledger_seq == 0
        watch.cancel()
    await serving


@pytest.mark.parametrize("on", [True, False])
async def test_reflection_lists_the_services_if_it_is_on(database_url: str, on: bool) -> None:
    async with (
        service(database_url, reflection=on) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        listing = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        if on:
            await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            answer = await listing.read()
            names = {each.name for each in answer.list_services_response.service}
            assert names >= {*NAMES, "grpc.health.v1.Health"}
            await listing.done_writing()
            assert await listing.read() is grpc.aio.EOF
        else:
            assert await listing.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.slow
async def test_sigterm_lets_running_calls_end(database_url: str, observer: Observer) -> None:
    with ServerProcess(database_url) as server:
        async with meterhold.AsyncClient(server.address, coalesce=False) as client:
            await client.grant_once("alice", 100, idempotency_key="gift")
            observer.lock(ALICE)
            calls = [
                asyncio.create_task(client.debit_once("alice", 1, idempotency_key=f"key-{number}"))
                for number in range(50)
            ]
            await until(observer.blocked)
            # Calls of a connection are taken on in their order: behind this one, all of them are.
            await client.balance("alice")
            ending = asyncio.create_task(asyncio.to_thread(server.terminate))
            await asyncio.to_thread(server.wait_for, "draining")
            observer.let_go()
            answers = await asyncio.gather(*calls)
            assert await ending == 0
    assert [answer.status for answer in answers] == [DebitStatus.DEBITED] * 50
    assert len(observer.entries(ALICE)) == 51
    assert verify(database_url).clean


@pytest.mark.slow
async def test_a_worker_that_dies_is_started_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its siblings answer meanwhile. Each log line stays whole, whoever writes it."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    with ServerProcess(database_url, workers=2, log_calls="all") as server:
        victim, sibling = _workers()
        async with meterhold.AsyncClient(server.address) as client:
            victim.kill()
            died = await asyncio.to_thread(server.wait_for, "worker_died")
            assert (died["pid"], died["exit_code"]) == (victim.pid, -signal.SIGKILL)
            await client.grant_once("alice", 100, idempotency_key="gift")
            await until(lambda: {worker.pid for worker in _workers()} > {sibling.pid})
            assert victim.pid not in {worker.pid for worker in _workers()}
            await _many_calls(server.address)
        assert server.terminate() == 0
        assert _workers() == []
    assert {event["event"] for event in server.events} <= {
        "callers_are_not_authenticated",
        "serving",
        "worker_died",
        "call",
        "draining",
        "swept",
    }


@pytest.mark.slow
def test_workers_end_with_their_parent(database_url: str) -> None:
    with ServerProcess(database_url, workers=2) as server:
        workers = _workers()
        assert len(workers) == 2
        server.kill()
        gone, alive = psutil.wait_procs(workers, timeout=20)
    assert (len(gone), alive) == (2, [])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_taken_is_an_error(database_url: str, workers: int) -> None:
    with ServerProcess(database_url) as server:
        done = _run_serve(
            database_url,
            METERHOLD_ADDRESS=server.address,
            METERHOLD_WORKERS=str(workers),
        )
    assert done.returncode == 1
    assert server.address in done.stderr


@pytest.mark.slow
@needs_openssl
async def test_tls(database_url: str, tmp_path: Path) -> None:
    certificate, private_key = self_signed(tmp_path, "localhost", loopback=True)
    settings = {"tls_certificate": certificate, "tls_private_key": private_key}
    async with service(database_url, **settings) as address:
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        async with grpc.aio.secure_channel(address, trusted) as channel:
            key = make_key(database_url).text
            client = meterhold.AsyncClient(channel=channel, api_key=key)
            assert (await client.balance("alice")).ledger_seq == 0
        async with meterhold.AsyncClient(address, timeout_seconds=2) as plaintext:
            with pytest.raises(MeterholdError):
                await plaintext.balance("alice")


async def test_metadata_that_is_too_large_is_refused(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        balance = METHODS["Balance"]
        request = metering_service_pb2.BalanceRequest(account="alice")
        told = await refusal(channel, balance, request, (("x-large", "x" * 17 * 1024),))
        assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "")
        assert isinstance(await call(channel, balance, request, (("x-small", "x" * 4096),)), bytes)


async def test_a_call_whose_deadline_passed_is_dropped(address: str, observer: Observer) -> None:
    """Its caller has gone and will not learn of it: better that it is not done."""
    async with meterhold.AsyncClient(address) as client:
        await client.grant_once("alice", 100, idempotency_key="gift")
        observer.lock(ALICE)
        first = asyncio.create_task(client.debit_once("alice", 1, idempotency_key="first"))
        await until(observer.blocked)
        with pytest.raises(OutcomeUnknown) as raised:
            await client.debit_once("alice", 10, idempotency_key="late", timeout_seconds=0.2)
        assert raised.value.code == "DEADLINE_EXCEEDED"
        observer.let_go()
        await first
        assert (await client.debit_once("alice", 5, idempotency_key="next")).entry.seq == 3
        with pytest.raises(meterhold.EntryNotFound):
            await client.get_entry("alice", debit_key="late")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7717", "example.org:7717"])
def test_plaintext_on_an_open_address_has_to_be_asked_for(address: str) -> None:
    with pytest.raises(ValidationError, match="is not loopback and there is no TLS"):
        ServeSettings(address=address)
    assert ServeSettings(address=address, allow_plaintext=True).address == address


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:7717"])
def test_loopback_needs_no_tls(address: str) -> None:
    assert ServeSettings(address=address).address == address


async def _many_calls(address: str) -> None:
    """Enough for the log lines of several processes to meet."""
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(8)
    ]
    await asyncio.gather(
        *(meterhold.AsyncClient(channel=channel).balance("alice") for channel in channels * 50)
    )
    for channel in channels:
        await channel.close()


def _workers() -> list[psutil.Process]:
    """The processes of the server that is running."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.cmdline()[-1:] == ["worker"]]


def _run_serve(database_url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meterhold_server", "serve"],
        env=os.environ
        | {"METERHOLD_DATABASE_URL": database_url, "METERHOLD_ALLOW_UNSAFE_DATABASE": "true"}
        | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
