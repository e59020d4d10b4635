"""From a function to a command: the options of every command, and how an error is told."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, NoReturn, ParamSpec

import typer

import meterhold
from meterhold.cli.exit_codes import ExitCode, UsageError, exit_code_of
from meterhold.cli.options import Flags
from meterhold.cli.session import Session
from meterhold.cli.tables import printable

_Parameters = ParamSpec("_Parameters")

_SHARED = tuple(inspect.signature(Flags, eval_str=True).parameters.values())


def command(function: Callable[Concatenate[Session, _Parameters], None]) -> Callable[..., None]:
    """Make a command of a function that takes a session; its docstring is the help."""

    def run(context: typer.Context, flags: Flags, given: dict[str, Any]) -> None:
        _, _, name = context.command_path.partition(" ")
        session = Session(name, flags.over(context.obj))
        try:
            function(session, **given)  # type: ignore[call-arg]
        except UnicodeEncodeError:
            _tell_and_exit(session, UsageError("an argument is not UTF-8"))
        except (UsageError, meterhold.MeterholdError) as error:
            _tell_and_exit(session, error)
        except KeyboardInterrupt:
            if not session.can_have_changed:
                raise typer.Exit(ExitCode.INTERRUPTED) from None
            interrupted = meterhold.OutcomeUnknown("interrupted", code="CANCELLED")
            _tell_and_exit(session, interrupted, ExitCode.INTERRUPTED)

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    taking = _taking_flags(run, own)
    taking.__name__ = function.__name__
    taking.__doc__ = function.__doc__
    return taking


def before_the_command(function: Callable[[], None]) -> Callable[..., None]:
    """Make the part of the command line before the name of a command; the docstring is the help."""

    def remember(context: typer.Context, flags: Flags, given: dict[str, Any]) -> None:
        function(**given)
        context.obj = flags

    taking = _taking_flags(remember, inspect.signature(function, eval_str=True).parameters.values())
    taking.__doc__ = function.__doc__
    return taking


def _taking_flags(
    call: Callable[[typer.Context, Flags, dict[str, Any]], None], own: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """A function with the options of every command after its own.

    Typer reads the options from the signature, which is made here, as it is not to be written once
    for each command.
    """

    def taking(context: typer.Context, **given: Any) -> None:
        flags = Flags(**{shared.name: given.pop(shared.name) for shared in _SHARED})
        call(context, flags, given)

    kind = inspect.Parameter.KEYWORD_ONLY
    context = inspect.Parameter("context", kind, annotation=typer.Context)
    parameters = [context, *(parameter.replace(kind=kind) for parameter in (*own, *_SHARED))]
    taking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return taking


def _tell_and_exit(
    session: Session, error: UsageError | meterhold.MeterholdError, code: ExitCode | None = None
) -> NoReturn:
    """Say on stderr what went wrong; exit with `code`, None = that of the error."""
    code = code or exit_code_of(error, changes=session.can_have_changed)
    if session.flags.json:
        typer.echo(json.dumps({"error": _as_json(error, code, session.repeat_with)}), err=True)
        raise typer.Exit(code) from None
    _say(session, _as_text(session, error))
    if session.can_have_changed and error.applied == "UNKNOWN":
        _say(session, session.advice or _how_to_repeat(session.repeat_with or ""))
    raise typer.Exit(code) from None


def _as_json(
    error: UsageError | meterhold.MeterholdError, code: ExitCode, repeat_with: str | None
) -> dict[str, Any]:
    told = {
        "reason": error.reason,
        "code": error.code,
        "message": str(error),
        "applied": error.applied,
        "metadata": dict(sorted(error.metadata.items())),
        "exit_code": int(code),
    }
    if repeat_with is not None and error.applied == "UNKNOWN":
        told["repeat_with"] = repeat_with
    return told


def _as_text(session: Session, error: UsageError | meterhold.MeterholdError) -> str:
    if isinstance(error, meterhold.InsufficientCredits):
        text = (
            f"{session.shown(error.available_micros)} available, "
            f"{session.shown(error.required_micros)} required; top up, or ask for at most "
            f"{session.shown(error.reservable_micros)}"
        )
    elif not error.reason and isinstance(error, meterhold.Unavailable | meterhold.OutcomeUnknown):
        text = f"no answer from {session.address}: {error}"
    elif isinstance(error, meterhold.ServerError) and error.error_id:
        text = f"{error}; the server's log has it as {error.error_id}"
    else:
        text = str(error)
    return text if isinstance(error, UsageError) else f"{text} ({error.reason or error.code})"


def _how_to_repeat(repeat_with: str) -> str:
    again = f"run it again with {repeat_with}" if repeat_with else "run the same command again"
    return f"it may have been done; to find out, {again}: nothing is done twice"


def _say(session: Session, text: str) -> None:
    typer.echo(f"meterhold {session.command}: {printable(text)}", err=True)
