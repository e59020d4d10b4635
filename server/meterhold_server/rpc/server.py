"""The gRPC server: options, health, reflection, and a graceful end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from meterhold.v1 import admin_service_pb2, ledger_service_pb2, metering_service_pb2
from meterhold_server.rpc.access import Access
from meterhold_server.rpc.admin import AdminServicer
from meterhold_server.rpc.handlers import LogCalls, generic_handler, open_handler
from meterhold_server.rpc.ledger import LedgerServicer
from meterhold_server.rpc.metering import MeteringServicer
from meterhold_server.rpc.scopes import check_scopes
from meterhold_server.rpc.service import Context, Service
from meterhold_server.rpc.tls import Certificates, TlsFiles

_METERING: Final = metering_service_pb2.DESCRIPTOR.services_by_name["MeteringService"]
_LEDGER: Final = ledger_service_pb2.DESCRIPTOR.services_by_name["LedgerService"]
_ADMIN: Final = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]

_HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION: Final = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

_SERVICES: Final = (_METERING, _LEDGER, _ADMIN)
_NAMES: Final = tuple(service.full_name for service in _SERVICES)

_LOOK_SECONDS: Final = 0.1
"""Between looks at whether gRPC still serves."""

_log = structlog.get_logger(__name__)

_OPTIONS: Final = (
    # Above what a request may have, so that a message that is too large is told so in our words.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 32 * 1024 * 1024),
    # A key, an id of the request and what proxies add. Over the first limit a call may be refused,
    # over the second it is.
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 1000),
    # Clients may ping every 10 s, and idle ones too: the default is one ping in five minutes.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Connections are renewed now and then, or clients would never find servers added behind a name.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
)


class _Health(health_aio.HealthServicer):  # type: ignore[misc] # has no types
    """That of the library, with the call that it lacks."""

    async def List(self, request: Any, context: Context) -> Any:
        statuses = {
            name: await self.Check(health_pb2.HealthCheckRequest(service=name), context)
            for name in ("", *_NAMES)
        }
        return health_pb2.HealthListResponse(statuses=statuses)


class RpcServer:
    """Make it, `start` it, and `stop` it once, all in one event loop."""

    def __init__(
        self, access: Access, *, reflect: bool, log_calls: LogCalls, share_port: bool
    ) -> None:
        """Raises LookupError if a method has no scope."""
        check_scopes(_SERVICES)
        # A port is shared with our own processes only: two servers that do not know of each other
        # must not split the calls between their databases.
        self._options = (*_OPTIONS, ("grpc.so_reuseport", int(share_port)))
        self._draining = asyncio.Event()
        self._health = _Health()
        self._handlers = [
            generic_handler(_METERING, self._metering_servicer, access, log_calls),
            generic_handler(_LEDGER, LedgerServicer, access, log_calls),
            generic_handler(_ADMIN, AdminServicer, access, log_calls),
            open_handler(_HEALTH, self._health),
        ]
        if reflect:
            names = (*_NAMES, _HEALTH.full_name, _REFLECTION.full_name)
            reflecting = reflection.aio.ReflectionServicer(names)
            self._handlers.append(open_handler(_REFLECTION, reflecting))
        self._server = self._new_server()
        self._tls: TlsFiles | None = None
        self._address = ""
        self._keeping: asyncio.Task[None] | None = None

    def _new_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=self._options)
        server.add_generic_rpc_handlers(self._handlers)
        return server

    def _metering_servicer(self, service: Service) -> MeteringServicer:
        return MeteringServicer(service, self._draining)

    def listen(self, address: str, tls: TlsFiles | None) -> int:
        """Bind. Answers the port. Raises TlsError, and OSError if the address cannot be had."""
        self._tls = tls
        port = self._bind(address)
        self._address = f"{address.rpartition(':')[0]}:{port}"
        return port

    def _bind(self, address: str) -> int:
        try:
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                credentials = Certificates(self._tls).credentials()
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is it in use? ({error})") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}: is it in use?")
        return int(port)

    async def start(self) -> None:
        await self._server.start()
        self._keeping = asyncio.create_task(self._keep_serving())
        await self.set_healthy(True)

    async def _keep_serving(self) -> None:
        """Serve again when gRPC has ended by itself, until `stop`.

        It does so for a call whose path is not UTF-8, whoever sent it, and tells nobody.
        """
        while not self._draining.is_set():
            if not _is_running(self._server):
                _log.error("transport_ended", address=self._address)
                try:
                    await self._serve_again()
                except Exception as error:
                    # Nobody would be served any more, so that it has to be tried again.
                    _log.error("transport_not_begun", address=self._address, exc_info=error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), _LOOK_SECONDS)

    async def _serve_again(self) -> None:
        # It did not get to ending the calls that are under way.
        await self._server.stop(None)
        self._server = self._new_server()
        self._bind(self._address)
        await self._server.start()

    async def set_healthy(self, healthy: bool) -> None:
        """Say SERVING or NOT_SERVING, for the server and each service."""
        status: Any = health_pb2.HealthCheckResponse.ServingStatus
        value = status.SERVING if healthy else status.NOT_SERVING
        for name in ("", *_NAMES):
            await self._health.set(name, value)

    async def stop(self, *, notice_seconds: float, grace_seconds: float) -> None:
        """Drain: say NOT_SERVING, wait for balancers to notice, then for running calls to end."""
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(notice_seconds)
        self._draining.set()
        if self._keeping is not None:
            await self._keeping
        await self._server.stop(grace_seconds)


def _is_running(server: grpc.aio.Server) -> bool:
    """Whether calls are taken. What waits for the end of a server also waits for its calls."""
    transport: Any = server._server  # type: ignore[attr-defined]
    return bool(transport.is_running())
