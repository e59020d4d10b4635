"""docs/command-line.md says what is true: its commands run, and its lists are those of the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from client_cli.conftest import Run
from client_cli.test_commands import SOME_TIME, TIME
from meterhold.cli.exit_codes import ExitCode
from meterhold.cli.settings import CONFIG_VARIABLE, DEFAULT_ADDRESS, KNOWN, PROFILE_VARIABLE

DOCUMENT = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
HOME = "/home/user/.config"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[tuple[str, str]]:
    """Each command line of the console blocks, and what it is said to print."""
    for block in blocks("console"):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, printed = example.partition("\n")
            yield line, printed


async def test_every_command_prints_what_the_document_says(
    run_alone: Run, address: str, config_home: Path
) -> None:
    [config] = blocks("toml")
    file = config_home / "meterhold" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(config.replace(DEFAULT_ADDRESS, address))
    code = -1
    for line, expected in commands():
        if line == "echo $?":
            printed = f"{code}\n"
        else:
            program, *arguments = shlex.split(line)
            assert program == "meterhold"
            done = await run_alone(*arguments)
            code, printed = done.code, done.out + done.err
        printed = printed.replace(address, DEFAULT_ADDRESS).replace(str(config_home), HOME)
        assert TIME.sub(SOME_TIME, printed) == TIME.sub(SOME_TIME, expected), line
    assert code == ExitCode.DONE


def test_the_exit_codes() -> None:
    documented = re.findall(r"^\| (\d+) \| (.*) \|$", DOCUMENT, re.MULTILINE)
    assert documented == [(str(int(code)), code.meaning) for code in ExitCode]


def test_the_settings() -> None:
    rows = re.findall(r"^\| `(--.*?)`.*? \| (\S*) ?\| (\S*) ?\|$", DOCUMENT, re.MULTILINE)
    documented = [tuple(cell.strip("`") for cell in row) for row in rows]
    options = {"timeout_seconds": "--timeout"}
    expected = [
        (options.get(name, f"--{name.replace('_', '-')}"), known.variable or "", name)
        for name, known in KNOWN.items()
    ]
    assert documented == [
        *expected,
        ("--config", CONFIG_VARIABLE, ""),
        ("--profile", PROFILE_VARIABLE, ""),
    ]


async def test_the_commands_that_it_names(run_alone: Run) -> None:
    for name in re.findall(r"`meterhold ([a-z]+) |^\$ meterhold ([a-z]+) ", DOCUMENT, re.MULTILINE):
        assert (await run_alone(name[0] or name[1], "--help")).code == 0
