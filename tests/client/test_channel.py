"""Addresses, credentials, and connections that outlive their server."""

from __future__ import annotations

from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import meterhold
from client.scripted_server import ScriptedServer
from meterhold import AsyncClient, Client, Tls, _channel
from meterhold.v1 import metering_service_pb2 as metering
from meterhold.v1 import metering_service_pb2_grpc
from support.certificates import Certificate, needs_openssl, self_signed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IPV4, IPV6 = "127.0.0.1:7717", "[::1]:7717"


class _Answers:
    """Answers a Balance whose `ledger_seq` says which server it was; notes who asked."""

    def __getattr__(self, method: str) -> None:
        """Every other call is answered UNIMPLEMENTED."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.identities: list[Any] = []
        self.authorizations: list[str | bytes | None] = []

    def Balance(self, request: Any, context: grpc.ServicerContext) -> metering.BalanceResponse:  # noqa: N802
        self.identities.append(context.peer_identities())
        self.authorizations.append(dict(context.invocation_metadata()).get("authorization"))
        response = metering.BalanceResponse()
        response.balance.ledger_seq = self.number
        return response


@contextmanager
def _serve(
    servicer: _Answers,
    credentials: grpc.ServerCredentials | None = None,
    address: str = "127.0.0.1:0",
) -> Iterator[int]:
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    with_balance_only: Any = servicer
    metering_service_pb2_grpc.add_MeteringServiceServicer_to_server(with_balance_only, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def test_calls_take_turns_between_several_addresses() -> None:
    one, two = _Answers(1), _Answers(2)
    with (
        _serve(one) as first,
        _serve(two) as second,
        Client([f"127.0.0.1:{first}", f"127.0.0.1:{second}"]) as client,
    ):
        found: set[int] = set()
        while found != {1, 2}:
            found.add(client.balance("alice").ledger_seq)


async def test_one_address_that_is_down_harms_nobody() -> None:
    servicer = _Answers(1)
    with _serve(servicer) as gone:
        pass
    with _serve(servicer) as port:
        async with AsyncClient([f"127.0.0.1:{gone}", f"127.0.0.1:{port}"]) as client:
            for _ in range(10):
                assert (await client.balance("alice")).ledger_seq == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("meterhold.example:7717", "meterhold.example:7717"),
        ([IPV4], IPV4),
        ([IPV4, "10.0.0.1:7717"], f"ipv4:{IPV4},10.0.0.1:7717"),
        ([IPV6, "[::2]:1"], f"ipv6:{IPV6},[::2]:1"),
    ],
)
def test_targets(target: str | list[str], expected: str) -> None:
    assert _channel.endpoint(target, None, None).target == expected


@pytest.mark.parametrize("target", [[], [IPV4, IPV6], [IPV4, "localhost:7717"], ["a:1", "b:1"]])
def test_targets_that_cannot_be_used_together(target: list[str]) -> None:
    with pytest.raises(ValueError, match="target"):
        Client(target)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        (IPV4, True),
        (IPV6, True),
        ("localhost:7717", True),
        ("dns:///localhost:7717", True),
        ("unix:/run/meterhold.sock", True),
        (["127.0.0.1:1", "127.0.0.2:1"], True),
        ("10.0.0.1:7717", False),
        ("meterhold.example:7717", False),
        ("dns:///localhost.example:7717", False),
        (["127.0.0.1:1", "10.0.0.2:1"], False),
    ],
)
def test_api_key_crosses_no_network_in_plaintext(target: str | list[str], allowed: bool) -> None:
    if allowed:
        Client(target, api_key="mh_secret").close()
    else:
        with pytest.raises(ValueError, match="plaintext") as raised:
            Client(target, api_key="mh_secret")
        assert "mh_secret" not in str(raised.value)
    Client(target, api_key="mh_secret", tls=Tls()).close()


@pytest.mark.parametrize("api_key", ["", "two\nlines", "schlüssel"])
def test_api_key_must_fit_a_header(api_key: str) -> None:
    with pytest.raises(ValueError, match="api_key"):
        Client(api_key=api_key)


async def test_api_key_goes_with_every_call() -> None:
    servicer = _Answers(1)
    with _serve(servicer) as port:
        target = f"127.0.0.1:{port}"
        with Client(target, api_key="mh_one") as client:
            client.balance("alice")
        async with AsyncClient(target, api_key="mh_two") as async_client:
            await async_client.balance("alice")
        with Client(target) as client:
            client.balance("alice")
    assert servicer.authorizations == ["Bearer mh_one", "Bearer mh_two", None]


async def test_a_function_is_asked_for_the_newest_token_before_each_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If it fails, what it answered before is sent: only the server says what becomes of a call."""
    answers: list[Any] = ["one", "two", OSError("the issuer is away"), "", "a\nb", "three"]
    sent = ["one", "two", "two", "two", "two", "three"]

    def newest() -> str:
        answer = queue.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    servicer = _Answers(1)
    with _serve(servicer) as port:
        target = f"127.0.0.1:{port}"
        queue = list(answers)
        with Client(target, api_key=newest) as client:
            for _ in answers:
                client.balance("alice")
        queue = list(answers)
        async with AsyncClient(target, api_key=newest) as async_client:
            for _ in answers:
                await async_client.balance("alice")
    assert servicer.authorizations == [f"Bearer {token}" for token in sent] * 2
    assert [record.message for record in caplog.records] == [
        "api_key has failed; what it answered before is sent"
    ] * 6


def test_a_function_that_has_never_answered_sends_nothing() -> None:
    servicer = _Answers(1)
    with _serve(servicer) as port, Client(f"127.0.0.1:{port}", api_key=lambda: "") as client:
        client.balance("alice")
    assert servicer.authorizations == [None]


def test_a_token_of_a_function_crosses_no_network_in_plaintext_either() -> None:
    with pytest.raises(ValueError, match="plaintext"):
        Client("10.0.0.1:7717", api_key=lambda: "secret")


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "meterhold.test")


@needs_openssl
async def test_tls(certificate: Certificate) -> None:
    pair = (certificate.private_key.read_bytes(), certificate.certificate.read_bytes())
    trusting = Tls.from_files(
        root_certificates=certificate.certificate, server_name="meterhold.test"
    )
    strangers = Tls(server_name="meterhold.test")
    misnamed = Tls.from_files(root_certificates=certificate.certificate)
    with _serve(_Answers(1), grpc.ssl_server_credentials([pair])) as port:
        target = f"127.0.0.1:{port}"
        with Client(target, tls=trusting) as client:
            assert client.balance("alice").ledger_seq == 1
        async with AsyncClient(target, tls=trusting) as async_client:
            assert (await async_client.balance("alice")).ledger_seq == 1
        for wrong in (strangers, misnamed, None):
            with (
                Client(target, tls=wrong, timeout_seconds=0.5) as client,
                pytest.raises(meterhold.OutcomeUnknown),
            ):
                client.balance("alice")


@needs_openssl
async def test_mutual_tls(certificate: Certificate, tmp_path: Path) -> None:
    caller = self_signed(tmp_path, "gateway.test")
    pair = (certificate.private_key.read_bytes(), certificate.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], caller.certificate.read_bytes(), require_client_auth=True
    )
    servicer = _Answers(1)
    known = Tls.from_files(
        root_certificates=certificate.certificate,
        certificate_chain=caller.certificate,
        private_key=caller.private_key,
        server_name="meterhold.test",
    )
    assert "PRIVATE" not in repr(known)
    with _serve(servicer, credentials) as port:
        target = f"127.0.0.1:{port}"
        with Client(target, tls=known) as client:
            client.balance("alice")
        async with AsyncClient(target, tls=known) as async_client:
            await async_client.balance("alice")
        nobody = Tls(root_certificates=known.root_certificates, server_name="meterhold.test")
        with (
            Client(target, tls=nobody, timeout_seconds=0.5) as client,
            pytest.raises(meterhold.OutcomeUnknown),
        ):
            client.balance("alice")
    assert servicer.identities == [[b"gateway.test"]] * 2


def test_client_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="both or neither"):
        Tls(certificate_chain=b"certificate")


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_connection_survives_a_restart_of_the_server(kind: str) -> None:
    with _serve(_Answers(1)) as port:
        target = f"127.0.0.1:{port}"
        client = Client(target) if kind == "sync" else AsyncClient(target)

        async def seq() -> int:
            if isinstance(client, Client):
                return client.balance("alice").ledger_seq
            return (await client.balance("alice")).ledger_seq

        assert await seq() == 1
    with _serve(_Answers(2), address=target):
        assert await seq() == 2
    if isinstance(client, Client):
        client.close()
    else:
        await client.aclose()


async def test_closed_client_says_so(server: ScriptedServer) -> None:
    client = Client(server.target)
    client.close()
    async_client = AsyncClient(server.target)
    await async_client.aclose()
    with pytest.raises(meterhold.Unavailable, match="closed"):
        client.balance("alice")
    with pytest.raises(meterhold.Unavailable, match="closed"):
        await async_client.balance("alice")
    assert server.calls == []


async def test_answer_that_cannot_be_parsed_leaves_the_outcome_unknown() -> None:
    """Both kinds of stub; grpc.aio answers None for it."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"\xff\xff\xff")

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((Handler(),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with Client(target, timeout_seconds=0.3) as client:
            with pytest.raises(meterhold.OutcomeUnknown) as raised:
                client.debit_once("alice", 5, idempotency_key="k")
            assert raised.value.key == "k"
        async with AsyncClient(target, timeout_seconds=0.3) as async_client:
            with pytest.raises(meterhold.OutcomeUnknown) as raised:
                await async_client.debit_once("alice", 5, idempotency_key="k")
            assert raised.value.key == "k"
    finally:
        server.stop(None).wait()
