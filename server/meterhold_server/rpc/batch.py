"""Batch: convert all, submit together what can go together, convert back.

An operation that is not named by its account and ids has to be found first, where others before it
may have put it: the message is cut there, so that one part is done before the next is begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

from google.protobuf.message import Message

from meterhold.v1 import metering_service_pb2 as pb
from meterhold_server.batching import failures
from meterhold_server.batching.failures import Failure
from meterhold_server.batching.places import Answers
from meterhold_server.core.operations import (
    Chain,
    Debit,
    Link,
    Operation,
    RefundCharge,
    ReinstateGrant,
    RevokeGrant,
)
from meterhold_server.core.outcomes import Chained, Outcome, Reason, Rejected
from meterhold_server.rpc import requests, responses
from meterhold_server.rpc.errors import Error, Refusal, refusal_of, status_of
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.service import CALL_SECONDS_MAX, Context, Service, was_sent_before
from meterhold_server.rpc.validation import Fields, InvalidRequest, Violation

OPERATIONS_MAX: Final = 1000
CHAIN_OPERATIONS_MAX: Final = 100


class _Kind(NamedTuple):
    convert: Callable[[Any, Caller], Link]
    respond: Callable[[Any], Message]


_KINDS: Final = {
    "reserve": _Kind(requests.reserve, responses.reserve),
    "settle": _Kind(requests.settle, responses.settle),
    "release": _Kind(requests.release, responses.release),
    "extend": _Kind(requests.extend, responses.extend),
    "debit": _Kind(requests.debit, responses.debit),
    "debit_once": _Kind(requests.debit_once, responses.debit_once),
    "grant_once": _Kind(requests.grant_once, responses.grant_once),
    "refund_charge": _Kind(requests.refund_charge, responses.refund_charge),
    "revoke_grant": _Kind(requests.revoke_grant, responses.revoke_grant),
    "reinstate_grant": _Kind(requests.reinstate_grant, responses.reinstate_grant),
}
"""By the name of the field that asks for it and that answers it."""

_Answer = Outcome | Error


class _Call(NamedTuple):
    """What is the same for the whole of a message."""

    service: Service
    context: Context
    retried: bool
    give_up: float


class _Unit(NamedTuple):
    """A chain, or one operation that is not linked; `start` is its place in the message."""

    start: int
    asked: list[pb.BatchOperation]


async def carry_out(
    request: pb.BatchRequest, service: Service, context: Context
) -> pb.BatchResponse:
    """Carry out a batch. Raises InvalidRequest if it is none, and then nothing was done."""
    _check(request.operations)
    give_up = time.monotonic() + CALL_SECONDS_MAX
    call = _Call(service, context, was_sent_before(context), give_up)
    answers: list[_Answer] = []
    for _, units in groupby(_units(request.operations), _found_by):
        answers += await _answers(list(units), call)
    pairs = zip(request.operations, answers, strict=True)
    return pb.BatchResponse(
        results=[_result(asked, answer, call.retried) for asked, answer in pairs]
    )


def _check(operations: Sequence[pb.BatchOperation]) -> None:
    fields = Fields()
    if not 1 <= len(operations) <= OPERATIONS_MAX:
        fields.wrong("operations", f"has {len(operations)}, 1 to {OPERATIONS_MAX} are allowed")
        fields.done()
    for number, operation in enumerate(operations):
        if operation.WhichOneof("operation") is None:
            fields.wrong(f"operations[{number}]", "asks for nothing that is known here")
    for start, asked in _units(operations):
        if len(asked) > CHAIN_OPERATIONS_MAX:
            description = f"begins a chain of {len(asked)}, at most {CHAIN_OPERATIONS_MAX} may be"
            fields.wrong(f"operations[{start}]", description)
    if operations[-1].linked:
        fields.wrong(f"operations[{len(operations) - 1}]", "is linked, and none comes after it")
    fields.done()


def _units(operations: Sequence[pb.BatchOperation]) -> Iterator[_Unit]:
    asked: list[pb.BatchOperation] = []
    for number, operation in enumerate(operations, 1):
        asked.append(operation)
        if not operation.linked or number == len(operations):
            yield _Unit(number - len(asked), asked)
            asked = []


def _found_by(unit: _Unit) -> Literal["account", "capture", "grant_key"]:
    """What has to be looked up before a unit is done, or while it is."""
    for asked in unit.asked:
        if asked.refund_charge.WhichOneof("charge") == "capture":
            return "capture"
    first = unit.asked[0]
    is_change = first.WhichOneof("operation") in ("revoke_grant", "reinstate_grant")
    if is_change and not (first.revoke_grant.account or first.reinstate_grant.account):
        return "grant_key"
    return "account"


async def _answers(units: Sequence[_Unit], call: _Call) -> list[_Answer]:
    """What the operations of units that can go together came to, in order."""
    prepared = [await _prepared(unit, call) for unit in units]
    submitted = [each for each in prepared if not isinstance(each, list)]
    came_to = iter(await _submit(submitted, call) if submitted else [])
    answers: list[_Answer] = []
    for unit, each in zip(units, prepared, strict=True):
        answers += each if isinstance(each, list) else _told(unit, next(came_to))
    return answers


async def _submit(operations: Sequence[Operation], call: _Call) -> Answers:
    return await call.service.submit_many(operations, call.context, call.give_up)


async def _prepared(unit: _Unit, call: _Call) -> Operation | list[_Answer]:
    """What is to be submitted, or the answers if nothing is."""
    links: list[Link] = []
    wrong: dict[int, _Answer] = {}
    for index, asked in enumerate(unit.asked):
        try:
            links.append(await _link(asked, call.service, chained=len(unit.asked) > 1))
        except (InvalidRequest, Refusal) as error:
            wrong[index] = error
        except Failure as failure:
            return [failure for _ in unit.asked]
    if wrong:
        refused = Rejected(Reason.CHAIN_REFUSED, {"index": unit.start + min(wrong)})
        return [wrong.get(index, refused) for index in range(len(unit.asked))]
    if call.retried and any(isinstance(link, Debit) and not link.request_id for link in links):
        # Without a key nobody can tell whether an earlier attempt was charged.
        return [failures.outcome_unknown() for _ in unit.asked]
    return links[0] if len(links) == 1 else Chain(tuple(links))


async def _link(asked: pb.BatchOperation, service: Service, *, chained: bool) -> Link:
    """One operation. Raises InvalidRequest, Refusal or Failure as its own call does."""
    kind = asked.WhichOneof("operation")
    assert kind is not None, "it was checked"
    link = _KINDS[kind].convert(getattr(asked, kind), service.caller)
    if isinstance(link, RefundCharge) and asked.refund_charge.HasField("capture"):
        link.charge_seq = await service.capture_seq(link, asked.refund_charge.capture)
    if chained and isinstance(link, RevokeGrant | ReinstateGrant) and not link.account_named:
        raise InvalidRequest([Violation("account", "is required in a chain: name the account")])
    return link


def _told(unit: _Unit, answer: Outcome | Failure) -> list[_Answer]:
    """What each operation of a unit came to, with places in the message for those in the chain."""
    if not isinstance(answer, Chained):
        return [answer for _ in unit.asked]
    return [_in_message(unit, outcome) for outcome in answer.outcomes]


def _in_message(unit: _Unit, outcome: Outcome) -> Outcome:
    if isinstance(outcome, Rejected) and outcome.reason is Reason.CHAIN_REFUSED:
        return Rejected(outcome.reason, {"index": unit.start + outcome.details["index"]})
    return outcome


def _result(asked: pb.BatchOperation, answer: _Answer, retried: bool) -> pb.BatchResult:
    error = refusal_of(answer) if isinstance(answer, Rejected) else answer
    if isinstance(error, InvalidRequest | Refusal | Failure):
        status = status_of(error, retried=retried)
        return pb.BatchResult(
            error=pb.BatchError(
                code=status.code.value[0], message=status.message, details=status.details
            )
        )
    kind = asked.WhichOneof("operation")
    assert kind is not None, "it was checked"
    result = pb.BatchResult()
    getattr(result, kind).CopyFrom(_KINDS[kind].respond(error))
    return result
