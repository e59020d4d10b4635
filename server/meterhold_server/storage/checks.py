"""The invariants of `core.invariants`, set-wise in SQL: each check selects only what differs.

Every check answers rows of (account_id, what, stored, expected, sentence), as in
`core.differences`, for the accounts with `%(first)s <= account_id <= %(last)s`. None is written
with an account's number of entries in memory: they walk the primary key or aggregate.
"""

from __future__ import annotations

from typing import Final

from meterhold_server.storage import counting
from meterhold_server.storage.charge_blocks import CHARGE_KINDS, charges_by_label
from meterhold_server.storage.tables import metadata


def within(alias: str) -> str:
    """The accounts that are asked for."""
    return f"{alias}.account_id BETWEEN %(first)s::uuid AND %(last)s::uuid"


def _unequal(source: str, *checked: str) -> str:
    """Rows for each of `checked`, which is SQL for (what, stored, expected, by what)."""
    rows = ", ".join(f"({each})" for each in checked)
    return f"""
SELECT account_id, what, stored, expected,
       what || ' ' || stored || ' ≠ ' || by_what || ' ' || expected
FROM ({source}) AS compared
CROSS JOIN LATERAL (VALUES {rows}) AS checked (what, stored, expected, by_what)
WHERE stored <> expected"""


_EXPIRED_BESIDE: Final = counting.EXPIRED_OF_LOT.beside
_REVOKED_BESIDE: Final = counting.REVOKED_OF_LOT.beside

ENTRY_SUMS: Final = f"""
SELECT account_id, sum(entries) AS entries, max(last_seq) AS last_seq, sum(total) AS total,
       coalesce(sum(total) FILTER (WHERE {counting.GRANTED}), 0) AS granted,
       -coalesce(sum(total) FILTER (WHERE {counting.SPENT}), 0)
           - coalesce(sum(expired_beside), 0) - coalesce(sum(revoked_beside), 0) AS spent,
       -coalesce(sum(total) FILTER (WHERE {counting.EXPIRED}), 0)
           + coalesce(sum(expired_beside), 0) AS expired,
       coalesce(sum(total) FILTER (WHERE {counting.REFUNDED}), 0) AS refunded,
       -coalesce(sum(total) FILTER (WHERE {counting.REVOKED}), 0)
           + coalesce(sum(revoked_beside), 0) AS revoked
FROM (
    SELECT account_id, kind,
           CASE WHEN amount_micros > 0 THEN 1 WHEN amount_micros < 0 THEN -1 ELSE 0 END
               AS amount_micros,
           count(*) AS entries, max(seq) AS last_seq, sum(amount_micros) AS total,
           sum({_EXPIRED_BESIDE}) FILTER (WHERE kind = 'CORRECTION') AS expired_beside,
           sum({_REVOKED_BESIDE}) FILTER (WHERE kind = 'CORRECTION') AS revoked_beside
    FROM entry WHERE {within("entry")} GROUP BY 1, 2, 3
) AS alike GROUP BY account_id"""
"""The lifetime totals as the ledger has them. A correction counts as granted or as spent.

What it counts of a lot beside its own amount is not spent then, but expired or revoked. Entries
that count alike, by their kind and sign, are summed first: they are many, and their kinds few.
"""

_TOTALS: Final = _unequal(
    f"""
SELECT a.account_id, a.seq, a.granted_micros, a.spent_micros, a.expired_micros,
       a.refunded_micros, a.revoked_micros, a.held_micros, a.held_on_credit_micros,
       a.lots_available_micros, e.entries, e.total, e.granted, e.spent, e.expired, e.refunded,
       e.revoked, l.available, l.held, r.open, r.on_credit,
       a.granted_micros::numeric + a.refunded_micros - a.spent_micros - a.expired_micros
           - a.revoked_micros AS remaining,
       a.lots_available_micros::numeric - a.debt_micros - a.held_on_credit_micros
           + a.held_micros AS owned
FROM account a
LEFT JOIN ({ENTRY_SUMS}) e ON e.account_id = a.account_id
LEFT JOIN (
    SELECT account_id, sum(available_micros) AS available, sum(held_micros) AS held
    FROM lot WHERE {within("lot")} GROUP BY account_id
) l ON l.account_id = a.account_id
LEFT JOIN (
    SELECT account_id, sum(open_micros) AS open, sum(on_credit_micros) AS on_credit
    FROM reservation WHERE {within("reservation")} AND state = 'ACTIVE' GROUP BY account_id
) r ON r.account_id = a.account_id
WHERE {within("a")}""",
    "'seq', seq::numeric, coalesce(entries, 0), 'number of entries'",
    "'remaining', remaining, owned, 'available + held'",
    "'remaining', remaining, coalesce(total, 0), 'sum of entries'",
    *(
        f"'{name}_micros', {name}_micros, coalesce({name}, 0), 'sum of its entries'"
        for name in ("granted", "spent", "expired", "refunded", "revoked")
    ),
    "'lots available', lots_available_micros, coalesce(available, 0), 'sum of lots'",
    "'held', held_micros, coalesce(held, 0) + held_on_credit_micros,"
    " 'held in lots + held on credit'",
    "'held', held_micros, coalesce(open, 0), 'open in active reservations'",
    "'held on credit', held_on_credit_micros, coalesce(on_credit, 0), 'of active reservations'",
)


def _level(fraction_ppm: int, amount_micros: int) -> str:
    """As `core.clawback.level_micros`, of the places of an early revocation in its list."""
    fraction = (
        f"div(g.amount_micros::numeric * (early ->> {fraction_ppm})::bigint * 2 + 1000000, 2000000)"
    )
    return f"least(g.amount_micros, greatest({fraction}, (early ->> {amount_micros})::bigint))"


PENDING: Final = f"""
SELECT g.account_id, sum(g.amount_micros - least(g.amount_micros, coalesce(w.micros, 0))) AS micros
FROM pending_grant g
LEFT JOIN LATERAL (
    SELECT sum(greatest(0, {_level(0, 1)} - {_level(2, 3)})) AS micros
    FROM jsonb_each(g.revocations) AS said (revocation_id, early)
) w ON true
WHERE {within("g")} AND g.state <> 'LANDED' GROUP BY g.account_id"""
"""What pending grants will put in, less what was revoked of them."""

_PENDING: Final = _unequal(
    f"SELECT a.account_id, a.pending_micros, coalesce(p.micros, 0) AS coming"
    f" FROM account a LEFT JOIN ({PENDING}) p USING (account_id) WHERE {within('a')}",
    "'pending', pending_micros, coming, 'sum of pending grants'",
)

_DEBT: Final = f"""
SELECT account_id, 'debt', debt_micros, 0,
       'debt ' || debt_micros || ' while ' || lots_available_micros || ' are available'
FROM account WHERE {within("account")} AND debt_micros <> 0 AND lots_available_micros <> 0"""

WALK: Final = f"""
WITH walked AS (
    SELECT account_id, seq, amount_micros, related_seq, remaining_after_micros,
           lag(seq, 1, 0::bigint) OVER w AS seq_before,
           lag(remaining_after_micros, 1, 0::bigint) OVER w AS remaining_before,
           elsewhere, contradicts
    FROM (
        -- OFFSET keeps it apart: what is sorted is narrow.
        SELECT account_id, seq, amount_micros, related_seq, remaining_after_micros,
               {counting.ELSEWHERE} AS elsewhere, {counting.CONTRADICTS} AS contradicts
        FROM entry WHERE {within("entry")} OFFSET 0
    ) AS narrow
    WINDOW w AS (PARTITION BY account_id ORDER BY seq)
), noted AS MATERIALIZED (
    SELECT *, remaining_after_micros::numeric - remaining_before
              - CASE WHEN elsewhere THEN 0 ELSE amount_micros END AS change
    FROM walked
    WHERE elsewhere OR contradicts OR seq <> seq_before + 1
       OR remaining_after_micros::numeric - remaining_before <> amount_micros
), corrected AS (
    SELECT account_id, related_seq AS seq, sum(amount_micros) AS micros
    FROM noted WHERE elsewhere GROUP BY account_id, related_seq
), breaks AS (
    SELECT account_id, seq, coalesce(n.change, 0) - coalesce(c.micros, 0) AS change,
           coalesce(n.seq_before, seq - 1) AS seq_before,
           coalesce(n.remaining_before, 0) AS remaining_before,
           coalesce(n.contradicts, false) AND c.micros IS NULL AS contradicts
    FROM noted n FULL JOIN corrected c USING (account_id, seq)
)"""
"""Where the chain of `remaining_after_micros` is broken, or an entry contradicts itself.

`change` is by how much an entry's `remaining_after_micros` is off from the one before it and its
own amount. A correction of another entry counts in the place of that one: the sum of those is taken
off there, and they change nothing in their own place. `remaining_before` is told where `seq_before`
is not the number before. What an entry says that cannot be is explained by a correction of it.
"""

_CHAIN: Final = f"""{WALK}, told AS (
    SELECT b.*, e.remaining_after_micros AS stored, e.amount_micros,
           sum(change) FILTER (WHERE b.seq = seq_before + 1)
               OVER (PARTITION BY account_id ORDER BY b.seq) AS deviation
    FROM breaks b LEFT JOIN entry e USING (account_id, seq)
)
SELECT account_id, 'entry ' || seq || ' remaining after', stored, stored - deviation,
       'entry ' || seq || ' remaining after ' || stored || ' ≠ sum of entries up to it '
       || stored - deviation
FROM told
WHERE stored IS NOT NULL AND seq = seq_before + 1 AND change <> 0 AND deviation <> 0
UNION ALL
SELECT account_id, 'entry ' || seq_before + 1, 0, change,
       CASE WHEN seq = seq_before + 2 THEN 'entry ' || seq - 1 || ' is missing'
            ELSE 'entries ' || seq_before + 1 || ' to ' || seq - 1 || ' are missing' END
       || ', of ' || change || ' by the balances around'
FROM told WHERE stored IS NOT NULL AND seq <> seq_before + 1
UNION ALL
SELECT account_id, 'entry ' || seq, amount_micros, 0,
       (SELECT {counting.CONTRADICTION} FROM entry e
        WHERE e.account_id = told.account_id AND e.seq = told.seq)
FROM told WHERE contradicts
UNION ALL
SELECT account_id, 'entry ' || seq, 0, -change,
       'entry ' || seq || ' is corrected by ' || -change || ' and does not exist'
FROM told WHERE stored IS NULL"""

PARTS: Final = f"""
SELECT account_id, (part -> 0)::bigint AS seq,
       sum(sign(amount_micros)::integer * (part -> 1)::bigint) AS micros
FROM entry, jsonb_array_elements(parts) AS part
WHERE {within("entry")} GROUP BY 1, 2"""
"""By lot: what entries gave to it less what they took."""


def _sums(counted: counting.PerSeq, seq: str) -> str:
    return f"""
SELECT account_id, {counted.seq} AS {seq}, sum({counted.micros}) AS micros,
       bool_or(kind = 'CORRECTION') AS explained
FROM entry WHERE {within("entry")} AND {counted.counts} GROUP BY 1, 2"""


EXPIRED: Final = _sums(counting.EXPIRED_OF_LOT, "seq")
REVOKED: Final = _sums(counting.REVOKED_OF_LOT, "seq")
REFUNDED: Final = _sums(counting.REFUNDED_OF_CHARGE, "charge_seq")
"""By lot or charge, what entries of the kind say, and corrections beside them (`explained`)."""

EARMARKED: Final = f"""
SELECT account_id, (part -> 0)::bigint AS seq, sum((part -> 1)::bigint) AS micros
FROM reservation, jsonb_array_elements(parts) AS part
WHERE {within("reservation")} AND state = 'ACTIVE' GROUP BY 1, 2"""
"""By lot: what active reservations hold of it."""

_LOTS_OF: Final = f"(SELECT * FROM lot WHERE {within('lot')}) l"

_LOT_PARTS: Final = f"""
SELECT account_id, 'lot ' || seq || ' available + held + repaid', l.left_of, coalesce(p.micros, 0),
       CASE WHEN l.left_of IS NULL
           THEN 'entries say ' || p.micros || ' of lot ' || seq || ', which does not exist'
           ELSE 'lot ' || seq || ' available + held + repaid ' || l.left_of
                || ' ≠ its parts of entries ' || coalesce(p.micros, 0) END
FROM (SELECT account_id, seq, available_micros::numeric + held_micros + repaid_micros AS left_of
      FROM lot WHERE {within("lot")}) l
FULL JOIN ({PARTS}) p USING (account_id, seq)
WHERE coalesce(l.left_of, 0) <> coalesce(p.micros, 0)"""

_LOT_EXPIRED: Final = _unequal(
    f"SELECT account_id, seq, expired_micros, coalesce(x.micros, 0) AS micros"
    f" FROM {_LOTS_OF} LEFT JOIN ({EXPIRED}) x USING (account_id, seq)",
    "'lot ' || seq || ' expired', expired_micros, micros, 'its EXPIRY entries'",
)

_LOT_REVOKED: Final = _unequal(
    f"""
SELECT account_id, seq, revoked_micros, coalesce(x.micros, 0) AS micros,
       coalesce(t.taken, 0) AS taken
FROM {_LOTS_OF} LEFT JOIN ({REVOKED}) x USING (account_id, seq)
LEFT JOIN LATERAL (
    SELECT sum((levels ->> 1)::bigint) AS taken
    FROM jsonb_each(l.revocations) AS said (revocation_id, levels)
) t ON true""",
    "'lot ' || seq || ' revoked', revoked_micros, micros, 'its REVOCATION entries'",
    "'lot ' || seq || ' revoked', revoked_micros, taken, 'its revocations'",
)

_LOT_HELD: Final = f"""
SELECT account_id, 'lot ' || seq || ' held', l.held_micros, coalesce(h.micros, 0),
       CASE WHEN l.held_micros IS NULL
           THEN 'reservations hold ' || h.micros || ' in lot ' || seq || ', which does not exist'
           ELSE 'lot ' || seq || ' held ' || l.held_micros || ' ≠ earmarked by reservations '
                || coalesce(h.micros, 0) END
FROM {_LOTS_OF} FULL JOIN ({EARMARKED}) h USING (account_id, seq)
WHERE l.held_micros IS DISTINCT FROM coalesce(h.micros, 0)"""

_LOT_BOUNDS: Final = f"""
SELECT account_id, 'lot ' || seq, available_micros::numeric + held_micros, granted_micros,
       'lot ' || seq || ' has more than was granted'
FROM {_LOTS_OF}
WHERE available_micros::numeric + held_micros + expired_micros + revoked_here_micros
      > granted_micros
   OR revoked_micros::numeric + expired_micros > granted_micros
UNION ALL
SELECT account_id, 'lot ' || seq || ' revoked here', revoked_here_micros, revoked_micros,
       'lot ' || seq || ' revoked here ' || revoked_here_micros || ' is more than all of '
       || revoked_micros
FROM {_LOTS_OF} WHERE revoked_here_micros > revoked_micros"""

_RESERVATIONS: Final = _unequal(
    f"""
SELECT account_id, quote_literal(reservation_id) AS id, r.open_micros, r.reserved_micros,
       coalesce(p.micros, 0) + r.on_credit_micros AS parts,
       r.from_hold_micros::numeric + r.released_micros + r.expiry_charged_micros
       + CASE WHEN r.state = 'ACTIVE' THEN r.open_micros ELSE 0 END AS used
FROM reservation r
LEFT JOIN LATERAL (
    SELECT sum((part -> 1)::bigint) AS micros FROM jsonb_array_elements(r.parts) AS part
) p ON true
WHERE {within("r")}""",
    "'reservation ' || id || ' open', open_micros::numeric, parts, 'its parts'",
    "'reservation ' || id || ' reserved', reserved_micros, used,"
    " 'held + captured from it + released + charged at expiry'",
)

_RESERVATION_STATES: Final = f"""
SELECT account_id, 'reservation ' || quote_literal(reservation_id) || ' state', 0, 0,
       'reservation ' || quote_literal(reservation_id) || ' is ' || state || ' with end time '
       || coalesce(end_time::text, 'none') || ' and '
       || CASE WHEN closing IS NULL THEN 'no closing' ELSE 'a closing' END
FROM reservation
WHERE {within("reservation")}
  AND ((state = 'ACTIVE') <> (end_time IS NULL) OR (state = 'SETTLED') <> (closing IS NOT NULL))"""

CHARGED: Final = f"""
SELECT account_id, reservation_id,
       -coalesce(sum(amount_micros) FILTER (WHERE {counting.CAPTURED}), 0) AS captured,
       -coalesce(sum(amount_micros) FILTER (WHERE {counting.CHARGED_AT_EXPIRY}), 0) AS at_expiry,
       -coalesce(sum({counting.CORRECTED}) FILTER (
           WHERE NOT ({counting.CAPTURED} OR {counting.CHARGED_AT_EXPIRY})
       ), 0) AS corrected,
       min(create_time) AS first_time, max(create_time) AS last_time
FROM entry WHERE {within("entry")} AND {counting.CHARGES_HOLD} GROUP BY 1, 2"""
"""By reservation, what entries charged. A late settle gives back without a key."""

_CHARGED: Final = f"""
SELECT account_id, 'reservation ' || quote_literal(reservation_id) || ' charged',
       r.charged, coalesce(c.charged, 0),
       CASE WHEN r.charged IS NULL
           THEN 'entries charge reservation ' || quote_literal(reservation_id)
                || ', which does not exist'
           ELSE 'reservation ' || quote_literal(reservation_id) || ' charged ' || r.charged
                || ' ≠ sum of its entries ' || coalesce(c.charged, 0) END
FROM (SELECT account_id, reservation_id,
             captured_micros::numeric + expiry_charged_micros AS charged
      FROM reservation WHERE {within("reservation")}) r
FULL JOIN (SELECT account_id, reservation_id, captured + at_expiry + corrected AS charged
           FROM ({CHARGED}) c) c USING (account_id, reservation_id)
WHERE r.charged IS DISTINCT FROM coalesce(c.charged, 0)"""

CHARGE_CORRECTED: Final = """
SELECT coalesce(sum(c.amount_micros), 0) FROM entry c
WHERE c.account_id = r.account_id AND c.related_seq = r.charge_seq
  AND c.kind = 'CORRECTION' AND c.seq > c.related_seq"""
"""By how much corrections of its amount changed the charge of a row `r`: for rows that are few."""

_REFUNDS: Final = f"""
WITH refunded AS ({REFUNDED})
SELECT account_id, 'refunded of entry ' || charge_seq, coalesce(k.refunded_micros, 0),
       coalesce(r.micros, 0),
       'refunded of entry ' || charge_seq || ' ' || coalesce(k.refunded_micros, 0)
       || ' ≠ sum of its refunds ' || coalesce(r.micros, 0)
FROM (SELECT * FROM charge_refund WHERE {within("charge_refund")}) k
FULL JOIN refunded r USING (account_id, charge_seq)
WHERE coalesce(k.refunded_micros, 0) <> coalesce(r.micros, 0)
UNION ALL
SELECT account_id, 'refunded of entry ' || charge_seq, micros, charged,
       'entry ' || charge_seq || ' charged ' || charged || ', ' || micros || ' were given back'
FROM (
    SELECT r.*, greatest(0, -e.amount_micros, -e.amount_micros - ({CHARGE_CORRECTED})) AS charged
    FROM refunded r LEFT JOIN entry e ON e.account_id = r.account_id AND e.seq = r.charge_seq
    WHERE r.micros > coalesce(-e.amount_micros, 0)
) AS over
WHERE micros > charged AND NOT (charged = 0 AND explained)"""

_OF_BLOCK: Final = """
    account_id = b.account_id AND seq BETWEEN b.first_seq AND b.first_seq + b.entry_count - 1"""
_SUMS_OF_BLOCK: Final = (
    "CASE WHEN b.summed_labels IS NOT NULL THEN b.summed_labels || ARRAY[''] END"
)

WRONG_BLOCKS: Final = f"""
SELECT b.account_id, b.first_seq, b.entry_count, wrong.stored, wrong.expected
FROM (SELECT * FROM charge_block WHERE {within("charge_block")}) b
CROSS JOIN LATERAL (
    SELECT count(*) <> b.entry_count OR min(create_time) IS DISTINCT FROM b.first_time
        OR max(create_time) IS DISTINCT FROM b.last_time
        OR count(*) FILTER (
            WHERE kind IN ({CHARGE_KINDS}) AND b.varied_labels IS NOT NULL
            AND labels - (b.summed_labels || b.varied_labels) <> '{{}}'
        ) > 0 AS is_wrong
    FROM entry WHERE {_OF_BLOCK}
) AS extent
CROSS JOIN LATERAL (
    SELECT count(*) AS sums, coalesce(sum(stored), 0) AS stored,
        coalesce(sum(expected), 0) AS expected
    FROM (
        SELECT sum(stored) AS stored, sum(expected) AS expected
        FROM (
            SELECT label, value, day, model, provider, 0 AS stored, charged_micros AS expected,
                -1 AS charges
            FROM ({charges_by_label(_OF_BLOCK, _SUMS_OF_BLOCK)}) AS made
            UNION ALL
            SELECT label, value, day, model, provider, charged_micros, 0, charge_count
            FROM charge_summary s
            WHERE (s.account_id, s.first_seq, s.entry_count)
                = (b.account_id, b.first_seq, b.entry_count)
        ) AS either
        GROUP BY label, value, day, model, provider
        HAVING sum(stored) <> sum(expected) OR sum(charges) <> 0
    ) AS unequal
) AS wrong
WHERE extent.is_wrong OR wrong.sums > 0
UNION ALL
SELECT s.account_id, s.first_seq, s.entry_count, sum(s.charged_micros), 0
FROM charge_summary s
WHERE {within("s")} AND NOT EXISTS (
    SELECT FROM charge_block b WHERE (b.account_id, b.first_seq, b.entry_count)
        = (s.account_id, s.first_seq, s.entry_count)
)
GROUP BY s.account_id, s.first_seq, s.entry_count"""
"""Blocks that are not what their entries say, and the sums of those sums that differ."""

_BLOCKS: Final = f"""
SELECT account_id, 'summary of entries ' || first_seq || ' to ' || first_seq + entry_count - 1,
       stored, expected,
       'the summary of entries ' || first_seq || ' to ' || first_seq + entry_count - 1
       || ' is not that of their charges'
FROM ({WRONG_BLOCKS}) AS wrong"""

OTHER_TIMES: Final = f"""
SELECT account_id, refill_time AS due_time FROM allowance
WHERE {within("allowance")} AND refill_time IS NOT NULL
UNION ALL
SELECT account_id, effective_time FROM pending_grant
WHERE {within("pending_grant")} AND state = 'PENDING'"""
"""When allowances are renewed and pending grants land."""

_NEXT_EXPIRY: Final = f"""
WITH first AS (
    SELECT account_id, min(due_time) AS due_time FROM (
        SELECT account_id, expire_time AS due_time FROM lot
        WHERE {within("lot")} AND available_micros > 0 AND expire_time IS NOT NULL
        UNION ALL
        SELECT account_id, expire_time FROM reservation
        WHERE {within("reservation")} AND state = 'ACTIVE'
        UNION ALL {OTHER_TIMES}
    ) AS due GROUP BY account_id
)
SELECT account_id, 'next expiry',
       coalesce((extract(epoch FROM a.next_expire_time) * 1000000)::bigint, 0),
       (extract(epoch FROM f.due_time) * 1000000)::bigint,
       'next expiry ' || coalesce(a.next_expire_time::text, 'none') || ' is later than '
       || f.due_time
FROM account a JOIN first f USING (account_id)
WHERE {within("a")} AND (a.next_expire_time IS NULL OR a.next_expire_time > f.due_time)"""

STRAY_CLAIM: Final = """t.entry_seq IS NOT NULL AND NOT EXISTS (
    SELECT FROM entry e WHERE e.account_id = t.account_id AND e.seq = t.entry_seq)"""
"""Of a row `t`: a claim that names an entry that does not exist."""


def _stray_claims(table: str) -> str:
    return f"""
SELECT t.account_id, 'claim', 0, t.entry_seq,
       'the key ' || quote_literal(t.key) || ' of ' || t.kind || ' names entry ' || t.entry_seq
       || ', which does not exist: `meterhold-server verify --repair` removes it'
FROM {table} t WHERE {within("t")} AND {STRAY_CLAIM}"""


_CLAIMS: Final = f"""{_stray_claims("claim")}
UNION ALL
SELECT t.account_id, 'claim', 0, coalesce(t.entry_seq, 0),
       'the key ' || quote_literal(t.key) || ' of ' || t.kind || ' was used in namespace '
       || quote_literal(t.namespace) || ' for an account of ' || quote_literal(a.namespace)
FROM claim t JOIN account a USING (account_id)
WHERE {within("t")} AND t.namespace <> a.namespace"""


def _without_account(table: str, needs_one: str = "true") -> str:
    """Rows of no account. The key of a revocation that came before its grant needs none."""
    return f"""
SELECT t.account_id, '{table}', count(*), 0,
       count(*) || ' rows of {table} have no account ' || t.account_id
FROM {table} t
WHERE {within("t")} AND {needs_one}
  AND NOT EXISTS (SELECT FROM account a WHERE a.account_id = t.account_id)
GROUP BY t.account_id"""


_NAMES: Final = {
    "account": "'{}_micros'",
    "lot": "'lot ' || seq || ' {}'",
    "reservation": "'reservation ' || quote_literal(reservation_id) || ' {}'",
}


def _negative(table: str, *names: str) -> str:
    rows = ", ".join(f"({_NAMES[table].format(name)}, {name}_micros)" for name in names)
    least = ", ".join(f"{name}_micros" for name in names)
    return f"""
SELECT account_id, what, stored, 0, what || ' is negative: ' || stored
FROM {table} t CROSS JOIN LATERAL (VALUES {rows}) AS checked (what, stored)
WHERE {within("t")} AND least({least}) < 0 AND stored < 0"""


_OWNED: Final = [
    table.name
    for table in metadata.sorted_tables
    if "account_id" in table.c and table.name not in ("account", "claim")
]

CHECKS: Final[dict[str, str]] = {
    "blocks of charges": _BLOCKS,
    "totals": _TOTALS,
    "debt": _DEBT,
    "pending": _PENDING,
    "chain": _CHAIN,
    "parts of lots": _LOT_PARTS,
    "expired of lots": _LOT_EXPIRED,
    "revoked of lots": _LOT_REVOKED,
    "held of lots": _LOT_HELD,
    "bounds of lots": _LOT_BOUNDS,
    "reservations": _RESERVATIONS,
    "states of reservations": _RESERVATION_STATES,
    "charges of reservations": _CHARGED,
    "refunds": _REFUNDS,
    "next expiry": _NEXT_EXPIRY,
    "claims of accounts": _stray_claims("account_claim"),
    "negative totals": _negative(
        "account",
        "held",
        "debt",
        "held_on_credit",
        "granted",
        "spent",
        "expired",
        "refunded",
        "revoked",
    ),
    "negative lots": _negative(
        "lot", "available", "held", "expired", "repaid", "revoked", "revoked_here"
    ),
    "negative reservations": _negative(
        "reservation", "open", "on_credit", "captured", "from_hold", "released", "expiry_charged"
    ),
    **{f"{table} without account": _without_account(table) for table in _OWNED},
}
"""Each follows an index that `account_id` leads: a range of accounts costs its own rows only."""

WHOLE_CHECKS: Final[dict[str, str]] = {
    "claims": _CLAIMS,
    "claim without account": _without_account("claim", "t.request -> 'tombstone' IS NULL"),
}
"""These read all of `claim`, whose key `account_id` does not lead."""
