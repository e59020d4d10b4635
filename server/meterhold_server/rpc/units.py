"""What a message of a Batch asks for: chains, and operations that are not linked.

Each is converted, submitted and answered as a whole. All here is conversion, with no await.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

from google.protobuf.message import Message

from meterhold.v1 import metering_service_pb2 as pb
from meterhold_server.batching import failures
from meterhold_server.batching.failures import Failure
from meterhold_server.core.operations import Chain, Debit, Link, Operation
from meterhold_server.core.outcomes import Chained, Outcome, Reason, Rejected
from meterhold_server.rpc import requests, responses
from meterhold_server.rpc.errors import Error, Refusal, refusal_of, status_of
from meterhold_server.rpc.requests import Caller
from meterhold_server.rpc.scopes import scope_of_operation
from meterhold_server.rpc.validation import Fields, InvalidRequest, Violation

OPERATIONS_MAX: Final = 1000
CHAIN_OPERATIONS_MAX: Final = 100


class _Kind(NamedTuple):
    convert: Callable[[Any, Caller], Link]
    respond: Callable[[Any, Any], Message]


_KINDS: Final = {
    "reserve": _Kind(requests.reserve, responses.reserve),
    "settle": _Kind(requests.settle, responses.settle),
    "release": _Kind(requests.release, responses.release),
    "extend": _Kind(requests.extend, responses.extend),
    "debit": _Kind(requests.debit, responses.debit),
    "debit_once": _Kind(requests.debit_once, responses.debit),
    "grant_once": _Kind(requests.grant_once, responses.grant_once),
    "refund_charge": _Kind(requests.refund_charge, responses.refund_charge),
    "revoke_grant": _Kind(requests.revoke_grant, responses.revoke_grant),
    "reinstate_grant": _Kind(requests.reinstate_grant, responses.reinstate_grant),
}
"""By the name of the field that asks for it and that answers it."""

Answer = Outcome | Error

# Made once: a union of classes is made anew wherever it is written down.
_WRONG: Final = (InvalidRequest, Refusal)
_ERRORS: Final = (*_WRONG, Failure)


# Plain tuples, as there are a thousand of them in a message: named ones take as long to make as the
# field of a request to check.
Asked = tuple[str, Any]
"""An operation of the message: its kind, and the request it would be as a call of its own."""

Unit = tuple[int, list[Asked]]
"""A chain, or one operation that is not linked, behind its place in the message."""


def units_of(operations: Sequence[pb.BatchOperation]) -> list[Unit]:
    """The operations, chains together. Raises InvalidRequest if there is something wrong."""
    fields = Fields()
    if not 1 <= len(operations) <= OPERATIONS_MAX:
        fields.wrong("operations", f"has {len(operations)}, 1 to {OPERATIONS_MAX} are allowed")
        fields.done()
    units: list[Unit] = []
    links: list[Asked] = []
    for number, operation in enumerate(operations):
        kind = operation.WhichOneof("operation")
        if kind is None:
            fields.wrong(f"operations[{number}]", "asks for nothing that is known here")
            continue
        links.append((kind, getattr(operation, kind)))
        if not operation.linked:
            units.append((number + 1 - len(links), links))
            links = []
    for start, asked in units:
        if len(asked) > CHAIN_OPERATIONS_MAX:
            description = f"begins a chain of {len(asked)}, at most {CHAIN_OPERATIONS_MAX} may be"
            fields.wrong(f"operations[{start}]", description)
    if operations[-1].linked:
        fields.wrong(f"operations[{len(operations) - 1}]", "is linked, and none comes after it")
    fields.done()
    return units


FoundBy = Literal["account", "capture", "grant_key"]


def groups_of(units: list[Unit]) -> Iterable[tuple[FoundBy, list[Unit]]]:
    """The units that can go together."""
    if _LOOKED_UP.isdisjoint([kind for _, asked in units for kind, _ in asked]):
        return [("account", units)]
    return [(found_by, list(group)) for found_by, group in groupby(units, _found_by)]


def _found_by(unit: Unit) -> FoundBy:
    """What has to be looked up before a unit is done, or while it is."""
    _, asked = unit
    if any(names_capture(*each) for each in asked):
        return "capture"
    kind, request = asked[0]
    return "grant_key" if kind in _GRANT_CHANGES and not request.account else "account"


_GRANT_CHANGES: Final = ("revoke_grant", "reinstate_grant")
_LOOKED_UP: Final = frozenset({"refund_charge", *_GRANT_CHANGES})
"""What may have to be looked up."""


def names_capture(kind: str, request: Any) -> bool:
    """Whether it is a refund that names its charge by the capture."""
    return kind == "refund_charge" and request.WhichOneof("charge") == "capture"


def converted_of(unit: Unit, caller: Caller) -> list[Link | Error]:
    """The operations of a unit, or what is wrong with them as calls of their own."""
    _, asked = unit
    converted: list[Link | Error] = []
    for kind, request in asked:
        try:
            caller.require(scope_of_operation(kind))
            link = _KINDS[kind].convert(request, caller)
        except (InvalidRequest, Refusal) as error:
            converted.append(error)
            continue
        converted.append(link)
        if len(asked) > 1 and kind in _GRANT_CHANGES and not request.account:
            wrong = Violation("account", "is required in a chain: name the account")
            converted[-1] = InvalidRequest([wrong])
    return converted


def prepared_of(
    unit: Unit, converted: list[Link | Error], *, retried: bool
) -> Operation | list[Answer]:
    """What is to be submitted, or the answers if nothing is."""
    links = [link for link in converted if not isinstance(link, _ERRORS)]
    if len(links) < len(converted):
        return _refused(unit, converted)
    if retried and any(isinstance(link, Debit) and not link.request_id for link in links):
        # Without a key nobody can tell whether an earlier attempt was charged.
        return [failures.outcome_unknown() for _ in links]
    return links[0] if len(links) == 1 else Chain(tuple(links))


def _refused(unit: Unit, converted: list[Link | Error]) -> list[Answer]:
    """What the operations of a unit are told, of which at least one cannot be submitted."""
    for link in converted:
        if isinstance(link, Failure):
            return [link] * len(converted)
    start, _ = unit
    wrong: dict[int, Answer] = {
        index: link for index, link in enumerate(converted) if isinstance(link, _WRONG)
    }
    refused = Rejected(Reason.CHAIN_REFUSED, {"index": start + min(wrong)})
    return [wrong.get(index, refused) for index in range(len(converted))]


def told(unit: Unit, answer: Outcome | Failure) -> list[Answer]:
    """What each operation of a unit came to, with places in the message for those in the chain."""
    start, asked = unit
    if not isinstance(answer, Chained):
        return [answer] * len(asked)
    return [_in_message(start, outcome) for outcome in answer.outcomes]


def _in_message(start: int, outcome: Outcome) -> Outcome:
    if isinstance(outcome, Rejected) and outcome.reason is Reason.CHAIN_REFUSED:
        return Rejected(outcome.reason, {"index": start + outcome.details["index"]})
    return outcome


def set_result(result: pb.BatchResult, kind: str, answer: Answer, *, retried: bool) -> None:
    """Set what an operation of a kind came to, or its error. `retried` as in `status_of`."""
    error = refusal_of(answer) if isinstance(answer, Rejected) else answer
    if isinstance(error, _ERRORS):
        set_error(result.error, error, retried=retried)
    else:
        _KINDS[kind].respond(getattr(result, kind), error)


def set_error(message: pb.BatchError, error: Error, *, retried: bool) -> None:
    """Set the status of an error, as a part of an answer. `retried` as in `status_of`."""
    status = status_of(error, retried=retried)
    message.code = status.code.value[0]
    message.message = status.message
    message.details.extend(status.details)
