"""Keys that were used, and what is answered when they come again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from meterhold_server.core.operations import Operation
from robustness.conservation.account import Account
from robustness.conservation.told import Told

Place = tuple[Any, ...]
"""What a key was used for, where it counts, and the key."""

_NOT_COMPARED: Final = {"labels", "metadata", "legacy_keys"}


def request(asked: Operation) -> tuple[tuple[str, Any], ...]:
    """What is compared when a key comes again."""
    names = (name for name in asked.__slots__ if name not in _NOT_COMPARED)
    return (("account", asked.account), *((name, getattr(asked, name)) for name in names))


def insufficient(account: Account | None, required: int) -> Told:
    """The refusal for lack of credits."""
    numbers = (0, required, 0)
    if account:
        numbers = (account.available, required, account.reservable)
    return Told("INSUFFICIENT_CREDITS", (), numbers)


@dataclass(slots=True)
class Use:
    """What was asked under a key, and what was answered."""

    request: Any
    answer: Told

    def again(self, request: Any) -> Told:
        if request != self.request:
            return Told("IDEMPOTENCY_MISMATCH")
        return self.answer._replace(replayed=True)


@dataclass(slots=True)
class Uses:
    _uses: dict[Place, Use] = field(default_factory=dict)

    def again(self, place: Place | None, request: Any) -> Told | None:
        """What a request is told whose key was used; None if it was not."""
        use = self._uses.get(place) if place else None
        return use.again(request) if use else None

    def add(self, place: Place | None, request: Any, answer: Told) -> Told:
        if place:
            self._uses[place] = Use(request, answer)
        return answer
