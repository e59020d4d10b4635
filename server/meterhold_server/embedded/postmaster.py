"""The main process of a PostgreSQL server, as its postmaster.pid tells of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Postmaster:
    """One reading of postmaster.pid.

    `socket_directory` is empty for a server that listens on TCP only. `status` is PostgreSQL's
    own word: starting, stopping, ready or standby; empty while the file is being written.
    """

    pid: int
    port: int
    socket_directory: str
    status: str

    @classmethod
    def read(cls, data: Path) -> Postmaster | None:
        """None if the file is absent or says nothing."""
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
            lines += [""] * (8 - len(lines))
            return cls(int(lines[0]), int(lines[3] or 0), lines[4], lines[7].strip())
        except (FileNotFoundError, ValueError):
            return None

    def has_process(self) -> bool:
        """Whether any process, PostgreSQL or not, has the number."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def is_alive(self) -> bool:
        """Whether the process is there and is PostgreSQL.

        After a restart of a container another program may have the number; and a killed server
        stays as a zombie where the first process of a container does not collect it.
        """
        if not self.has_process():
            return False
        try:
            line = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return not Path("/proc/self/stat").exists()  # without /proc the number has to do
        name, _, rest = line.partition("(")[2].rpartition(")")
        return name == "postgres" and not rest.startswith(" Z")
