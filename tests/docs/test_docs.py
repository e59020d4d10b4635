"""The documents say what is true: their examples run, and their lists are those of the code."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from meterhold.v1.error_reason_pb2 import ErrorReason
from meterhold_server.rpc.errors import CODES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SEMANTICS = (ROOT / "docs" / "semantics.md").read_text()
ADDRESS_IN_README = "127.0.0.1:7717"


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in a language; "" for plain ones."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_every_reason_is_documented_with_its_code() -> None:
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \|", SEMANTICS, re.MULTILINE))
    assert documented == {reason: code.name for reason, code in CODES.items()}


def test_the_codes_cover_the_reasons_of_the_contract() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118
    assert set(CODES) == names - {"UNSPECIFIED"}


async def test_the_examples_print_what_the_readme_says(address: str) -> None:
    [example] = blocks("python")
    printed = await _output(sys.executable, "-c", example.replace(ADDRESS_IN_README, address))
    assert f"```\n{printed}```" in README

    [(command, shown)] = re.findall(
        r"^    \.venv/bin/(meterhold .*)$\n\n```text\n(.*?)```", README, re.MULTILINE | re.DOTALL
    )
    program, *words = command.split()
    meterhold = Path(sys.executable).with_name(program)
    assert await _output(str(meterhold), *words, "--address", address) == shown

    [balance] = blocks("json")
    grpcurl = shutil.which("grpcurl", path=str(Path(sys.executable).parent))
    if grpcurl is None:
        pytest.skip("grpcurl is not installed here")
    [arguments] = re.findall(
        r"^    .venv/bin/grpcurl -plaintext -d '(.*)' (\S+) (\S+)$", README, re.MULTILINE
    )
    request, _, method = arguments
    answered = await _output(grpcurl, "-plaintext", "-d", request, address, method)
    assert json.loads(answered) == json.loads(balance)


def test_the_make_targets_that_the_documents_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    documents = README + (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"(?:^    |`)make ([a-z-]+)", documents, re.MULTILINE)
    assert "demo" in named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_settings_that_the_readme_names_exist() -> None:
    known = ""
    for command in ("serve", "verify"):
        asked = [sys.executable, "-m", "meterhold_server", command, "--help"]
        known += subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    for flag in re.findall(r"`?serve (--[a-z-]+)|`(--[a-z-]+)`", README):
        assert (flag[0] or flag[1]) in known


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()
