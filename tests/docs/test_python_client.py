"""docs/python-client.md, and the examples in the docstrings: they run, and print what they say."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import textwrap
from pathlib import Path

import pytest

import meterhold

PAGE = (Path(__file__).parents[2] / "docs" / "python-client.md").read_text()


async def _run(program: str, folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
    )
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return printed.decode()


async def test_the_page_prints_what_it_says(address: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    program = "\n".join(text for language, text in blocks if language == "python")
    outputs = [text for language, text in blocks if language == ""]
    printed = await _run(program.replace("127.0.0.1:7717", address), tmp_path)
    assert printed == "".join(outputs)


def _example(documented: object) -> str:
    """The indented block of a docstring."""
    text = inspect.getdoc(documented) or ""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text + "\n", re.MULTILINE)
    return textwrap.dedent("".join(blocks)).replace("...\n", "return text[:10]\n")


SETTING = """
import asyncio
import types

import meterhold

def stream():
    return [types.SimpleNamespace(cost_micros=5)]

Client = meterhold.Client
meterhold.Client = lambda: Client(ADDRESS)
AsyncClient = meterhold.AsyncClient
meterhold.AsyncClient = lambda: AsyncClient(ADDRESS)
client = meterhold.Client()
client.grant_once("alice", 500_000_000, idempotency_key="first")
"""


@pytest.mark.parametrize(
    ("documented", "is_async"),
    [
        (meterhold.Client, False),
        (meterhold.Client.hold, False),
        (meterhold.Client.metered, False),
        (meterhold.AsyncClient, True),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
async def test_docstring_examples_run(
    address: str, tmp_path: Path, documented: object, is_async: bool
) -> None:
    example = _example(documented)
    assert "client" in example
    if is_async:
        example = f"async def main():\n{textwrap.indent(example, '    ')}\nasyncio.run(main())\n"
    setting = SETTING.replace("ADDRESS", repr(address))
    await _run(f"{setting}\n{example}\nclient.close()\n", tmp_path)
