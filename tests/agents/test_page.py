"""docs/agents-and-gateways.md: its examples run, one after the other, and print what it says."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "agents-and-gateways.md").read_text()


async def test_the_page_prints_what_it_says(address: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    program = "\n".join(text for language, text in blocks if language == "python")
    outputs = [text for language, text in blocks if not language]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program.replace("127.0.0.1:7717", address)),
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    assert printed.decode() == "".join(outputs)
