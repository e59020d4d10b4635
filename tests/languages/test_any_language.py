"""docs/any-language.md says what the contract, the server and our own client do."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

import meterhold
from meterhold._channel import SERVICE_CONFIG
from meterhold._errors import from_rpc_error
from meterhold.v1 import admin_service_pb2, metering_service_pb2
from meterhold_server.rpc.errors import CODES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "any-language.md").read_text()
COPIES_OF_THE_SERVICE_CONFIG = (
    "docs/any-language.md",
    "examples/go/meterhold.go",
    "examples/typescript/src/meterhold.ts",
    "examples/java/src/main/java/example/Meterhold.java",
)


def rows(heading: str) -> list[list[str]]:
    """The rows of the table whose heading begins like that, without their backquotes."""
    table = PAGE[PAGE.index(heading) :].split("\n\n")[0]
    lines = table.replace("`", "").replace("**", "").splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("file", COPIES_OF_THE_SERVICE_CONFIG)
def test_the_service_config_is_that_of_our_own_client(file: str) -> None:
    text = (ROOT / file).read_text()
    start = text.rindex("{", 0, text.index('"loadBalancingConfig"'))
    config, _ = json.JSONDecoder().raw_decode(text[start:])
    assert config == SERVICE_CONFIG


def test_every_call_is_in_the_table_with_a_key_that_it_has() -> None:
    methods = {
        method.name: method
        for module in (metering_service_pb2, admin_service_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    named: set[str] = set()
    for calls, key, _ in rows("| Call |"):
        found = [methods[word] for word in re.findall(r"\b[A-Z]\w+", calls) if word in methods]
        assert found, calls
        named.update(method.name for method in found)
        if not key.startswith(("none", "needs none")):
            assert key.split(",")[0] in found[0].input_type.fields_by_name, calls
    assert named == set(methods)


class Answer(grpc.RpcError):
    """What a stub raises."""

    def __init__(self, code: grpc.StatusCode, applied: str | None, reason: str) -> None:
        status = status_pb2.Status()
        if applied:
            info = error_details_pb2.ErrorInfo(
                reason=reason, domain="meterhold", metadata={"applied": applied}
            )
            packed = any_pb2.Any()
            packed.Pack(info)
            status.details.append(packed)
        self._code = code
        self._metadata = (("grpc-status-details-bin", status.SerializeToString()),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> Any:
        return self._metadata


def meaning(error: meterhold.MeterholdError) -> str:
    if isinstance(error, meterhold.ServerError) and error.applied == "NO":
        return "a bug"
    if error.applied == "UNKNOWN":
        return "unknown"
    return "unavailable" if isinstance(error, meterhold.Unavailable) else "refused"


def test_the_codes_mean_what_our_own_client_takes_them_for() -> None:
    told = {
        name: cells
        for codes, *cells in rows("| Code |")
        for name in re.findall(r"[A-Z_]{2,}", codes)
    }
    rest = told["CANCELLED"]
    for code in set(grpc.StatusCode) - {grpc.StatusCode.OK}:
        reasons = [reason for reason, its in CODES.items() if its is code] or ["A_NEW_ONE"]
        for reason in set(reasons) - {"OUTCOME_UNKNOWN"}:
            for applied, cell in zip(
                ("NO", "UNKNOWN", None), told.get(code.name, rest), strict=True
            ):
                error = from_rpc_error(Answer(code, applied, reason))
                assert cell.startswith(meaning(error)), (code, reason, applied)


async def test_grpcurl_prints_what_the_page_says(address: str) -> None:
    grpcurl = shutil.which("grpcurl", path=str(Path(sys.executable).parent))
    if grpcurl is None:
        pytest.skip("grpcurl is not installed here")
    [command] = re.findall(r"^    grpcurl (.*)$", PAGE, re.MULTILINE)
    arguments = [address if word == "127.0.0.1:7717" else word for word in shlex.split(command)]
    process = await asyncio.create_subprocess_exec(grpcurl, *arguments, stderr=PIPE)
    _, told = await process.communicate()
    lines = [line for line in told.decode().splitlines() if "RequestInfo" not in line]
    assert "```\n" + "\n".join(lines) + "\n```" in PAGE
