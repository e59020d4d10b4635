"""The baseline: a server of the same library and messages that answers without doing anything.

It shows what a call costs before any work is done. Its event loop is the product's, and as a module
it takes how many processes are to share its port.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import Any

import grpc
import uvloop

from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1 import types_pb2


async def debit(request: pb.DebitRequest, context: Any) -> pb.DebitResponse:
    return pb.DebitResponse(
        balance=types_pb2.Balance(ledger_seq=1, available_micros=request.amount_micros),
        status=pb.DEBIT_STATUS_DEBITED,
    )


async def serve(processes: int, port: int = 0) -> None:
    """Serve until SIGTERM. Port 0 takes a free one, which is printed."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 1),))
    handler = grpc.unary_unary_rpc_method_handler(
        debit,
        request_deserializer=pb.DebitRequest.FromString,
        response_serializer=pb.DebitResponse.SerializeToString,
    )
    name = "meterhold.v1.MeteringService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"Debit": handler}),)
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    others = [await _another(port) for _ in range(processes - 1)]
    print(port, flush=True)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await stopping.wait()
    for other in others:
        other.terminate()
        await other.wait()
    await server.stop(1)


async def _another(port: int) -> asyncio.subprocess.Process:
    """A process that serves on the same port."""
    command = [sys.executable, "-m", "benchmarks.noop_server", "1", str(port)]
    started = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert started.stdout is not None
    await started.stdout.readline()
    return started


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(*map(int, sys.argv[1:])))
