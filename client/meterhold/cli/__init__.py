"""The command `meterhold`: accounts and their ledger from a shell. See docs/command-line.md.

It is written with the public client alone and needs the extra `cli`. `import meterhold` does not
load it.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

_EXTRA = frozenset({"platformdirs", "rich", "typer"})


def main() -> int:
    """Run the command that `sys.argv` names; exits with one of `exit_codes.ExitCode`."""
    try:
        from meterhold.cli.application import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write("the command line needs: pip install 'meterhold[cli]'\n")
        return 2
    if isinstance(sys.stdout, TextIOWrapper):
        # What has been done must not fail because a terminal has no letter for it.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="meterhold")
    return 0
