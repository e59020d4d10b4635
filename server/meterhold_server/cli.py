"""The command `meterhold-server`: arguments, and `app`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

import psycopg
import structlog
from pydantic import Field, PositiveFloat, ValidationError

from meterhold_server import app, auditing, keys, verification
from meterhold_server.batching.failures import Failure
from meterhold_server.config import (
    CommandSettings,
    DatabaseSettings,
    EngineSettings,
    NamespaceSettings,
    ServeSettings,
)
from meterhold_server.demo import DemoError
from meterhold_server.demo.settings import DemoSettings
from meterhold_server.embedded import EmbeddedPostgresError
from meterhold_server.logs import configure_logs
from meterhold_server.processes import READY_LINE, serve_processes
from meterhold_server.prove.settings import ProveSettings
from meterhold_server.rpc.key_sets import KeySetError
from meterhold_server.rpc.tls import TlsError
from meterhold_server.storage import migrate
from meterhold_server.storage.connection import DatabaseError
from meterhold_server.storage.credentials import CertificateTakenError

_FAILURES = (
    CertificateTakenError,
    DatabaseError,
    DemoError,
    EmbeddedPostgresError,
    Failure,
    KeySetError,
    migrate.MigrationError,
    OSError,
    TlsError,
    psycopg.Error,
)
_log = structlog.get_logger(__name__)
_S = TypeVar("_S", bound=CommandSettings)


class MigrateSettings(DatabaseSettings):
    """Bring the database to the schema that this version needs."""

    revision: Annotated[str, Field(description="`head`, a revision, or `base` for none")] = "head"
    down: Annotated[bool, Field(description="migrate back, which can lose data")] = False
    wait_seconds_max: Annotated[
        PositiveFloat, Field(description="how long to try to get locks that others have")
    ] = migrate.WAIT_SECONDS_MAX


class SweepSettings(EngineSettings):
    """Expire what is due."""

    once: Annotated[bool, Field(description="sweep what is due now, report, and end")] = False


def serve(settings: ServeSettings) -> int:
    """Serve gRPC, until SIGTERM or Ctrl-C."""

    if not settings.asks_for_credentials:
        _log.warning(
            "callers_are_not_authenticated",
            namespace=settings.namespace,
            advice="every local user may do everything; to ask for keys, set METERHOLD_AUTH=keys",
        )

    def announce(address: str) -> None:
        auth = "keys" if settings.asks_for_credentials else "none"
        _log.info("serving", address=address, workers=settings.workers, auth=auth)

    async def run(url: str) -> None:
        stopping = asyncio.Event()
        app.stop_on_signals(stopping)
        if settings.workers > 1:
            await serve_processes(settings, url, stopping, announce=announce)
        else:
            await app.serve(settings, url, stopping, announce=announce)

    with app.database(settings) as url:
        _run(run(url))
    return 0


def worker(settings: ServeSettings) -> int:
    """One of the processes of `serve`: ends when its standard input does, with its parent."""

    async def run(url: str) -> None:
        stopping = asyncio.Event()
        app.stop_on_signals(stopping)
        asyncio.get_running_loop().add_reader(sys.stdin, stopping.set)
        await app.serve(
            settings,
            url,
            stopping,
            announce=lambda _: print(READY_LINE, flush=True),
            share_port=True,
        )

    with app.database(settings) as url:
        _run(run(url))
    return 0


def sweep(settings: SweepSettings) -> int:
    """Sweep apart from a server; any number may run."""
    exit_code = 0

    async def run(url: str) -> None:
        nonlocal exit_code
        if settings.once:
            async with app.engine(settings, url) as running:
                done = await app.sweeper(settings, running).run_once()
                print(" ".join(f"{name}={value}" for name, value in done._asdict().items()))
                exit_code = 1 if done.accounts_failed else 0
            return
        stopping = asyncio.Event()
        app.stop_on_signals(stopping)
        await app.sweep(settings, url, stopping)

    with app.database(settings) as url:
        _run(run(url))
    return exit_code


def migrate_database(settings: MigrateSettings) -> int:
    """Create or upgrade the schema."""
    with app.database(settings, check=False) as url:
        run = migrate.downgrade if settings.down else migrate.upgrade
        revision = run(url, settings.revision, wait_seconds_max=settings.wait_seconds_max)
    print(f"The schema is at revision {revision or 'base'}.")
    return 0


def demo(settings: DemoSettings) -> int:
    """Replay a trace of LLM requests against a fresh service and check the books."""
    from meterhold_server.demo import command

    return command.run(settings)


def prove(settings: ProveSettings) -> int:
    """Make calls to a running service, and check what its callers were told."""
    from meterhold_server.prove import command

    return command.run(settings)


class Command(NamedTuple):
    run: Callable[[Any], int]
    settings: type[CommandSettings]
    hidden: bool = False


COMMANDS = {
    "serve": Command(serve, ServeSettings),
    "demo": Command(demo, DemoSettings),
    "sweep": Command(sweep, SweepSettings),
    "migrate": Command(migrate_database, MigrateSettings),
    "verify": Command(verification.run, verification.VerifySettings),
    "keys create": Command(keys.create, keys.CreateSettings),
    "keys list": Command(keys.list_all, NamespaceSettings),
    "keys revoke": Command(keys.revoke, keys.RevokeSettings),
    "audit": Command(auditing.run, auditing.AuditSettings),
    "prove": Command(prove, ProveSettings),
    "worker": Command(worker, ServeSettings, hidden=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Exit code 2 for a wrong call, 1 for a failure."""
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("-V", "--version"):
        print(f"meterhold-server {version('meterhold')}")
        return 0
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name = f"{name} {rest.pop(0)}"
    command = COMMANDS.get(name)
    if command is None:
        return _usage(None if name in ("-h", "--help") else name)
    settings = _parse(name, command.settings, rest)
    if settings.print_config:
        print(settings.printed())
        return 0
    configure_logs(settings.log_level, settings.log_format)
    try:
        return command.run(settings)
    except _FAILURES as error:
        print(f"meterhold-server {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse(name: str, settings: type[_S], arguments: list[str]) -> _S:
    named = type(
        settings.__name__,
        (settings,),
        {
            "__doc__": COMMANDS[name].run.__doc__,
            "model_config": {"cli_prog_name": f"meterhold-server {name}"},
        },
    )
    try:
        return named(_cli_parse_args=arguments)  # type: ignore[no-any-return]
    except ValidationError as error:
        _fail(name, error)


def _fail(name: str, error: ValidationError) -> NoReturn:
    print(f"meterhold-server {name}: wrong settings", file=sys.stderr)
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(map(str, problem["loc"]))
        print(f"  {where + ': ' if where else ''}{problem['msg']}", file=sys.stderr)
    sys.exit(2)


def _usage(unknown: str | None) -> int:
    out = sys.stderr if unknown else sys.stdout
    if unknown:
        print(f"meterhold-server: there is no command {unknown!r}\n", file=out)
    print("usage: meterhold-server COMMAND [OPTIONS]\n\ncommands:", file=out)
    for name, command in COMMANDS.items():
        if not command.hidden:
            print(f"  {name:<11} {(command.run.__doc__ or '').splitlines()[0]}", file=out)
    print("\nmeterhold-server COMMAND --help lists a command's options.", file=out)
    return 2 if unknown else 0


def _run(main_coroutine: Coroutine[Any, Any, None]) -> None:
    """Run in uvloop where there is one: a call costs its event loop less."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main_coroutine)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main_coroutine)
