"""Without the extras the stub works, and what does not says what to install."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meterhold.testing import embedded_service

BASE_ONLY = """
import sys

for name in (
    "alembic", "grpc_health", "grpc_reflection", "orjson", "platformdirs", "psycopg", "pydantic",
    "pydantic_settings", "pytest", "rich", "sqlalchemy", "structlog", "uvloop",
):
    sys.modules[name] = None

import meterhold.testing
"""


def on_base_install(code: str) -> str:
    """What a program prints that has the requirements of the client and no others."""
    done = subprocess.run(
        [sys.executable, "-c", BASE_ONLY + code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_stub_needs_the_client_only() -> None:
    printed = on_base_install("""
stub = meterhold.testing.Stub()
stub.answers("reserve", held_micros=75)
print(stub.client().reserve("alice", 75, reservation_id="job").held_micros)
print([name for name in sys.modules if name.startswith("meterhold_server")])
""")
    assert printed.splitlines() == ["75", "[]"]


def test_the_service_in_memory_says_what_it_needs() -> None:
    printed = on_base_install("""
try:
    meterhold.testing.InMemory()
except ImportError as error:
    print(error)
""")
    assert "Run: pip install 'meterhold[server]'" in printed
    assert "meterhold.testing.Stub" in printed


@pytest.mark.slow
def test_the_real_service_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError('psycopg')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        pytest.raises(RuntimeError, match=r"Run: pip install 'meterhold\[server,embedded\]'"),
        embedded_service(),
    ):
        pass


@pytest.mark.slow
def test_a_service_that_does_not_start_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERHOLD_POSTGRES_PREFIX", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with (
        pytest.raises(RuntimeError, match=r"(?s)The service did not start. Its log:.*PostgreSQL"),
        embedded_service(),
    ):
        pass
    assert list(tmp_path.iterdir()) == [], "its folder is left behind"
