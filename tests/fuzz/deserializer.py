"""The deserialisers of a server, in this process: a message, or what becomes INVALID_ARGUMENT."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from fuzz.messages import Messages
from fuzz.methods import path
from fuzz.mutations import Sample, mutated
from meterhold_server.rpc.errors import status_of
from meterhold_server.rpc.handlers import Malformed, open_handler

_SAMPLES: Final = 40


class Parsed(NamedTuple):
    """How many mutants were messages, how many were refused, and what else came of any."""

    messages: int
    refused: int
    mutations: Counter[str]
    problems: list[str]


class _Nobody:
    """Has every method there is. None is called."""

    def __getattr__(self, name: str) -> object:
        return name


def parse_mutants(methods: Iterable[MethodDescriptor], count: int, seed: int) -> Parsed:
    """Hand so many mutants to the deserialisers, as many to each."""
    wanted = list(methods)
    chance = random.Random(f"{seed} deserializer")
    messages = refused = 0
    mutations: Counter[str] = Counter()
    problems: list[str] = []
    for method in wanted:
        deserialize = _deserializer_of(method)
        kind = GetMessageClass(method.input_type)
        samples = _samples(method, chance)
        for _ in range(count // len(wanted)):
            sample = Sample(chance.choice(samples), method.input_type, chance.choice(samples))
            data, names = mutated(sample, chance)
            mutations.update(names)
            try:
                found = deserialize(data)
            except Exception as error:
                problems.append(f"{method.full_name} {data.hex()}: {error!r}")
                continue
            if isinstance(found, kind):
                messages += 1
            elif isinstance(found, Malformed) and _is_refused(found):
                refused += 1
            else:
                problems.append(f"{method.full_name} {data.hex()}: became {found!r}")
    return Parsed(messages, refused, mutations, problems)


def _samples(method: MethodDescriptor, chance: random.Random) -> list[bytes]:
    made = Messages(chance, now_seconds=time.time())
    both = (made.plausible, made.wild)
    return [chance.choice(both)(method.input_type).SerializeToString() for _ in range(_SAMPLES)]


def _deserializer_of(method: MethodDescriptor) -> Any:
    """That of a server, by the way that gRPC takes."""
    handlers = open_handler(method.containing_service, _Nobody())
    details: Any = SimpleNamespace(method=path(method))
    handler: Any = handlers.service(details)
    return handler.request_deserializer


def _is_refused(malformed: Malformed) -> bool:
    return status_of(malformed.error()).code is grpc.StatusCode.INVALID_ARGUMENT
