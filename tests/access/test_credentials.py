"""Keys as text, and how they are proved."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterhold_server.core.credentials import (
    ID_BYTES,
    SECRET_BYTES,
    ApiKey,
    Credential,
    Scope,
    api_key_of,
    credential_id_of,
    parse_api_key,
    parse_scopes,
)

secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
keys = st.builds(
    api_key_of, st.binary(min_size=ID_BYTES, max_size=ID_BYTES).map(credential_id_of), secrets
)


def credential(key: ApiKey) -> Credential:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    scopes = frozenset({Scope.METER})
    return Credential(key.credential_id, "acme", "", scopes, key.secret_hash, None, None, now)


@given(keys)
def test_a_key_is_read_back_as_it_was(key: ApiKey) -> None:
    assert parse_api_key(key.text) == key
    assert key.text.isascii()
    assert len(key.text) == 72


@given(keys)
def test_a_key_never_shows_its_secret_by_itself(key: ApiKey) -> None:
    assert key.secret not in repr(key)
    assert key.secret not in repr(credential(key))


@given(keys, secrets)
def test_only_the_secret_proves_a_credential(key: ApiKey, other: bytes) -> None:
    assert credential(key).is_proved_by(key)
    wrong = api_key_of(key.credential_id, other)
    assert credential(key).is_proved_by(wrong) is (wrong == key)


@given(keys, st.data())
def test_a_key_with_a_wrong_character_is_no_key_or_another(
    key: ApiKey, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(key.text) - 1))
    letter = data.draw(st.characters(exclude_characters=key.text[place]))
    found = parse_api_key(key.text[:place] + letter + key.text[place + 1 :])
    assert found is None or found != key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mh_",
        "mh__",
        "mh_" + "a" * 16 + "_" + "a" * 51,
        "mh_" + "a" * 16 + "_" + "a" * 53,
        "mh_" + "a" * 16 + "_" + "a" * 52 + "\n",
        "mh_" + "A" * 16 + "_" + "a" * 52,
        "mh_" + "a" * 16 + "_" + "1" * 52,
        "sk_" + "a" * 16 + "_" + "a" * 52,
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert parse_api_key(text) is None


def test_the_secret_has_256_bits() -> None:
    assert SECRET_BYTES * 8 == 256


def test_scopes_are_named() -> None:
    assert parse_scopes(["meter", "read"]) == {Scope.METER, Scope.READ}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least one scope is required, of meter, grant, read, admin"),
        (["root"], "'root' is not a scope; they are meter, grant, read, admin"),
        (["meter", ""], "'' is not a scope"),
        (["METER"], "'METER' is not a scope"),
    ],
)
def test_wrong_scopes_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_scopes(names)
