"""What the command ends with, what it says then, and how the same is asked for again safely."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import grpc
import pytest

import meterhold
from client.scripted_server import Abort, Hang, ScriptedServer, error_info
from client_cli.conftest import Run
from meterhold.cli.exit_codes import EXIT_CODES, ExitCode, UsageError, exit_code_of

BRIEFLY = ("--timeout", "0.5")
UNKNOWN = Abort(
    grpc.StatusCode.UNAVAILABLE, "lost", (error_info("OUTCOME_UNKNOWN", applied="UNKNOWN"),)
)
OVERLOADED = Abort(grpc.StatusCode.UNAVAILABLE, "busy", (error_info("OVERLOADED"),))
BUG = Abort(
    grpc.StatusCode.INTERNAL, "a bug in the server", (error_info("INTERNAL", errorId="5f0c"),)
)
BUG_SOMEWHERE = Abort(grpc.StatusCode.INTERNAL, "a bug", (error_info("INTERNAL", "UNKNOWN"),))
DENIED = Abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

ERRORS = [
    value
    for value in vars(meterhold).values()
    if inspect.isclass(value) and issubclass(value, meterhold.MeterholdError)
]


@pytest.mark.parametrize(
    ("command", "code", "reason", "told"),
    [
        ("balance alice", 0, "", ""),
        ("grant alice 1cr --key order-1", 4, "IDEMPOTENCY_MISMATCH", "amount_micros was"),
        ("debit alice 11cr", 3, "INSUFFICIENT_CREDITS", "8.999999 available, 11.000000 required"),
        ("debit alice 11cr --micros", 2, "", "is in credits, and --micros says"),
        ("debit alice 11 --micros --overage reject", 0, "", ""),
        ("debit alice 0cr", 2, "INVALID_FIELD", "amount_micros: is 0, at least 1 is required"),
        ("debit alice 2000000000cr", 2, "AMOUNT_OUT_OF_RANGE", "at most 1000000000000000"),
        ("debit alice 1", 2, "", "1 has no unit: write 1cr"),
        ("debit alice 1cr --key a --request-id b", 2, "", "--key or --request-id, not both"),
        ("debit alice 1cr --label a=1 --label a=2", 2, "", "a --label is given twice"),
        ("reserve alice 1cr --id job-1 --ttl 1h", 4, "IDEMPOTENCY_MISMATCH", "ttl was ''"),
        ("reserve alice 1cr --ttl 8d", 2, "INVALID_FIELD", "ttl: is 691200 s"),
        ("settle alice job-1 1cr --capture-id c", 2, "", "give --keep-open too"),
        ("settle alice job-0 1cr", 4, "RESERVATION_RELEASED", "was released at"),
        ("settle alice none 1cr", 5, "RESERVATION_NOT_FOUND", "no reservation 'none'"),
        ("extend alice job-1", 2, "", "at least one of --ttl, --add and --on-expiry"),
        ("extend alice job-0 --ttl 1h", 4, "RESERVATION_RELEASED", "was released at"),
        ("entry alice --seq 99", 5, "ENTRY_NOT_FOUND", "no entry of that seq or key"),
        ("entry alice", 2, "", "one of --seq, --debit-key, --grant-key and --refund-key"),
        ("refund alice --key k --entry 2", 0, "", ""),
        ("refund alice 2cr --key k --entry 2", 4, "REFUND_EXCEEDS_CHARGE", ""),
        ("refund alice 0cr --key k --entry 2", 2, "", "'0cr' is nothing; for all that is left"),
        ("refund alice --key k --entry 9", 5, "ENTRY_NOT_FOUND", "no entry"),
        ("refund alice --key k --entry 1", 2, "INVALID_FIELD", "names a GRANT; debits, captures"),
        ("refund alice --key k", 2, "", "exactly one of --entry and --reservation"),
        ("refund alice --key k --entry 2 --reservation job-1", 2, "", "exactly one of --entry"),
        ("refund alice --key k --entry 2 --capture-id c", 2, "", "give --reservation too"),
        ("revoke order-1 --amount 1cr --fraction-ppm 5", 2, "", "--amount or --fraction-ppm, not"),
        ("revoke order-1 --account ''", 2, "", "--account is empty; leave it out"),
        ("reinstate order-1 --account ''", 2, "", "--account is empty; leave it out"),
        ("spend ''", 2, "", "the account is empty; leave it out"),
        ("configure alice", 2, "", "at least one of --credit-limit"),
        ("configure alice --allowance 1cr", 2, "", "needs --allowance, its amount, and --allow"),
        ("configure alice --allowance-period daily", 2, "", "needs --allowance, its amount"),
        ("configure alice --allowance-anchor 7d", 2, "", "needs --allowance, its amount"),
        (
            *("configure alice --allowance-period off --allowance 1cr", 2, ""),
            "--allowance-period off goes without",
        ),
        ("defaults --signup-lifetime 30d", 2, "", "--signup-lifetime needs --signup-grant"),
        ("entry alice --seq 1 --debit-key a", 2, "", "exactly one of"),
        ("reservation alice none", 5, "RESERVATION_NOT_FOUND", "no reservation 'none'"),
        ("balance ''", 2, "INVALID_FIELD", "account: is required"),
        ("balance alice --config /none", 2, "", "there is no config file /none"),
        ("top alice", 2, "", "top needs a terminal to draw on; --once prints"),
    ],
)
async def test_exit_codes(
    run: Run, client: meterhold.AsyncClient, command: str, code: int, reason: str, told: str
) -> None:
    await client.grant_once("alice", 10_000_000, idempotency_key="order-1")
    await client.reserve("alice", 1_000_000, reservation_id="job-0")
    await client.release("alice", reservation_id="job-0")
    await client.reserve("alice", 1_000_000, reservation_id="job-1")
    await client.debit("alice", 1)

    done = await run(*shlex.split(command))
    assert (done.code, told in done.err) == (code, True), done
    if code == 0:
        return
    name = command.split()[0]
    assert done.err.startswith(f"meterhold {name}: ")
    assert done.err.endswith(f" ({reason})\n" if reason else "\n")
    error = (await run(*shlex.split(command), "--json")).error
    assert (error["exit_code"], error["reason"], error["applied"]) == (code, reason, "NO")
    assert error["code"] != ""


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("conjure", "No such command 'conjure'"),
        ("balance", "Missing argument"),
        ("balance alice --frobnicate", "No such option: --frobnicate"),
        ("grant alice 1cr", "Missing option '--key'"),
        ("grant alice 1cr --key k --priority 1001", "--priority"),
        ("grant alice 1cr --key k --category gift", "'gift' is not one of promotional, paid"),
        ("grant alice 1cr --key k --expires soon", "'soon' is not a time"),
        ("grant alice 1cr --key ''", "the key is empty"),
        ("debit alice 1cr --key ''", "the key is empty"),
        ("debit alice 1cr --request-id ''", "the key is empty"),
        ("reserve alice 1cr --id ''", "the key is empty"),
        ("settle alice job 1cr --keep-open --capture-id ''", "the key is empty"),
        ("extend alice job --add 1cr --extend-id ''", "the key is empty"),
        ("refund alice --key ''", "the key is empty"),
        ("refund alice --key k --reservation job --capture-id ''", "the key is empty"),
        ("debit alice 1cr --overage cap", "'cap' is not one of reject, overdraft"),
        ("debit alice 1cr --label a", "'a' is not key=value"),
        ("reserve alice 1cr --ttl 5", "'5' is not a length of time"),
        ("entries alice --kind unknown", "'unknown' is not one of grant, debit, capture"),
        ("entries alice --limit 0", "--limit"),
        ("entries alice --since soon", "'soon' is not a time: write 2030-01-31T00:00:00Z, or a"),
        ("revoke k --fraction-ppm 1000001", "--fraction-ppm"),
        ("revoke k --fraction-ppm 0", "--fraction-ppm"),
        ("spend --by team", "'team' is not one of account, model, provider, day, week, month, la"),
        ("spend --by label:", "'label:' is not one of account, model"),
        ("spend --limit 1001", "--limit"),
        ("configure alice --allowance-period yearly", "'yearly' is not one of off, daily, weekly"),
        ("refund alice --entry 1", "Missing option '--key'"),
        ("reservations alice --state done", "'done' is not one of active, settled, released"),
    ],
)
async def test_a_wrong_command_line(run_alone: Run, command: str, told: str) -> None:
    done = await run_alone(*shlex.split(command), COLUMNS="200")
    assert (done.code, done.out) == (2, "")
    assert told in done.err


async def test_an_argument_that_is_not_utf_8(run: Run) -> None:
    done = await run("balance", os.fsdecode(b"\xff"))
    assert (done.code, done.err) == (2, "meterhold balance: an argument is not UTF-8\n")


@pytest.mark.parametrize(
    ("answer", "command", "code", "applied"),
    [
        (OVERLOADED, "debit alice 1cr", 6, "NO"),
        (OVERLOADED, "balance alice", 6, "NO"),
        (UNKNOWN, "debit alice 1cr", 7, "UNKNOWN"),
        (UNKNOWN, "balance alice", 6, "UNKNOWN"),
        (BUG, "debit alice 1cr", 1, "NO"),
        (BUG_SOMEWHERE, "debit alice 1cr", 1, "UNKNOWN"),
        (DENIED, "debit alice 1cr", 4, "NO"),
        (Hang(), "release alice job", 7, "UNKNOWN"),
        (Hang(), "entries alice", 6, "UNKNOWN"),
    ],
    ids=str,
)
async def test_exit_codes_of_a_server_in_trouble(
    run_scripted: Run,
    scripted: ScriptedServer,
    answer: Abort | Hang,
    command: str,
    code: int,
    applied: str,
) -> None:
    scripted.last = answer
    patience = BRIEFLY if applied == "UNKNOWN" else ()
    error = (await run_scripted(*command.split(), "--json", *patience)).error
    assert (error["exit_code"], error["applied"]) == (code, applied)


async def test_a_bug_of_the_server_is_told_with_its_id(
    run_scripted: Run, scripted: ScriptedServer
) -> None:
    scripted.last = BUG
    done = await run_scripted("balance", "alice")
    assert done.err == (
        "meterhold balance: a bug in the server; the server's log has it as 5f0c (INTERNAL)\n"
    )


async def test_no_server(run_alone: Run) -> None:
    done = await run_alone("balance", "alice", "--address", "127.0.0.1:1", *BRIEFLY)
    assert done.code == 6
    assert done.err.startswith("meterhold balance: no answer from 127.0.0.1:1: ")


def test_every_exception_has_an_exit_code() -> None:
    codes = {error: exit_code_of(error(), changes=True) for error in ERRORS}
    assert {error.__name__ for error, code in codes.items() if code is ExitCode.BUG} == {
        "MeterholdError",
        "ServerError",
    }
    assert {*codes.values(), ExitCode.USAGE} == {*EXIT_CODES.values()}
    assert exit_code_of(UsageError(), changes=False) is ExitCode.USAGE


@pytest.mark.parametrize(
    ("command", "option", "field"),
    [
        ("debit alice 1cr", "--request-id", "request_id"),
        ("reserve alice 1cr", "--id", "reservation_id"),
        ("settle alice job 1cr --keep-open", "--capture-id", "capture_id"),
        ("extend alice job --add 1cr", "--extend-id", "extend_id"),
    ],
)
async def test_a_key_that_was_made_up_is_told_if_the_outcome_is_unknown(
    run_scripted: Run, scripted: ScriptedServer, command: str, option: str, field: str
) -> None:
    scripted.last = UNKNOWN
    done = await run_scripted(*command.split(), *BRIEFLY)
    key = getattr(scripted.calls[0].request, field)
    assert re.fullmatch("[0-9a-z]{20}", key)
    assert done.err.splitlines()[1] == (
        f"meterhold {command.split()[0]}: it may have been done; to find out, run it again with "
        f"{option} {key}: nothing is done twice"
    )
    await run_scripted(*command.split(), option, key, *BRIEFLY)
    assert {getattr(call.request, field) for call in scripted.calls} == {key}
    error = (await run_scripted(*command.split(), "--json", *BRIEFLY)).error
    assert error["repeat_with"] == f"{option} {getattr(scripted.calls[-1].request, field)}"


@pytest.mark.parametrize(
    "command",
    [
        "grant alice 1cr --key k",
        "debit alice 1cr --key k",
        "debit alice 1cr --request-id k",
        "reserve alice 1cr --id k",
        "settle alice job 1cr",
        "settle alice job 1cr --keep-open --capture-id k",
        "release alice job",
        "extend alice job --ttl 1h",
        "extend alice job --add 1cr --extend-id k",
        "refund alice --key k --entry 1",
        "revoke order-1 --amount 1cr",
        "reinstate order-1",
        "configure alice --freeze",
        "defaults --signup-grant 1cr",
        "rebuild alice --yes",
    ],
)
async def test_a_command_that_has_its_key_is_repeated_as_it_is(
    run_scripted: Run, scripted: ScriptedServer, command: str
) -> None:
    scripted.last = UNKNOWN
    done = await run_scripted(*command.split(), *BRIEFLY)
    assert done.code == 7
    assert "it may have been done; to find out, run the same command again" in done.err
    assert (await run_scripted(*command.split(), "--json", *BRIEFLY)).error["repeat_with"] == ""
    first, *others = [call.request for call in scripted.calls]
    assert others
    assert all(request == first for request in others)


@pytest.mark.parametrize(
    "given",
    [
        "grant alice 1cr --key k --expires 30d",
        "grant alice 1cr --key k --effective-time 30d",
        "configure alice --allowance 1cr --allowance-period daily --allowance-anchor 30d",
        "defaults --allowance 1cr --allowance-period daily --allowance-anchor 30d",
    ],
)
async def test_a_time_given_as_a_length_is_repeated_as_a_time(
    run_scripted: Run, scripted: ScriptedServer, given: str
) -> None:
    scripted.last = UNKNOWN
    command = (*given.split(), "--json", *BRIEFLY)
    error = (await run_scripted(*command)).error
    repeat = error["repeat_with"].split()
    assert repeat[0] == given.split()[-2]
    assert abs(datetime.fromisoformat(repeat[1]) - datetime.now(UTC) - timedelta(days=30)) < (
        timedelta(minutes=1)
    )
    await run_scripted(*command, *repeat)
    first, *others = [call.request for call in scripted.calls]
    assert all(request == first for request in others)


async def test_a_refusal_is_not_to_be_repeated(run: Run) -> None:
    assert "again" not in (await run("debit", "alice", "1cr")).err
    assert "repeat_with" not in (await run("debit", "alice", "1cr", "--json")).error


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("debit", "alice", "1cr"), r"run it again with --request-id [0-9a-z]{20}: "),
        (("debit", "alice", "1cr", "--key", "k"), r"run the same command again: "),
        (("debit", "alice", "1cr", "--json"), r'"exit_code": 130, "repeat_with": "--request-id '),
        (("balance", "alice"), ""),
    ],
    ids=["made_up", "given", "json", "read"],
)
async def test_ctrl_c_tells_how_to_find_out(
    scripted: ScriptedServer, command: Sequence[str], told: str
) -> None:
    scripted.last = Hang()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "meterhold.cli", *command, "--address", scripted.target),
        stderr=subprocess.PIPE,
    )
    assert await asyncio.to_thread(scripted.called.wait, 30)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert re.search(told, err.decode()) if told else err == b""
