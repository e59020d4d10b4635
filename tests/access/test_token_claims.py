"""What a token says of its holder, and when it opens nothing: the rules, without signatures."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterhold_server.core.credentials import Scope
from meterhold_server.core.tokens import TokenRefusedError, TokenTerms, token_holder

NOW = 1_800_000_000
TERMS = TokenTerms("https://issuer.example", "meterhold", leeway_seconds=30)
GOOD: dict[str, Any] = {
    "iss": "https://issuer.example",
    "aud": "meterhold",
    "sub": "gateway",
    "exp": NOW + 60,
    "meterhold_namespace": "acme",
    "scope": "read meter",
}


def test_the_claims_say_who_calls_and_what_for() -> None:
    holder = token_holder(GOOD, TERMS, NOW)
    assert holder.namespace == "acme"
    assert holder.credential_id == "jwt:gateway"
    assert holder.scopes == {Scope.READ, Scope.METER}
    assert holder.end_seconds == NOW + 60 + 30


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"exp": NOW - 30}, "the token has expired"),
        ({"exp": None}, "`exp` is not a time"),
        ({"exp": str(NOW + 60)}, "`exp` is not a time"),
        ({"exp": True}, "`exp` is not a time"),
        ({"exp": math.inf}, "`exp` is not a time"),
        ({"exp": math.nan}, "`exp` is not a time"),
        ({"exp": 10**400}, "`exp` is not a time"),
        ({"exp": -1}, "`exp` is not a time"),
        ({"nbf": NOW + 31}, "not valid yet, by its claim `nbf`"),
        ({"nbf": "soon"}, "`nbf` is not a time"),
        ({"iat": NOW + 31}, "not valid yet, by its claim `iat`"),
        ({"iss": None}, "`iss` is not the issuer 'https://issuer.example'"),
        ({"iss": "https://issuer.example/"}, "`iss` is not the issuer"),
        ({"iss": ["https://issuer.example"]}, "`iss` is not the issuer"),
        ({"aud": None}, "`aud` does not name the audience 'meterhold'"),
        ({"aud": "meterhold2"}, "`aud` does not name"),
        ({"aud": ["another", "MeterHold"]}, "`aud` does not name"),
        ({"aud": {"meterhold": 1}}, "`aud` does not name"),
        ({"sub": None}, "`sub` is not a text of 1 to 255 characters"),
        ({"sub": ""}, "`sub` is not a text"),
        ({"sub": "x" * 256}, "`sub` is not a text"),
        ({"sub": "a\nb"}, "`sub` has characters that are not printable"),
        ({"sub": "\ud800"}, "`sub` has characters that are not printable"),
        ({"meterhold_namespace": None}, "`meterhold_namespace` is not a text of 1 to 64"),
        ({"meterhold_namespace": ""}, "`meterhold_namespace` is not a text of 1 to 64"),
        ({"meterhold_namespace": "x" * 65}, "`meterhold_namespace` is not a text of 1 to 64"),
        ({"meterhold_namespace": ["acme"]}, "`meterhold_namespace` is not a text of 1 to 64"),
        ({"meterhold_namespace": "a\0b"}, "`meterhold_namespace` has characters"),
        ({"scope": 7}, "`scope` is neither a text nor a list"),
        ({"scope": {"read": True}}, "`scope` is neither a text nor a list"),
    ],
)
def test_what_opens_nothing(claims: dict[str, Any], problem: str) -> None:
    with pytest.raises(TokenRefusedError) as refused:
        token_holder(GOOD | claims, TERMS, NOW)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": NOW - 29},
        {"exp": NOW + 0.5},
        {"nbf": NOW + 30},
        {"iat": NOW + 30},
        {"nbf": NOW - 1, "iat": NOW - 1},
        {"aud": ["another", "meterhold"]},
        {"sub": "x" * 255},
        {"meterhold_namespace": "x" * 64},
        {"anything": {"else": [1]}},
    ],
)
def test_what_opens(claims: dict[str, Any]) -> None:
    assert token_holder(GOOD | claims, TERMS, NOW).scopes == {Scope.READ, Scope.METER}


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("read", {"read"}),
        ("openid read profile", {"read"}),
        (["grant", "admin"], {"grant", "admin"}),
        (["grant", 5, None, ["read"]], {"grant"}),
        ("READ read2 re ad", set()),
        ("read,grant", set()),
        ("", set()),
        ([], set()),
        (None, set()),
    ],
)
def test_words_that_are_no_scopes_give_none(scope: Any, scopes: set[str]) -> None:
    assert token_holder(GOOD | {"scope": scope}, TERMS, NOW).scopes == scopes


def test_the_claims_can_have_other_names() -> None:
    terms = TERMS._replace(namespace_claim="https://example.com/tenant", scope_claim="permissions")
    claims = GOOD | {"https://example.com/tenant": "globex", "permissions": ["admin"]}
    holder = token_holder(claims, terms, NOW)
    assert holder.namespace == "globex"
    assert holder.scopes == {Scope.ADMIN}


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a \n\ud800", max_size=3)
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.just("a"), scalars)


@given(st.dictionaries(st.sampled_from([*GOOD, "nbf", "iat"]), values))
def test_whatever_it_says_it_is_a_holder_or_refused(claims: dict[str, Any]) -> None:
    try:
        holder = token_holder(GOOD | claims, TERMS, NOW)
    except TokenRefusedError:
        return
    assert 0 < len(holder.namespace) <= 64
    assert holder.credential_id.isprintable()
    assert NOW < holder.end_seconds < math.inf
