"""Where each setting comes from, and what is refused on the way."""

from __future__ import annotations

import inspect
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import meterhold
from client.scripted_server import ScriptedServer
from client_cli.conftest import Run
from meterhold.cli import connection, settings
from meterhold.cli.exit_codes import UsageError
from meterhold.cli.settings import KNOWN, Settings, Value
from meterhold.v1 import metering_service_pb2

FLAG, VARIABLE, FILE, DEFAULT = "flag", "environment", "config file", "default"


def resolve(
    folder: Path,
    toml: str = "",
    *,
    profile: str | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Value] | None = None,
) -> Settings:
    file = folder / "config.toml"
    file.write_text(toml)
    file.chmod(0o600)
    return settings.resolve(
        flags or {}, config=str(file), profile=profile, environment=environment or {}
    )


ROWS: list[tuple[str, Value, str | None, str, Value | None]] = [
    ("address", "flag:1", "variable:1", '"file:1"', "127.0.0.1:7717"),
    ("api_key", "flag", "variable", '"file"', None),
    ("api_key_file", "/flag", "/variable", '"/file"', None),
    ("tls", False, "no", "false", False),
    ("tls_root_certificates", "/flag", "/variable", '"/file"', None),
    ("tls_certificate", "/flag", None, '"/file"', None),
    ("tls_private_key", "/flag", None, '"/file"', None),
    ("tls_server_name", "flag", "variable", '"file"', None),
    ("timeout_seconds", 1.5, "2.5", "3.5", 10.0),
]


@pytest.mark.parametrize(("name", "flag", "variable", "file", "default"), ROWS)
def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, name: str, flag: Value, variable: str | None, file: str, default: Value | None
) -> None:
    toml = f"{name} = {file}"
    environment = {} if variable is None else {str(KNOWN[name].variable): variable}

    def source(**given: Any) -> tuple[str, str]:
        setting = resolve(tmp_path, **given).effective[name]
        return str(setting.value).lower(), setting.source.removesuffix(f" {KNOWN[name].variable}")

    last = "not set" if default is None else DEFAULT
    by_flag = (str(flag).lower(), FLAG)
    by_file = (file.strip('"'), FILE)
    assert source() == (str(default).lower(), last)
    assert source(toml=toml) == by_file
    if variable is not None:
        by_variable = ("false" if name == "tls" else variable, VARIABLE)
        assert source(toml=toml, environment=environment) == by_variable
    assert source(toml=toml, environment=environment, flags={name: flag}) == by_flag


def test_every_setting_has_its_row_in_that_table() -> None:
    assert [row[0] for row in ROWS] == list(KNOWN)


def test_the_defaults_are_those_of_the_client() -> None:
    parameters = inspect.signature(meterhold.Client).parameters
    assert parameters["target"].default == settings.DEFAULT_ADDRESS
    assert parameters["timeout_seconds"].default == settings.DEFAULT_TIMEOUT_SECONDS


@pytest.mark.parametrize(
    ("toml", "variables", "flags", "key"),
    [
        ("", {}, {}, None),
        ('api_key = "from-file"', {}, {}, "from-file"),
        ('api_key_file = "key"', {}, {}, "in-the-file"),
        ('api_key = "from-file"', {"METERHOLD_API_KEY_FILE": "{here}/key"}, {}, "in-the-file"),
        ('api_key_file = "none"', {"METERHOLD_API_KEY": "variable"}, {}, "variable"),
        ("", {"METERHOLD_API_KEY": "variable"}, {"api_key_file": "{here}/key"}, "in-the-file"),
        ("", {"METERHOLD_API_KEY_FILE": "none"}, {"api_key": "flag"}, "flag"),
    ],
)
def test_a_credential_of_either_kind_overrides_both_kinds_of_a_lower_source(
    tmp_path: Path,
    toml: str,
    variables: dict[str, str],
    flags: dict[str, str],
    key: str | None,
) -> None:
    (tmp_path / "key").write_text("in-the-file\n")
    environment = {name: text.format(here=tmp_path) for name, text in variables.items()}
    here = {name: text.format(here=tmp_path) for name, text in flags.items()}
    assert resolve(tmp_path, toml, environment=environment, flags=here).api_key() == key


PROFILES = """
api_key = "the-one-of-the-top-level"
timeout_seconds = 3

[profile.production]
address = "production:1"

[profile.staging]
address = "staging:1"
"""


@pytest.mark.parametrize(
    ("profile", "variable", "address"),
    [
        (None, "", "127.0.0.1:7717"),
        ("production", "", "production:1"),
        (None, "staging", "staging:1"),
        ("production", "staging", "production:1"),
    ],
)
def test_a_profile_is_named_by_flag_or_variable(
    tmp_path: Path, profile: str | None, variable: str, address: str
) -> None:
    environment = {"METERHOLD_PROFILE": variable}
    found = resolve(tmp_path, PROFILES, profile=profile, environment=environment)
    assert found.address == address


def test_a_profile_takes_nothing_from_the_top_level(tmp_path: Path) -> None:
    found = resolve(tmp_path, PROFILES, profile="production")
    assert (found.api_key(), found.timeout_seconds) == (None, 10.0)


@pytest.mark.parametrize(
    ("toml", "profile", "told"),
    [
        ("adress = 1", None, "adress is not a setting; known are address, api_key, api_key_file"),
        ("[profile.a]\nkey = 1", None, "[profile.a]: key is not a setting"),
        ("address = 7717", None, "address must be a text, not empty, not 7717"),
        ('address = ""', None, "address must be a text, not empty, not ''"),
        ('tls = "yes"', None, "tls must be true or false, not 'yes'"),
        ('timeout_seconds = "3"', None, "timeout_seconds must be a number, not '3'"),
        ("timeout_seconds = true", None, "timeout_seconds must be a number, not True"),
        ("timeout_seconds = 0", None, "0 is not a positive number of seconds"),
        ("timeout_seconds = inf", None, "inf is not a positive number of seconds"),
        ("tls_certificate = 1", None, "tls_certificate must be a path, not empty, not 1"),
        ("profile = 1", None, "profiles are tables, such as [profile.production]"),
        ("[profile]\na = 1", None, "profiles are tables"),
        (PROFILES, "prod", "has no profile 'prod'; it has: production, staging"),
        ("", "prod", "has no profile 'prod'; it has: none"),
        ('api_key = "a"\napi_key_file = "b"', None, "both set (config file)"),
        ("address =", None, "Invalid value"),
    ],
)
def test_what_a_config_file_must_not_say(
    tmp_path: Path, toml: str, profile: str | None, told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        resolve(tmp_path, toml, profile=profile)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "flags", "told"),
    [
        ({"METERHOLD_TLS": "perhaps"}, {}, "METERHOLD_TLS: 'perhaps' is neither true nor false"),
        ({"METERHOLD_TIMEOUT_SECONDS": "soon"}, {}, "'soon' is not a number of seconds"),
        ({"METERHOLD_TIMEOUT_SECONDS": "-1"}, {}, "-1 is not a positive number of seconds"),
        ({}, {"timeout_seconds": 0.0}, "--timeout: 0 is not a positive number of seconds"),
        ({}, {"address": ""}, "--address is empty"),
        ({}, {"api_key": "a", "api_key_file": "b"}, "both set (flag)"),
    ],
)
def test_what_variables_and_flags_must_not_say(
    tmp_path: Path, variables: dict[str, str], flags: dict[str, Value], told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        resolve(tmp_path, environment=variables, flags=flags)
    assert told in str(refused.value)


def test_an_empty_variable_is_none(tmp_path: Path) -> None:
    found = resolve(tmp_path, environment={"METERHOLD_ADDRESS": "", "METERHOLD_PROFILE": ""})
    assert found.effective["address"].source == DEFAULT


def test_a_config_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="there is no config file"):
        settings.resolve({}, config=missing, profile=None, environment={})
    environment = {"METERHOLD_CONFIG": missing}
    with pytest.raises(UsageError, match="there is no config file"):
        settings.resolve({}, config=None, profile=None, environment=environment)


@pytest.mark.parametrize(
    ("toml", "tls", "source"),
    [
        ("", False, DEFAULT),
        ("tls = true", True, FILE),
        ('tls_server_name = "a"', True, "implied by tls_server_name"),
        ('tls_server_name = "a"\ntls = false', False, FILE),
    ],
)
def test_what_only_tls_needs_turns_it_on(tmp_path: Path, toml: str, tls: bool, source: str) -> None:
    found = resolve(tmp_path, toml)
    assert (found.tls, found.effective["tls"].source) == (tls, source)


def test_paths_in_the_file_are_beside_it(tmp_path: Path) -> None:
    found = resolve(tmp_path, 'tls_certificate = "client.pem"\ntls_private_key = "~/key.pem"')
    assert found.text("tls_certificate") == str(tmp_path / "client.pem")
    assert found.text("tls_private_key") == str(Path.home() / "key.pem")


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ('api_key_file = "none"', "none cannot be read"),
        ('api_key_file = "empty"', "empty is empty"),
        ('address = "192.0.2.1:1"\napi_key = "k"', "must not cross a network in plaintext"),
        ('tls_root_certificates = "none"', "a TLS file cannot be read"),
        ('tls_certificate = "empty"', "give certificate_chain and private_key, both or neither"),
    ],
)
def test_what_a_client_cannot_be_made_of(tmp_path: Path, toml: str, told: str) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(UsageError) as refused:
        connection.connect(resolve(tmp_path, toml), 1.0)
    assert told in str(refused.value)


def test_a_client_over_tls(tmp_path: Path) -> None:
    roots = Path(ssl.get_default_verify_paths().cafile or "/dev/null")
    found = resolve(tmp_path, f'tls_root_certificates = "{roots}"\napi_key = "k"')
    connection.connect(found, 1.0).close()


async def test_the_key_and_the_time_reach_the_server(
    run_scripted: Run, scripted: ScriptedServer, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("secret\n")
    scripted.last = metering_service_pb2.BalanceResponse()
    await run_scripted("balance", "alice")
    await run_scripted("balance", "alice", "--api-key-file", str(file), "--timeout", "2")
    without, with_key = scripted.calls
    assert "authorization" not in without.metadata
    assert with_key.metadata["authorization"] == "Bearer secret"
    # gRPC sends a time in few digits, rounded up.
    assert 1 < with_key.seconds_remaining < 2.1 < without.seconds_remaining


KEY_OF_20 = "secret-0123456789abc"


@pytest.mark.parametrize(
    ("toml", "mode", "warned"),
    [
        (f'api_key = "{KEY_OF_20}"', 0o600, False),
        (f'api_key = "{KEY_OF_20}"', 0o640, True),
        (f'api_key = "{KEY_OF_20}"', 0o604, True),
        (f'[profile.a]\napi_key = "{KEY_OF_20}"', 0o644, True),
        ('address = "a:1"', 0o644, False),
    ],
)
async def test_a_key_that_others_can_read_is_warned_of(
    run_alone: Run, config_home: Path, toml: str, mode: int, warned: bool
) -> None:
    file = config_home / "meterhold" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(toml)
    file.chmod(mode)
    done = await run_alone("config")
    warning = f"meterhold: warning: others can read the key in {file}: chmod 600 {file}\n"
    assert (done.code, done.err) == (0, warning if warned else "")
    for_programs = await run_alone("config", "--json")
    assert [json.loads(line).keys() for line in for_programs.err.splitlines()] == (
        [{"warning"}] if warned else []
    )


async def test_config_shows_where_each_setting_comes_from(
    run_alone: Run, config_home: Path, tmp_path: Path
) -> None:
    file = config_home / "meterhold" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('address = "a:1"\ntls = true\n')
    done = await run_alone(
        *("config", "--json", "--timeout", "2"), METERHOLD_TLS_ROOT_CERTIFICATES="/roots.pem"
    )
    assert done.value == {
        "config_file": str(file),
        "profile": None,
        "settings": {
            "address": {"value": "a:1", "source": "config file"},
            "api_key": {"value": None, "source": "not set"},
            "api_key_file": {"value": None, "source": "not set"},
            "tls": {"value": True, "source": "config file"},
            "tls_root_certificates": {
                "value": "/roots.pem",
                "source": "environment METERHOLD_TLS_ROOT_CERTIFICATES",
            },
            "tls_certificate": {"value": None, "source": "not set"},
            "tls_private_key": {"value": None, "source": "not set"},
            "tls_server_name": {"value": None, "source": "not set"},
            "timeout_seconds": {"value": 2.0, "source": "flag"},
        },
    }


@pytest.mark.parametrize(
    ("key", "shown"), [(KEY_OF_20, "****9abc"), ("0123456789abcdef", "****cdef"), ("short", "****")]
)
async def test_config_masks_the_key(run_alone: Run, key: str, shown: str) -> None:
    for form in ((), ("--json",)):
        done = await run_alone("config", *form, METERHOLD_API_KEY=key)
        assert shown in done.out
        assert key not in done.out + done.err
