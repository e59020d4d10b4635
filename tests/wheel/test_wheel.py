"""The wheel has what an installation needs, and its base needs nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

import pytest

from hatch_build import COMPILED, compiled_modules

ROOT = Path(__file__).parents[2]
MIGRATIONS = "meterhold-0.1.0.data/data/share/meterhold/migrations"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*command, "--directory", str(folder)], cwd=ROOT, check=True)
    [built] = folder.glob("*.whl")
    return ZipFile(built)


@pytest.mark.slow
def test_it_has_both_packages_the_migrations_and_the_trace(wheel: ZipFile) -> None:
    names = set(wheel.namelist())
    revisions = {
        f"{MIGRATIONS}/versions/{path.name}"
        for path in (ROOT / "migrations" / "versions").glob("*.py")
    }
    assert revisions <= names
    assert {
        "meterhold/py.typed",
        "meterhold/v1/metering_service_pb2.py",
        "meterhold_server/py.typed",
        "meterhold_server/demo/data/ATTRIBUTION.md",
        f"{MIGRATIONS}/env.py",
    } <= names
    roots = {name.split("/")[0] for name in names}
    assert roots == {
        "meterhold",
        "meterhold_server",
        "meterhold-0.1.0.data",
        "meterhold-0.1.0.dist-info",
    }


@pytest.mark.slow
def test_its_base_is_grpc_and_protobuf(wheel: ZipFile) -> None:
    metadata = message_from_bytes(wheel.read("meterhold-0.1.0.dist-info/METADATA"))
    requirements = metadata.get_all("Requires-Dist", [])
    base = {re.split("[<>=;]", line)[0] for line in requirements if "extra ==" not in line}
    assert base == {"googleapis-common-protos", "grpcio", "protobuf"}


def test_the_client_imports_nothing_of_the_server() -> None:
    heavy = "('meterhold_server', 'sqlalchemy', 'psycopg', 'pydantic', 'orjson', 'alembic')"
    code = f"import sys, meterhold; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert printed.decode().strip() == "[]"


@pytest.mark.slow
def test_it_is_pure_python_unless_compilation_is_asked_for(wheel: ZipFile) -> None:
    assert not [name for name in wheel.namelist() if name.endswith(".so")]


def test_what_the_compiled_build_compiles_is_there(tmp_path: Path) -> None:
    assert len(compiled_modules(ROOT / "server")) > len(COMPILED)
    with pytest.raises(FileNotFoundError, match="names no module"):
        compiled_modules(tmp_path)
