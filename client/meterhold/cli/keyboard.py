"""Single keys from a terminal, without the need to press Enter. Not on Windows: Ctrl-C is left."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

if sys.platform != "win32":
    import termios
    import tty


@contextmanager
def single_keys() -> Iterator[None]:
    """Let each key through as it is pressed, if standard input is a terminal; then as it was."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def wait_for_key(seconds: float) -> str:
    """The key that is pressed within `seconds`, empty if none is. Needs `single_keys`."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return ""
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace")
