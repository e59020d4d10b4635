"""What the extra `cli` brings, what is there without it, and completion by the shell."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

import meterhold
from client_cli.conftest import Run

EXTRA = ("typer", "rich", "platformdirs")


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


@pytest.mark.parametrize("missing", EXTRA)
def test_without_the_extra_it_says_how_to_get_it(missing: str) -> None:
    done = python(
        f"import sys; sys.modules[{missing!r}] = None; import meterhold.cli as cli; "
        "sys.exit(cli.main())"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "the command line needs: pip install 'meterhold[cli]'\n"


def test_another_module_that_is_missing_is_a_bug() -> None:
    done = python("import sys; sys.modules['tomllib'] = None; import meterhold.cli as c; c.main()")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_the_client_does_not_load_the_command_line() -> None:
    loaded = python("import sys, meterhold; print(*sys.modules)").stdout.split()
    assert "meterhold" in loaded
    assert {name.partition(".")[0] for name in loaded}.isdisjoint(EXTRA)
    assert not any(name.startswith("meterhold.cli") for name in loaded)


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meterhold.cli", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("meterhold ")


async def test_a_terminal_that_lacks_a_letter_gets_it_written_out(
    address: str, client: meterhold.AsyncClient
) -> None:
    await client.grant_once("alice", 1, idempotency_key="ключ")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meterhold.cli", "entries", "alice", "--address", address),
        env=os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
        stdout=subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    assert rb"\u043a\u043b\u044e\u0447" in printed


async def test_the_help_has_every_command_and_exit_code(run_alone: Run) -> None:
    shown = (await run_alone("--help", COLUMNS="200")).out
    for text in ("balance", "Options of every command", "  7  may be done or not", "METERHOLD_TLS"):
        assert text in shown


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("meterhold ", {"balance", "grant", "debit", "reserve", "settle", "top", "config"}),
        ("meterhold res", {"reserve", "reservation", "reservations"}),
        ("meterhold reserve alice 1cr --on", {"--on-expiry"}),
        ("meterhold reserve alice 1cr --on-expiry ", {"release", "charge"}),
        ("meterhold entries alice --kind ex", {"expiry", "expiry-charge"}),
        ("meterhold balance alice --add", {"--address"}),
    ],
)
async def test_the_shell_completes(run_alone: Run, line: str, offered: set[str]) -> None:
    done = await run_alone(
        _METERHOLD_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split(" ")) - 1),
    )
    found = set(done.out.split())
    assert offered <= found
    assert line == "meterhold " or offered == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_the_script_for_a_shell(run_alone: Run, shell: str) -> None:
    done = await run_alone(_METERHOLD_COMPLETE=f"source_{shell}")
    assert f"_METERHOLD_COMPLETE=complete_{shell}" in done.out
