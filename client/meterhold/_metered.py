"""The decorator `metered`: a function whose every call runs inside a hold of its own."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meterhold._async_hold import AsyncHold
    from meterhold._hold import Hold

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


def metered(
    function: Callable[Concatenate[Hold, _P], _R], open_hold: Callable[..., Hold]
) -> Callable[_P, _R]:
    """Wrap a function so that `open_hold`, which gets its arguments, opens the hold it runs in."""
    _check(function, wants_coroutine=False)

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        with open_hold(*args, **kwargs) as hold:
            return function(hold, *args, **kwargs)

    return _without_hold(run)


def async_metered(
    function: Callable[Concatenate[AsyncHold, _P], Awaitable[_R]],
    open_hold: Callable[..., AsyncHold],
) -> Callable[_P, Awaitable[_R]]:
    """Wrap a coroutine function in the same way."""
    _check(function, wants_coroutine=True)

    @functools.wraps(function)
    async def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        async with open_hold(*args, **kwargs) as hold:
            return await function(hold, *args, **kwargs)

    return _without_hold(run)


def value_of(given: _T | Callable[..., _T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _T:
    """Answer a value that was given as such, or as a function of the arguments of the call."""
    return given(*args, **kwargs) if callable(given) else given


def _check(function: Callable[..., object], *, wants_coroutine: bool) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator, which runs after its call has ended: open "
            "the hold inside of it"
        )
    if inspect.iscoroutinefunction(function) is not wants_coroutine:
        wanted = "a coroutine" if wants_coroutine else "an ordinary"
        client = "AsyncClient" if wants_coroutine else "Client"
        raise TypeError(f"{client}.metered needs {wanted} function, not {function.__qualname__}")


def _without_hold(run: Callable[_P, _R]) -> Callable[_P, _R]:
    """Show the signature that callers see: the hold is not theirs to give."""
    signature = inspect.signature(run)
    _, *others = signature.parameters.values()
    run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
    return run
