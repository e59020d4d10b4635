"""The proxy's README: its commands print what it says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "examples" / "llm_proxy" / "README.md").read_text()
STARTED = re.compile(r"The proxy serves http://(\S+)/v1")
SHOWN = re.compile(
    r"^    curl (?:-N )?localhost:8080(\S+) -H 'authorization: ([^']*)' -d '([^']*)'$"
    r"\s+^```\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.slow
async def test_the_proxy_answers_what_the_readme_says(address: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.llm_proxy"),
        cwd=ROOT,
        env=os.environ | {"PORT": "0", "METERHOLD_ADDRESS": address},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        found = None
        while found is None:
            line = await process.stderr.readline()
            assert line, "the proxy has ended"
            found = STARTED.search(line.decode())
        async with httpx.AsyncClient(base_url=f"http://{found[1]}") as caller:
            shown = SHOWN.findall(README)
            assert len(shown) == 2
            for path, authorization, body, output in shown:
                headers = {"authorization": authorization}
                answer = await caller.post(path, json=json.loads(body), headers=headers)
                assert answer.text.rstrip("\n") == output.rstrip("\n")
    finally:
        process.terminate()
        await process.communicate()
