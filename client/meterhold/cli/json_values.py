"""Results as JSON: the fields of the API by their names, amounts in micros, times in UTC."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from typing import Any

from meterhold import Balance
from meterhold.cli import times


def plain(value: Any) -> Any:
    """Turn a result of the client into what JSON has.

    Of a balance all lots are left out: they are there only if they are asked for.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        if isinstance(value, Balance):
            names = [name for name in names if name not in ("lots", "pending")]
        return {name: _field(getattr(value, name)) for name in names}
    if isinstance(value, datetime):
        return times.iso(value)
    if isinstance(value, timedelta):
        return times.seconds_text(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def _field(value: Any) -> Any:
    if isinstance(value, dict):  # labels and metadata come in no order
        return dict(sorted(value.items()))
    return plain(value)


def line(value: Any) -> str:
    """One line of JSON, in ASCII, so that any terminal and any locale can take it."""
    return json.dumps(plain(value))
