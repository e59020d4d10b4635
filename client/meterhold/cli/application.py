"""The commands of `meterhold`, put together."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from meterhold.cli import (
    auditing,
    changing,
    configuration,
    keys,
    reading,
    reports,
    reversing,
    terms,
    top,
)
from meterhold.cli.exit_codes import ExitCode
from meterhold.cli.running import before_the_command
from meterhold.cli.settings import CONFIG_VARIABLE, KNOWN, PROFILE_VARIABLE

_VARIABLES = ", ".join(
    variable
    for variable in (
        *(known.variable for known in KNOWN.values()),
        CONFIG_VARIABLE,
        PROFILE_VARIABLE,
    )
    if variable
)
_EPILOG = (
    f"What no option says is taken from the environment ({_VARIABLES}), then from the config file; "
    "see `meterhold config`.\n\nExit codes:\n\n"
    + "\n".join(f"{code:3d}  {code.meaning}" for code in ExitCode)
)

app = typer.Typer(
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"meterhold {version('meterhold')}")
        raise typer.Exit


@app.callback()
@before_the_command
def root(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it."),
    ] = False,
) -> None:
    """Accounts of a Meterhold server: what they have, what happens to it, and changing it."""


_PANELS = {
    "Look": (
        reading.balance,
        reading.entries,
        reading.entry,
        reading.reservations,
        reading.reservation,
        reading.lots,
        reading.account,
        reading.accounts,
        reports.stats,
        reports.spend,
        auditing.verify,
        top.top,
    ),
    "Change": (
        changing.grant,
        changing.debit,
        changing.reserve,
        changing.settle,
        changing.release,
        changing.extend,
        reversing.refund,
        reversing.revoke,
        reversing.reinstate,
        terms.configure,
        terms.defaults,
        auditing.rebuild,
    ),
    "Set up": (configuration.config,),
}

_KEYS = {"create": keys.create, "list": keys.list_all, "revoke": keys.revoke}
_COMMAND_EPILOG = "Exit codes and variables: meterhold --help"

for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel, epilog=_COMMAND_EPILOG)(_command)

_keys = typer.Typer(
    help="Make, list and revoke credentials of the namespace.", no_args_is_help=True
)
for _name, _command in _KEYS.items():
    _keys.command(_name, epilog=_COMMAND_EPILOG)(_command)
app.add_typer(_keys, name="keys", rich_help_panel="Set up")
