"""The optional build: the modules on the path of every operation, compiled by mypyc into the wheel.

    HATCH_BUILD_HOOKS_ENABLE=1 pip wheel --no-deps .

They are the same modules, typed as they are; their sources stay beside them. It needs a C compiler
and the headers of Python. Without the variable a wheel is pure Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED: Final = (
    "core/[a-z]*.py",
    "storage/arrays.py",
    "storage/exchange.py",
    "storage/load.py",
    "storage/persist.py",
    "storage/rows.py",
    "rpc/requests.py",
    "rpc/responses.py",
    "rpc/times.py",
    "rpc/units.py",
    "rpc/validation.py",
)
"""Patterns of the compiled modules, within meterhold_server."""


class CompileHook(BuildHookInterface[Any]):
    """Compiles a copy of the sources, so that nothing is left beside these."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the libraries to the wheel. Raises CalledProcessError."""
        self._copy = Path(tempfile.mkdtemp(prefix="meterhold-compiled-"))
        for root in ("client", "server"):
            shutil.copytree(Path(self.root, root), self._copy / root)
        server = self._copy / "server"
        package = server / "meterhold_server"
        modules = sorted(
            str(path.relative_to(server)) for pattern in COMPILED for path in package.glob(pattern)
        )
        subprocess.run(
            [sys.executable, "-m", "mypyc", *_MYPY_OPTIONS, *modules],
            cwd=server,
            env={**os.environ, "MYPYPATH": f"{self._copy / 'client'}{os.pathsep}{server}"},
            check=True,
            stdout=sys.stderr,
        )
        libraries = [*server.glob("*__mypyc*.so"), *package.rglob("*.so")]
        build_data["force_include"] |= {
            str(library): str(library.relative_to(server)) for library in libraries
        }
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._copy)


_MYPY_OPTIONS: Final = ("--config-file=", "--explicit-package-bases", "--ignore-missing-imports")
