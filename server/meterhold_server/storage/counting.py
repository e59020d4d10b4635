"""As what each entry counts, in SQL: the conditions that `core.counting` says of one entry."""

from __future__ import annotations

from typing import Final, NamedTuple

_RIGHT_SIGN: Final = (
    "(amount_micros > 0) = (kind IN ('GRANT', 'REFUND', 'ALLOWANCE', 'REINSTATEMENT'))"
)
_WRONG_SIGN: Final = f"kind <> 'CORRECTION' AND NOT ({_RIGHT_SIGN})"
_NAMES_NONE: Final = "coalesce(related_seq, 0) = 0"

GRANTED: Final = "amount_micros > 0 AND kind NOT IN ('REFUND', 'REINSTATEMENT')"
SPENT: Final = "amount_micros < 0 AND kind NOT IN ('EXPIRY', 'REVOCATION')"
EXPIRED: Final = "amount_micros < 0 AND kind = 'EXPIRY'"
REFUNDED: Final = "amount_micros > 0 AND kind = 'REFUND'"
REVOKED: Final = (
    "(amount_micros < 0 AND kind = 'REVOCATION' OR amount_micros > 0 AND kind = 'REINSTATEMENT')"
)
"""Each entry counts by its kind, and as a correction if its sign is not of that kind."""

ELSEWHERE: Final = "kind = 'CORRECTION' AND coalesce(related_seq BETWEEN 1 AND seq - 1, false)"
"""Of a correction that counts in the place of the entry that it names."""

_CONTRADICTIONS: Final = {
    f"kind = 'CORRECTION' AND NOT ({_NAMES_NONE}) AND NOT ({ELSEWHERE})": (
        "' corrects entry ' || related_seq || ', which is not before it'"
    ),
    f"kind <> 'CORRECTION' AND (amount_micros = 0 OR NOT ({_RIGHT_SIGN}))": (
        "' is a ' || kind || ' of ' || amount_micros"
    ),
    "kind IN ('CAPTURE', 'EXPIRY_CHARGE') AND coalesce(reservation_id, '') = ''": (
        "' is a ' || kind || ' of no reservation'"
    ),
    f"kind IN ('DEBIT', 'CAPTURE', 'EXPIRY_CHARGE') AND NOT ({_NAMES_NONE})": (
        "' is a ' || kind || ' that names entry ' || related_seq"
    ),
    f"kind = 'REFUND' AND {_NAMES_NONE}": "' is a REFUND of no charge'",
}
CONTRADICTS: Final = "(" + " OR ".join(f"({each})" for each in _CONTRADICTIONS) + ")"
CONTRADICTION: Final = (
    "'entry ' || seq || CASE "
    + " ".join(f"WHEN {each} THEN {words}" for each, words in _CONTRADICTIONS.items())
    + " END"
)
"""What an entry says that cannot be, in plain words."""

CAPTURED: Final = "kind = 'CAPTURE' AND amount_micros <= 0"
CHARGED_AT_EXPIRY: Final = (
    "(kind = 'EXPIRY_CHARGE' AND amount_micros <= 0 OR kind = 'REFUND' AND amount_micros > 0)"
)
CHARGES_HOLD: Final = f"""(coalesce(reservation_id, '') <> '' AND (
    kind = 'CORRECTION' OR {CAPTURED} OR ({CHARGED_AT_EXPIRY} AND (kind <> 'REFUND' OR key IS NULL))
    OR ({_WRONG_SIGN} AND CASE WHEN amount_micros > 0
        THEN NOT ({_NAMES_NONE}) AND key IS NULL ELSE {_NAMES_NONE} END)))"""
"""Of an entry that counts in what its reservation was charged."""


_NUMBER: Final = '"[a-z_]{1,30}": "-?[0-9]{1,19}"'


def _has(*names: str) -> str:
    """Whether the metadata are nothing but whole numbers as text, these among them."""
    said = " AND ".join(f"metadata ? '{name}'" for name in names)
    return f"coalesce({said} AND metadata::text ~ '^[{{]{_NUMBER}(, {_NUMBER})*[}}]$', false)"


CORRECTED: Final = f"""(amount_micros - CASE
    WHEN kind = 'CORRECTION' AND {_has("charged_micros")}
    THEN (metadata ->> 'charged_micros')::numeric ELSE 0 END)"""
"""Of a correction of a reservation, what it gave back less what it counts as charged beside."""


class PerSeq(NamedTuple):
    """How entries count in a total of a charge or a lot: which do, for which, and how much.

    A kind counts by its amount; a correction beside its own, by its metadata. `beside` is what an
    entry counts so, 0 if it does not.
    """

    counts: str
    seq: str
    micros: str
    beside: str


def _per_seq(counts: str, kinds: str, seq: str, total: str) -> PerSeq:
    """Of entries of `kinds` of which `counts` is true, and which name what they are of."""
    by_metadata = f"{_has(seq, total)} AND length(ltrim(metadata ->> '{seq}', '-')) <= 18"
    micros = f"(metadata ->> '{total}')::numeric"
    return PerSeq(
        # The kinds first, and plainly: there is an index of them.
        f"""kind IN ({kinds}, 'CORRECTION') AND CASE kind
            WHEN 'CORRECTION' THEN {by_metadata} ELSE NOT ({_NAMES_NONE}) AND {counts} END""",
        f"CASE kind WHEN 'CORRECTION' THEN (metadata ->> '{seq}')::bigint ELSE related_seq END",
        f"CASE kind WHEN 'CORRECTION' THEN {micros}"
        " WHEN 'REINSTATEMENT' THEN -amount_micros ELSE abs(amount_micros) END",
        f"CASE WHEN kind <> 'CORRECTION' THEN 0 WHEN {by_metadata} THEN {micros} ELSE 0 END",
    )


REFUNDED_OF_CHARGE: Final = _per_seq(REFUNDED, "'REFUND'", "charge_seq", "refunded_micros")
EXPIRED_OF_LOT: Final = _per_seq(EXPIRED, "'EXPIRY'", "lot_seq", "expired_micros")
REVOKED_OF_LOT: Final = _per_seq(
    REVOKED, "'REVOCATION', 'REINSTATEMENT'", "lot_seq", "revoked_micros"
)
