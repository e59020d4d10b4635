"""The command `prove`, against services that are sound and ones that are not."""

from __future__ import annotations

import asyncio
import sys
from unittest.mock import patch

import pytest

from meterhold_server.core import holds, replay
from meterhold_server.core.model import Account
from meterhold_server.core.outcomes import Released

pytestmark = pytest.mark.slow

OPERATIONS = 300


async def prove(address: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run the command as a stranger would. Answers its exit code and what it printed."""
    command = (sys.executable, "-m", "meterhold_server", "prove", "--target", address)
    process = await asyncio.create_subprocess_exec(
        *command,
        f"--operations={OPERATIONS}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


async def found_within(address: str, seeds: int) -> str:
    """What is printed of the first run that is not sound: not each load comes to the brink."""
    for seed in range(1, seeds + 1):
        code, out, _ = await prove(address, f"--seed={seed}")
        if code == 1:
            return out
    raise AssertionError(f"none of {seeds} loads found anything")


async def test_a_sound_service_breaks_no_rule(address: str) -> None:
    code, out, errors = await prove(address)
    assert (code, errors) == (0, ""), out
    assert out.startswith("seed ")
    assert out.endswith("every rule holds\n")


async def test_a_key_without_fingerprint_is_found(address: str) -> None:
    with patch.object(replay, "mismatch", lambda request, receipt: None):
        assert "misuse: account 'prove-" in await found_within(address, seeds=8)


async def test_a_micro_too_much_is_found(address: str) -> None:
    reservable = property(lambda self: max(0, self.available_micros + 1))
    with patch.object(Account, "reservable_micros", reservable):
        assert "floor: account 'prove-" in await found_within(address, seeds=8)


async def test_a_release_that_did_nothing_is_found(address: str) -> None:
    real = holds.release

    def release(*arguments: object) -> object:
        outcome = real(*arguments)  # type: ignore[arg-type]
        if isinstance(outcome, Released):
            outcome.changed = True
        return outcome

    with patch.object(holds, "release", release):
        assert "ended twice: account 'prove-" in await found_within(address, seeds=8)


async def test_where_nobody_serves_it_says_so() -> None:
    code, out, errors = await prove("127.0.0.1:1")
    assert (code, out) == (1, "")
    assert errors.startswith("meterhold-server prove: 127.0.0.1:1: ")
