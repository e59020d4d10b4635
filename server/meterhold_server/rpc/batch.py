"""Batch: convert all, submit together what can go together, convert back.

An operation that is not named by its account and ids has to be found first, where others before it
may have put it: the message is cut there, so that one part is done before the next is begun.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from meterhold.v1 import metering_service_pb2 as pb
from meterhold_server.batching.failures import Failure
from meterhold_server.batching.places import Answers
from meterhold_server.core.operations import Link, Operation, RefundCharge
from meterhold_server.rpc.errors import Error, Refusal
from meterhold_server.rpc.service import CALL_SECONDS_MAX, Context, Service, was_sent_before
from meterhold_server.rpc.units import (
    Answer,
    FoundBy,
    Unit,
    converted_of,
    groups_of,
    names_capture,
    prepared_of,
    set_result,
    told,
    units_of,
)


class _Call(NamedTuple):
    """What is the same for the whole of a message."""

    service: Service
    context: Context
    retried: bool
    give_up: float


async def carry_out(
    request: pb.BatchRequest, service: Service, context: Context, seconds: float | None = None
) -> pb.BatchResponse:
    """Carry out a batch. Raises InvalidRequest if it is none, and then nothing was done.

    `seconds` are what it may take if the context has no deadline; None = CALL_SECONDS_MAX.
    """
    units = units_of(request.operations)
    give_up = time.monotonic() + (CALL_SECONDS_MAX if seconds is None else seconds)
    call = _Call(service, context, was_sent_before(context), give_up)
    answers: list[Answer] = []
    for found_by, group in groups_of(units):
        answers += await _answers(group, found_by, call)
    response = pb.BatchResponse()
    kinds = [kind for _, asked in units for kind, _ in asked]
    add_result = response.results.add
    for kind, answer in zip(kinds, answers, strict=True):
        set_result(add_result(), kind, answer, retried=call.retried)
    return response


async def _answers(units: list[Unit], found_by: FoundBy, call: _Call) -> list[Answer]:
    """What the operations of units that can go together came to, in order."""
    converted = [converted_of(unit, call.service.caller) for unit in units]
    if found_by == "capture":
        for unit, links in zip(units, converted, strict=True):
            await _find_captures(unit, links, call.service)
    prepared = [
        prepared_of(*each, retried=call.retried) for each in zip(units, converted, strict=True)
    ]
    submitted = [each for each in prepared if not isinstance(each, list)]
    came_to = iter(await _submit(submitted, call) if submitted else [])
    answers: list[Answer] = []
    for unit, each in zip(units, prepared, strict=True):
        answers += each if isinstance(each, list) else told(unit, next(came_to))
    return answers


async def _submit(operations: Sequence[Operation], call: _Call) -> Answers:
    return await call.service.submit_many(operations, call.context, call.give_up)


async def _find_captures(unit: Unit, links: list[Link | Error], service: Service) -> None:
    """Find the charges that are named by their captures."""
    _, asked = unit
    for number, ((kind, request), link) in enumerate(zip(asked, links, strict=True)):
        if isinstance(link, RefundCharge) and names_capture(kind, request):
            try:
                link.charge_seq = await service.capture_seq(link, request.capture)
            except (Refusal, Failure) as error:
                links[number] = error
