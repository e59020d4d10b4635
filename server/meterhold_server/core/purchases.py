"""What is known of a grant by its key: its claim, and the purchase behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meterhold_server.core.model import Claim, ClaimKind
from meterhold_server.core.operations import AccountOperation
from meterhold_server.core.outcomes import Reason, Rejected
from meterhold_server.core.posting import Posting, claim_key

CURRENCY: Final = "currency_code"
_TOMBSTONE: Final = "tombstone"

TOMBSTONE_REQUEST: Final = {_TOMBSTONE: True}
"""The request of a claim that a revocation made before its grant came."""


def find_grant(posting: Posting, operation: AccountOperation, key: str) -> Claim | None:
    """The claim of the grant that a key names; None if none has come."""
    for kind in (ClaimKind.GRANT_AFTER_TOMBSTONE, ClaimKind.GRANT_ONCE):
        claim = posting.state.claims.get(claim_key(kind, operation, key))
        if claim and not is_tombstone(claim):
            return claim
    return None


def is_tombstone(claim: Claim) -> bool:
    """Whether a revocation took the key before the grant came."""
    return _TOMBSTONE in claim.receipt.request


def purchase(source: dict[str, Any] | None, cash: dict[str, Any] | None) -> dict[str, Any]:
    """What a grant says of its purchase."""
    return (source or {}) | (cash or {})


def first_difference(expected: Mapping[str, Any] | None, has: Mapping[str, Any]) -> str | None:
    """The first thing that is not as expected."""
    for name, value in (expected or {}).items():
        if _said(has, name, value) != value:
            return name
    return None


def refuse_source(expected: Mapping[str, Any] | None, has: Mapping[str, Any]) -> Rejected | None:
    """The refusal of a call that means another purchase than the one it names."""
    name = first_difference(expected, has)
    if name is None or expected is None:
        return None
    original = _said(has, name, expected[name])
    return Rejected(
        Reason.SOURCE_MISMATCH, {"field": f"expected_source.{name}", "original": original}
    )


def _said(has: Mapping[str, Any], name: str, expected: Any) -> Any:
    """What a grant does not say is empty or false, as the thing that is expected would be."""
    return has.get(name, type(expected)())
