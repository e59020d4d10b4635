"""Where the server is and who calls: from flags, then the environment, the config file, defaults.

The client's certificate and key have no variable: `meterhold-server` reads its own from those that
they would be called.
"""

from __future__ import annotations

import math
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from meterhold.cli.exit_codes import UsageError

DEFAULT_ADDRESS = "127.0.0.1:7717"
DEFAULT_TIMEOUT_SECONDS = 10.0

Value = str | float | bool


class Known(NamedTuple):
    """A setting: what it holds, its environment variable, and what it is if nobody says."""

    kind: type[str] | type[float] | type[bool] | type[Path]
    variable: str | None
    default: Value | None = None


KNOWN: Mapping[str, Known] = {
    "address": Known(str, "METERHOLD_ADDRESS", DEFAULT_ADDRESS),
    "api_key": Known(str, "METERHOLD_API_KEY"),
    "api_key_file": Known(Path, "METERHOLD_API_KEY_FILE"),
    "tls": Known(bool, "METERHOLD_TLS"),
    "tls_root_certificates": Known(Path, "METERHOLD_TLS_ROOT_CERTIFICATES"),
    "tls_certificate": Known(Path, None),
    "tls_private_key": Known(Path, None),
    "tls_server_name": Known(str, "METERHOLD_TLS_SERVER_NAME"),
    "timeout_seconds": Known(float, "METERHOLD_TIMEOUT_SECONDS", DEFAULT_TIMEOUT_SECONDS),
}
CONFIG_VARIABLE = "METERHOLD_CONFIG"
PROFILE_VARIABLE = "METERHOLD_PROFILE"

# What says who calls: a higher source that gives one of them overrides both of a lower one.
_CREDENTIALS = ("api_key", "api_key_file")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_WANTED = {
    str: "a text, not empty",
    Path: "a path, not empty",
    float: "a number",
    bool: "true or false",
}
_OTHERS_MAY_READ = stat.S_IRGRP | stat.S_IROTH


class Setting(NamedTuple):
    """What a setting is, None if nobody has set it, and who says so."""

    value: Value | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings as they are in force, and what there is to warn of."""

    config_file: Path
    profile: str | None
    effective: Mapping[str, Setting]
    warnings: tuple[str, ...]

    @property
    def address(self) -> str:
        return str(self.effective["address"].value)

    @property
    def timeout_seconds(self) -> float:
        return float(self.effective["timeout_seconds"].value or 0)

    @property
    def tls(self) -> bool:
        return bool(self.effective["tls"].value)

    def text(self, name: str) -> str | None:
        """A setting that is a text or a path; None if it is not set."""
        value = self.effective[name].value
        return None if value is None else str(value)

    def api_key(self) -> str | None:
        """The key, read from its file if that is what is set. Raises UsageError."""
        file = self.text("api_key_file")
        if file is None:
            return self.text("api_key")
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"api_key_file {file} cannot be read: {error}") from None
        if not key:
            raise UsageError(f"api_key_file {file} is empty")
        return key


def resolve(
    flags: Mapping[str, Value | None],
    *,
    config: str | None,
    profile: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Put all sources together. `flags` are by the names of `KNOWN`, None = not given.

    Raises UsageError, which names the source and the setting that is wrong.
    """
    asked = config or environment.get(CONFIG_VARIABLE)
    path = Path(asked).expanduser() if asked else default_config_file()
    profile = profile or environment.get(PROFILE_VARIABLE) or None
    content = _read(path, required=asked is not None)
    sources = (
        _from_flags(flags),
        _from_environment(environment),
        _from_file(path, content, profile),
    )
    for source in sources:
        if all(name in source for name in _CREDENTIALS):
            raise UsageError(f"api_key and api_key_file are both set ({source['api_key'].source})")
    found: dict[str, Setting] = {}
    for source in sources:
        overridden = _CREDENTIALS if any(name in found for name in _CREDENTIALS) else ()
        found = {n: s for n, s in source.items() if n not in overridden} | found
    found.setdefault("tls", _implied_tls(found))
    for name, known in KNOWN.items():
        default = Setting(known.default, "not set" if known.default is None else "default")
        found.setdefault(name, default)
    return Settings(
        config_file=path, profile=profile, effective=found, warnings=_warnings(path, content)
    )


def default_config_file() -> Path:
    return platformdirs.user_config_path("meterhold") / "config.toml"


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise UsageError(f"there is no config file {path}") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"config file {path}: {error}") from None


def _from_flags(flags: Mapping[str, Value | None]) -> dict[str, Setting]:
    found = {}
    for name, value in flags.items():
        if value == "":
            raise UsageError(f"--{name.replace('_', '-')} is empty")
        if name == "timeout_seconds" and value is not None:
            _checked("--timeout", float(value))
        if value is not None:
            found[name] = Setting(value, "flag")
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Setting]:
    found = {}
    for name, known in KNOWN.items():
        text = environment.get(known.variable or "")
        if text:
            source = f"environment {known.variable}"
            found[name] = Setting(_from_text(source, known, text), source)
    return found


def _from_text(source: str, known: Known, text: str) -> Value:
    if known.kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise UsageError(f"{source}: {text!r} is neither true nor false")
    if known.kind is float:
        try:
            return _checked(source, float(text))
        except ValueError:
            raise UsageError(f"{source}: {text!r} is not a number of seconds") from None
    return str(Path(text).expanduser()) if known.kind is Path else text


def _from_file(path: Path, content: dict[str, Any], profile: str | None) -> dict[str, Setting]:
    """What one profile says, or the top level if there is none.

    A profile takes nothing from the top level: no key goes to the address of another by mistake.
    """
    profiles = content.get("profile", {})
    if not isinstance(profiles, dict) or not all(isinstance(v, dict) for v in profiles.values()):
        raise UsageError(f"config file {path}: profiles are tables, such as [profile.production]")
    levels: dict[str | None, dict[str, Any]] = {
        None: {name: value for name, value in content.items() if name != "profile"},
        **profiles,
    }
    settings = {
        name: {key: _from_toml(path, name, key, value) for key, value in level.items()}
        for name, level in levels.items()
    }
    if profile not in settings:
        known = ", ".join(sorted(profiles)) or "none"
        raise UsageError(f"config file {path} has no profile {profile!r}; it has: {known}")
    return settings[profile]


def _from_toml(path: Path, profile: str | None, key: str, value: Any) -> Setting:
    table = "" if profile is None else f" [profile.{profile}]"
    wrong = f"config file {path}{table}: {key}"
    known = KNOWN.get(key)
    if known is None:
        raise UsageError(f"{wrong} is not a setting; known are {', '.join(KNOWN)}")
    if not _is_of_kind(value, known):
        raise UsageError(f"{wrong} must be {_WANTED[known.kind]}, not {value!r}")
    if known.kind is float:
        value = _checked(wrong, float(value))
    if known.kind is Path:
        value = str(path.parent / Path(value).expanduser())
    return Setting(value, f"config file{table}")


def _is_of_kind(value: Any, known: Known) -> bool:
    if known.kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if known.kind is bool:
        return isinstance(value, bool)
    return isinstance(value, str) and value != ""


def _checked(source: str, seconds: float) -> float:
    if not 0 < seconds < math.inf:
        raise UsageError(f"{source}: {seconds:g} is not a positive number of seconds")
    return seconds


def _implied_tls(found: Mapping[str, Setting]) -> Setting:
    """Encrypt if there is anything to do it with."""
    means = next((name for name in found if name.startswith("tls_")), None)
    return Setting(False, "default") if means is None else Setting(True, f"implied by {means}")


def _warnings(path: Path, content: dict[str, Any]) -> tuple[str, ...]:
    levels = [content, *content.get("profile", {}).values()]
    if not any("api_key" in level for level in levels):
        return ()
    if os.name != "posix" or not path.stat().st_mode & _OTHERS_MAY_READ:
        return ()
    return (f"others can read the key in {path}: chmod 600 {path}",)
