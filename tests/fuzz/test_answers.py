"""What the fuzzer takes for wrong: every answer of the kind that it is there to find."""

from __future__ import annotations

import random
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from fuzz.answers import MESSAGE_BYTES_MAX, of_error, of_success
from fuzz.messages import Messages
from fuzz.mutations import MUTATIONS, Sample, mutated
from meterhold.v1 import metering_service_pb2 as pb
from rpc.answers import METHODS

RESERVE, STREAM = METHODS["Reserve"], METHODS["Stream"]
GOOD: dict[str, Any] = {
    "reason": "INVALID_FIELD",
    "domain": "meterhold",
    "metadata": {"applied": "NO"},
}


def packed(**info: Any) -> AnyMessage:
    detail = AnyMessage()
    detail.Pack(error_details_pb2.ErrorInfo(**(GOOD | info)))
    return detail


def failed(code: grpc.StatusCode, *details: AnyMessage) -> grpc.aio.AioRpcError:
    status = status_pb2.Status(code=code.value[0], details=details)
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "it failed")


INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("error", "request_bytes", "problem"),
    [
        (failed(INVALID, packed()), 9, ""),
        (failed(grpc.StatusCode.INTERNAL, packed()), 9, "is INTERNAL: it failed"),
        (failed(grpc.StatusCode.UNKNOWN, packed()), 9, "is UNKNOWN: it failed"),
        (failed(INVALID), 9, "is INVALID_ARGUMENT with 0 ErrorInfo, not one"),
        (failed(INVALID, packed(), packed()), 9, "is INVALID_ARGUMENT with 2 ErrorInfo, not one"),
        (
            failed(INVALID, packed(metadata={})),
            9,
            "is INVALID_ARGUMENT and does not say whether it was applied",
        ),
        (
            failed(INVALID, packed(reason="OVERLOADED")),
            9,
            "is INVALID_ARGUMENT, and its reason 'OVERLOADED' of 'meterhold'",
        ),
        (
            failed(INVALID, packed(domain="example")),
            9,
            "is INVALID_ARGUMENT, and its reason 'INVALID_FIELD' of 'example'",
        ),
        (failed(grpc.StatusCode.RESOURCE_EXHAUSTED), MESSAGE_BYTES_MAX + 1, ""),
        (failed(INVALID), MESSAGE_BYTES_MAX + 1, "is INVALID_ARGUMENT, though far too large"),
    ],
)
def test_an_error_says_what_it_has_to(
    error: grpc.aio.AioRpcError, request_bytes: int, problem: str
) -> None:
    assert of_error(RESERVE, error, request_bytes).problem == problem


def test_errors_within_an_answer_are_looked_at_too() -> None:
    wrong = pb.BatchError(code=grpc.StatusCode.INTERNAL.value[0], details=[packed()])
    in_outcome = pb.StreamResponse(id=1, error=wrong)
    in_result = pb.StreamResponse(
        id=1, batch=pb.BatchResponse(results=[pb.BatchResult(error=wrong)])
    )
    for response in (in_outcome, in_result):
        answer = of_success(STREAM, response.SerializeToString())
        assert answer.problem.startswith("is INTERNAL within an answer")
    right = pb.BatchError(code=INVALID.value[0], details=[packed()])
    good = pb.StreamResponse(id=1, error=right)
    assert of_success(STREAM, good.SerializeToString()).problem == ""


def test_an_answer_that_is_no_message_is_wrong() -> None:
    assert of_success(RESERVE, b"\xff").problem == "the answer cannot be parsed"


def test_a_seed_draws_the_same_messages_and_mutants_again() -> None:
    def drawn() -> list[bytes]:
        chance = random.Random(7)
        messages = Messages(chance, now_seconds=1_800_000_000)
        made = []
        for method in METHODS.values():
            data = messages.wild(method.input_type).SerializeToString(deterministic=True)
            made.append(mutated(Sample(data, method.input_type, data), chance)[0])
        return made

    assert drawn() == drawn()


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_takes_any_bytes(name: str) -> None:
    chance = random.Random(name)
    messages = Messages(chance, now_seconds=1_800_000_000)
    changed = 0
    for method in (RESERVE, STREAM, METHODS["GetStats"]):
        whole = messages.plausible(method.input_type).SerializeToString()
        for data in (whole, *(chance.randbytes(size) for size in (0, 1, 2, 5, 50, 500))):
            sample = Sample(data, method.input_type, b"\x0a\x03ann")
            changed += MUTATIONS[name](sample, chance) != data
    assert changed > 0
