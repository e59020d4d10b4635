"""The gRPC server: options, health, reflection, and a graceful end."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
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
        self._server = grpc.aio.server(options=(*_OPTIONS, ("grpc.so_reuseport", int(share_port))))
        self._draining = asyncio.Event()
        self._health = _Health()
        self._server.add_generic_rpc_handlers(
            (
                generic_handler(_METERING, self._metering_servicer, access, log_calls),
                generic_handler(_LEDGER, LedgerServicer, access, log_calls),
                generic_handler(_ADMIN, AdminServicer, access, log_calls),
                open_handler(_HEALTH, self._health),
            )
        )
        if reflect:
            names = (*_NAMES, _HEALTH.full_name, _REFLECTION.full_name)
            reflecting = reflection.aio.ReflectionServicer(names)
            self._server.add_generic_rpc_handlers((open_handler(_REFLECTION, reflecting),))

    def _metering_servicer(self, service: Service) -> MeteringServicer:
        return MeteringServicer(service, self._draining)

    def listen(self, address: str, tls: TlsFiles | None) -> int:
        """Bind. Answers the port. Raises TlsError, and OSError if the address cannot be had."""
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, Certificates(tls).credentials())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: is it in use? ({error})") from error
        if port == 0:
            raise OSError(f"cannot listen on {address}: is it in use?")
        return int(port)

    async def start(self) -> None:
        await self._server.start()
        await self.set_healthy(True)

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
        await self._server.stop(grace_seconds)
