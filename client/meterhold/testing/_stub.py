"""A service without rules, which answers what a test has scripted."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message_factory import GetMessageClass

from meterhold import _errors
from meterhold.testing import _failures, _messages
from meterhold.testing._clients import InProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from meterhold._errors import Applied, MeterholdError
    from meterhold.testing._channel import Context

    _Scripted = Callable[[Context], bytes]

_BY_PATH = {
    f"/{method.containing_service.full_name}/{method.name}": call
    for call, method in _messages.METHODS.items()
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a `Stub` was asked for.

    `method` is that of the client, such as `reserve`, and `request` the message that was sent, such
    as a `ReserveRequest` of `meterhold.v1`, keys that the client made up included.
    """

    method: str
    request: Any


class Stub(InProcess):
    """Answers each call with what was scripted for it, in that order, and knows no rules.

        stub = meterhold.testing.Stub()
        stub.answers("reserve", held_micros=75, created=True)
        stub.fails("settle", meterhold.InsufficientCredits, available_micros=3)
        with stub.client() as client:
            ...
        assert [call.method for call in stub.calls] == ["reserve", "settle"]

    Answers and errors pass through the client as if a server had sent them: they are serialized,
    and what says `applied` UNKNOWN is replayed with the same key, each attempt being a call of its
    own. A call for which nothing is scripted raises AssertionError.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        """What was asked, in order."""
        self._next: dict[str, deque[_Scripted]] = defaultdict(deque)
        self._always: dict[str, _Scripted] = {}
        self._one_at_a_time = threading.Lock()

    def answers(self, call: str, /, *, always: bool = False, **fields: Any) -> None:
        """Script the next answer to `call`, the name of a method of the client.

        `fields` are those of what the method answers, with the same kinds of values; a result in
        another, such as `balance`, may be a dict. Those left out are 0, empty or UNKNOWN, and times
        1970; but `created` and `status` follow from `replayed`, and a grant has an entry unless it
        is `pending`. A list is one page:
        `stub.answers("list_lots", lots=[{"seq": 1}])`. With `always` it is the answer whenever
        nothing else is scripted.

        Raises ValueError for a call or a field that does not exist.
        """
        answer = _messages.response(_checked(call), fields).SerializeToString()
        self._script(call, lambda _: answer, always=always)

    def fails(
        self,
        call: str,
        error: type[MeterholdError],
        /,
        *,
        always: bool = False,
        reason: str = "",
        message: str = "",
        applied: Applied | None = None,
        retry_delay_seconds: float | None = None,
        field_violations: Iterable[tuple[str, str]] = (),
        **numbers: Any,
    ) -> None:
        """Script the next answer to `call`: a status that the client raises as `error`.

        `reason` chooses among several that are raised alike, such as OVERLOADED or SHUTTING_DOWN,
        both `Unavailable`; empty = the first in the table of errors. `applied` None = UNKNOWN for
        `OutcomeUnknown`, else NO. `numbers` are properties of the exception, such as
        `available_micros`; those left out are 0 or empty. `always` as in `answers`.

        Raises ValueError for a call, an error, a reason or a number that does not exist.
        """
        code, told, details = _failures.status(
            error,
            reason=reason,
            message=message,
            applied=applied,
            retry_delay_seconds=retry_delay_seconds,
            field_violations=field_violations,
            numbers=numbers,
        )
        trailing = ((_errors.DETAILS_KEY, details),)
        self._script(
            _checked(call), lambda context: context.fail(code, told, trailing), always=always
        )

    def _script(self, call: str, scripted: _Scripted, *, always: bool) -> None:
        with self._one_at_a_time:
            if always:
                self._always[call] = scripted
            else:
                self._next[call].append(scripted)

    def _answer(self, method: str, request: bytes, context: Context, /) -> bytes:
        call = _BY_PATH[method]
        asked = GetMessageClass(_messages.METHODS[call].input_type).FromString(request)
        with self._one_at_a_time:
            self.calls.append(Call(call, asked))
            script = self._next[call]
            scripted = script.popleft() if script else self._always.get(call)
        if scripted is None:
            raise AssertionError(
                f"{call} was called ({str(asked).strip()}) and no answer is scripted for it: "
                f"stub.answers({call!r}, ...) or stub.fails({call!r}, ...)"
            )
        return scripted(context)


def _checked(call: str) -> str:
    """Answer the name of a call; ValueError if there is none."""
    if call not in _messages.METHODS:
        raise ValueError(f"there is no call {call!r}; choose of {', '.join(_messages.METHODS)}")
    return call
