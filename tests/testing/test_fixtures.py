"""The fixtures work in a project of somebody else, with whatever runs its coroutines."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SETTINGS = """
[pytest]
filterwarnings = error
asyncio_default_fixture_loop_scope = function
"""

CONFTEST = 'pytest_plugins = ["meterhold.testing.fixtures"]\n'

TESTS = """
import asyncio

import pytest


def test_sync(meterhold_client, meterhold_account):
    meterhold_client.grant_once(meterhold_account, 500, idempotency_key=meterhold_account)
    assert meterhold_client.balance(meterhold_account).available_micros == 500


def test_memory(meterhold_memory, meterhold_account):
    client = meterhold_memory.client()
    client.grant_once(meterhold_account, 500, idempotency_key="order")
    assert client.balance(meterhold_account).available_micros == 500


async def spend(client, account):
    await client.grant_once(account, 500, idempotency_key=account)
    await asyncio.gather(*(client.debit(account, 1) for _ in range(5)))
    assert (await client.balance(account)).available_micros == 495


def test_own_loop(meterhold_async_client, meterhold_account):
    asyncio.run(spend(meterhold_async_client, meterhold_account))


@pytest.mark.asyncio
async def test_pytest_asyncio(meterhold_async_client, meterhold_account):
    await spend(meterhold_async_client, meterhold_account)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_anyio(meterhold_async_client, meterhold_account):
    await spend(meterhold_async_client, meterhold_account)
"""


async def run_pytest(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of pytest in a project of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments),
        cwd=folder,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text(SETTINGS)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_project.py").write_text(TESTS)
    return tmp_path


async def test_they_start_a_service_of_their_own(project: Path) -> None:
    """Whatever the environment says of a service in use."""
    elsewhere = "postgresql://nobody@127.0.0.1:1/none"
    code, printed = await run_pytest(project, METERHOLD_DATABASE_URL=elsewhere)
    assert code == 0, printed
    assert "5 passed" in printed


async def test_they_use_a_running_service(project: Path, address: str) -> None:
    code, printed = await run_pytest(project, METERHOLD_TEST_ADDRESS=address)
    assert code == 0, printed
    assert "5 passed" in printed


async def test_a_service_that_cannot_be_had_is_an_error(project: Path) -> None:
    """And not a skip, which would look like a success."""
    code, printed = await run_pytest(
        project, "-k", "test_sync", METERHOLD_POSTGRES_PREFIX=str(project)
    )
    assert code == 1
    assert "1 error" in printed
    assert "The service did not start. Its log:" in printed
