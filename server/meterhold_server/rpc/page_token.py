"""Page tokens: the last key of a page and a digest of the request's filters, base64url.

Opaque by contract and without authority: a token only ever says where in the caller's own account
to go on.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson

from meterhold_server.rpc.validation import Fields

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1000


def page_size(fields: Fields, value: int) -> int:
    """0 is the default, and what is over the maximum is the maximum."""
    if value < 0:
        fields.wrong("page_size", f"is {value}, from 0 to {PAGE_SIZE_MAX} is allowed")
    return min(value or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)


def encode(filters: tuple[Any, ...], key: tuple[Any, ...]) -> str:
    return urlsafe_b64encode(orjson.dumps([_digest(filters), *key])).decode()


def decode_seq(fields: Fields, token: str, filters: tuple[Any, ...]) -> int | None:
    """The `seq` that a token carries; None for the first page, or if the token is wrong."""
    match _decode(token, filters):
        case [int(seq)] if seq is not True and 0 < seq < 2**63:
            return seq
    _refuse(fields, token)
    return None


def decode_time_and_id(
    fields: Fields, token: str, filters: tuple[Any, ...]
) -> tuple[datetime, str] | None:
    """The time and id that a token carries; None for the first page, or if the token is wrong."""
    match _decode(token, filters):
        case [str(time), str(name)] if "\0" not in name:
            with suppress(ValueError):
                return datetime.fromisoformat(time), name
    _refuse(fields, token)
    return None


def decode_account_and_unit(
    fields: Fields, token: str, filters: tuple[Any, ...]
) -> tuple[str, str] | None:
    """The account and unit that a token carries; None for the first page, or if it is wrong."""
    match _decode(token, filters):
        case [str(account), str(unit)] if "\0" not in account + unit:
            return account, unit
    _refuse(fields, token)
    return None


def _decode(token: str, filters: tuple[Any, ...]) -> list[Any] | None:
    try:
        match orjson.loads(urlsafe_b64decode(token.encode())):
            case [digest, *key] if digest == _digest(filters):
                return key
    except ValueError:
        pass
    return None


def _refuse(fields: Fields, token: str) -> None:
    if token:
        fields.wrong("page_token", "is not a token of this request with these other fields")


def _digest(filters: tuple[Any, ...]) -> str:
    return hashlib.blake2b(repr(filters).encode(), digest_size=6).hexdigest()
