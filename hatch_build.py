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
    "storage/load.py",
    "storage/persist.py",
    "storage/rows.py",
    "rpc/requests.py",
    "rpc/responses.py",
    "rpc/times.py",
    "rpc/units.py",
    "rpc/validation.py",
)
"""Patterns of the compiled modules, within meterhold_server.

None has a class derived from one of a library: its layout would be guessed where that is not there.
"""

# Of what is imported, no more is looked at than the types: its libraries need not be there.
_MYPY_OPTIONS: Final = (
    "--config-file=",
    "--explicit-package-bases",
    "--ignore-missing-imports",
    "--follow-imports=silent",
)


class CompileHook(BuildHookInterface[Any]):
    """Compiles a copy of the sources, so that nothing is left beside these."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and add the libraries to the wheel. An editable install stays as it is.

        Raises CalledProcessError, and FileNotFoundError for a pattern that names no module.
        """
        self._copy = tempfile.TemporaryDirectory(prefix="meterhold-compiled-")
        if version == "editable":
            return
        folder = Path(self._copy.name)
        for root in ("client", "server"):
            shutil.copytree(Path(self.root, root), folder / root)
        server = folder / "server"
        modules = [str(path.relative_to(server)) for path in compiled_modules(server)]
        subprocess.run(
            [sys.executable, "-m", "mypyc", *_MYPY_OPTIONS, *modules],
            cwd=server,
            env={**os.environ, "MYPYPATH": f"{folder / 'client'}{os.pathsep}{server}"},
            check=True,
            stdout=sys.stderr,
        )
        libraries = [*server.glob("*__mypyc*.so"), *server.glob("meterhold_server/**/*.so")]
        build_data["force_include"] |= {
            str(library): str(library.relative_to(server)) for library in libraries
        }
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copy, once its libraries are in the wheel."""
        self._copy.cleanup()


def compiled_modules(server: Path) -> list[Path]:
    """The files to compile in a folder of sources. Raises FileNotFoundError if one is gone."""
    found: list[Path] = []
    for pattern in COMPILED:
        modules = sorted(server.glob(f"meterhold_server/{pattern}"))
        if not modules:
            raise FileNotFoundError(f"{pattern!r} names no module: change it in hatch_build.py")
        found += modules
    return found
