"""The commands of docs/operations.md, and how they are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from meterhold_server.embedded import EmbeddedPostgresError
from meterhold_server.embedded.binaries import Binaries
from meterhold_server.embedded.cluster import Cluster
from meterhold_server.embedded.system_user import SystemUser

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()

QUERIES = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = dict(re.findall(r"^```sh\n# (.*?)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
"""By the comment of their first line."""


def run_block(name: str, folder: Path, **variables: str) -> str:
    """Run commands of the page as the user of PostgreSQL, in `folder`. Answers what they print."""
    user = SystemUser.for_data(folder / "data")
    programs = Cluster(folder).binaries(user).prefix / "bin"
    done = subprocess.run(
        [sys.executable, "-m", "operations.page", str(user.uid), str(user.gid), COMMANDS[name]],
        cwd=Path(__file__).parents[1],
        env=os.environ | variables | {"PATH": f"{programs}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{name}: {done.stdout}"
    return done.stdout


def has_programs(*names: str) -> bool:
    """Whether the PostgreSQL of the tests has all of them: some packages have but the server."""
    try:
        found = Binaries.locate()
    except EmbeddedPostgresError:
        return False
    return all(found.program(name).exists() for name in names)


def _become(uid: str, gid: str, script: str) -> None:
    """Run a script as that user: here, as a fork crashes in a process with busy gRPC threads."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    os.execvp("sh", ["sh", "-eu", "-c", script])


if __name__ == "__main__":
    _become(*sys.argv[1:])
