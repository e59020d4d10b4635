"""The operating-system user a PostgreSQL server runs as."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meterhold_server.embedded.errors import EmbeddedPostgresError

if TYPE_CHECKING:
    from pathlib import Path

# The server gets no other variable: ours hold keys, its own (PGDATA, PGPORT…) would mislead it.
_KEPT_VARIABLES = ("PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True)
class SystemUser:
    """Who the server's processes and files belong to.

    `switched` is true when that is not the user of this process, which then is root.
    """

    uid: int
    gid: int
    switched: bool

    @classmethod
    def for_data(cls, data: Path) -> SystemUser:
        """Ourselves; for root, whom PostgreSQL refuses, the owner of `data`, else `nobody`.

        Raises EmbeddedPostgresError if root finds no user `nobody`.
        """
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), switched=False)
        if data.exists() and (owner := data.stat()).st_uid != 0:
            return cls(owner.st_uid, owner.st_gid, switched=True)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise EmbeddedPostgresError(
                "PostgreSQL does not run as root, and this system has no user `nobody` to run it "
                "as. Start Meterhold as an ordinary user, or set METERHOLD_DATABASE_URL."
            ) from None
        return cls(nobody.pw_uid, nobody.pw_gid, switched=True)

    def own(self, path: Path) -> None:
        """Give `path`, a file or folder of ours, to this user alone."""
        if self.switched:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        path.chmod(0o700 if path.is_dir() else 0o600)

    def closed_folder(self, path: Path) -> Path | None:
        """The first of `path` and the folders above it that a switched user may not pass through.

        None for the user of this process, whom the system itself tells.
        """
        if not self.switched:
            return None
        return next((each for each in (path, *path.parents) if not self._may_pass(each)), None)

    def _may_pass(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of PostgreSQL to its end; its output and errors come as one `stdout`."""
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        return subprocess.run(
            [str(each) for each in command],
            cwd="/",
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            user=self.uid if self.switched else None,
            group=self.gid if self.switched else None,
            extra_groups=[] if self.switched else None,
        )
