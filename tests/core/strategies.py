"""Random operations, from pools so small that replays, conflicts and expiries are frequent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import cycle
from typing import Final, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from meterhold_server.core.model import (
    AccountKey,
    AllowancePeriod,
    AllowanceTerms,
    LotCategory,
    OnExpiry,
    Overage,
)
from meterhold_server.core.operations import (
    Chain,
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Expire,
    Extend,
    GrantOnce,
    Link,
    Operation,
    RefundCharge,
    ReinstateGrant,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
    nobody,
)

from .book import ALICE, START, Book, grant

LAW: Final = settings(max_examples=300, deadline=None, print_blob=True)
"""How hard the laws are tried that everything rests on."""

SIDE_LAW: Final = settings(LAW, max_examples=100)
"""The same for those that say more about less."""

BOB: Final = AccountKey("live", "bob", "credits")
ACCOUNTS: Final = (ALICE, BOB)

accounts = st.sampled_from([ALICE] * 7 + [BOB])
amounts = st.sampled_from([1, 5, 10, 10, 20, 30, 50])
amounts_or_zero = st.sampled_from([0, 0, 5, 10, 20, 30, 50, 150])
reservation_ids = st.sampled_from(["job", "run", "task", "walk", "read", "draw"])
keys = st.sampled_from(["k1", "k2", "k3", "k4"])
step_ids = st.sampled_from(["a", "b"])
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
ttls = st.sampled_from([None, MINUTE, MINUTE, 10 * MINUTE, HOUR, 48 * HOUR])
pauses = st.sampled_from(
    [timedelta()] * 48
    + [timedelta(microseconds=1), timedelta(seconds=59), MINUTE, MINUTE, 10 * MINUTE] * 3
    + [10 * MINUTE, HOUR, 23 * HOUR, 48 * HOUR] * 3
    + [24 * HOUR, 31 * DAY, 400 * DAY]
)
expire_times = st.sampled_from(
    [None, None, None, *(START + span for span in (10 * MINUTE, 25 * HOUR, 240 * HOUR, 500 * DAY))]
)
overages = st.sampled_from(Overage)
debit_overages = st.sampled_from([Overage.REJECT, Overage.REJECT, Overage.OVERDRAFT])
labels = st.sampled_from([None, {"run": "r1"}])
usages = st.sampled_from([None, None, None, {"model": "m"}])

reserves = st.builds(
    Reserve,
    accounts,
    reservation_ids,
    amounts,
    ttl=ttls,
    min_amount_micros=st.sampled_from([0, 0, 1]),
    min_available_micros=st.sampled_from([0, 0, 20]),
    on_expiry=st.sampled_from(OnExpiry),
    labels=labels,
)
settles = st.builds(
    Settle,
    accounts,
    reservation_ids,
    amounts_or_zero,
    overage=overages,
    labels=labels,
    usage=usages,
)
captures = st.builds(
    Settle,
    accounts,
    reservation_ids,
    amounts_or_zero,
    keep_open=st.just(True),
    capture_id=step_ids,
    overage=overages,
    usage=usages,
)
releases = st.builds(Release, accounts, reservation_ids)
extends = st.builds(
    Extend,
    accounts,
    reservation_ids,
    ttl=ttls,
    add_amount_micros=amounts_or_zero,
    on_expiry=st.one_of(st.none(), st.sampled_from(OnExpiry)),
    extend_id=st.one_of(st.just(""), step_ids),
)
debits = st.builds(
    Debit,
    accounts,
    amounts,
    overage=debit_overages,
    request_id=st.one_of(st.just(""), keys),
    labels=labels,
)
debits_once = st.builds(
    DebitOnce,
    accounts,
    keys,
    amounts,
    overage=debit_overages,
    usage=usages,
)
grants = st.builds(
    GrantOnce,
    accounts,
    keys,
    amounts,
    legacy_keys=st.lists(keys, max_size=2).map(tuple),
    reason=st.sampled_from(["", "", "gift"]),
    category=st.sampled_from(LotCategory),
    priority=st.sampled_from([0, 10, 50]),
    expire_time=expire_times,
    effective_time=st.sampled_from([None] * 5 + [START + HOUR, START + 30 * DAY]),
    source=st.sampled_from([None, {"provider": "shop"}]),
)
# A grant under a key of its own, without which most accounts would stay empty.
fresh_grants = st.builds(
    GrantOnce,
    accounts,
    st.uuids().map(str),
    st.sampled_from([30, 60, 100]),
    category=st.sampled_from(LotCategory),
    expire_time=expire_times,
)
expires = st.builds(Expire, accounts)
refunds = st.builds(
    RefundCharge,
    accounts,
    keys,
    st.integers(1, 12),
    st.sampled_from([0, 1, 5, 10, 30]),
    expired_lot_grace=st.sampled_from([None, None, HOUR]),
)
grant_keys = st.sampled_from(["k1", "k2", "k3", "k4", "first-alice", "first-alice", "first-bob"])
named = st.one_of(
    st.tuples(accounts, st.just(True)),
    st.tuples(st.just(nobody("live")), st.just(False)),
)
revocation_ids = st.sampled_from(["", "", "dispute"])
expected_sources = st.sampled_from([None, None, {"provider": "shop"}])
levels = st.sampled_from([(1_000_000, 0), (500_000, 0), (333_333, 0), (0, 10), (0, 50)])
revokes = st.builds(
    lambda named, level, **fields: RevokeGrant(
        named[0], account_named=named[1], fraction_ppm=level[0], amount_micros=level[1], **fields
    ),
    named,
    levels,
    grant_key=grant_keys,
    revocation_id=revocation_ids,
    expected_source=expected_sources,
    allow_tombstone=st.sampled_from([True, True, False]),
)
reinstates = st.builds(
    lambda named, **fields: ReinstateGrant(named[0], account_named=named[1], **fields),
    named,
    grant_key=grant_keys,
    revocation_id=revocation_ids,
    expected_source=expected_sources,
)
allowances = st.builds(
    lambda amount, period, anchor, priority: (
        AllowanceTerms(0, AllowancePeriod.OFF)
        if period is AllowancePeriod.OFF
        else AllowanceTerms(amount, period, anchor, priority)
    ),
    amounts,
    st.sampled_from(AllowancePeriod),
    st.sampled_from([None, START - 5 * DAY, START + 30 * DAY, START + 26 * HOUR]),
    st.sampled_from([None, None, 60]),
)
allowance_changes = st.builds(Configure, accounts, allowance=allowances)
defaults = st.builds(
    ConfigureDefaults,
    accounts,
    signup_micros=st.sampled_from([None, 0, 20]),
    signup_lifetime=st.sampled_from([None, HOUR]),
    allowance=st.one_of(st.none(), allowances),
)
configures = st.builds(
    Configure,
    accounts,
    credit_limit_micros=st.sampled_from([None, None, 0, 25, 1000]),
    holds_use_credit=st.sampled_from([None, True, False]),
    frozen=st.sampled_from([None, False, False, False, True]),
)

_WEIGHTS: Final[dict[st.SearchStrategy[Operation], int]] = {
    expires: 1,
    configures: 2,
    refunds: 3,
    revokes: 3,
    reinstates: 3,
    allowance_changes: 2,
    defaults: 1,
    fresh_grants: 4,
    grants: 3,
    reserves: 7,
    settles: 4,
    captures: 4,
    releases: 1,
    extends: 3,
    debits: 2,
    debits_once: 2,
}
# Drawn in two steps: `one_of` would not weigh its alternatives.
operations: st.SearchStrategy[Operation] = st.sampled_from(
    [strategy for strategy, weight in _WEIGHTS.items() for _ in range(weight)]
).flatmap(lambda strategy: strategy)


Step = tuple[timedelta, Operation]
"""An operation, and the pause before it."""


class Batch(NamedTuple):
    """Operations that are decided together, and the pause before them."""

    pause: timedelta
    operations: list[Operation]


def _linked(drawn: list[tuple[timedelta, Operation, int]]) -> list[Step]:
    """Relate some operations to earlier ones, so that more of them have something to do.

    Below 0, the operation says again what was said so many steps before. Above 0, a settle,
    release or extension means the hold of the last, second last … Reserve, and a revocation or
    reinstatement the last … GrantOnce.
    """
    steps: list[Step] = []
    reserved: list[Reserve] = []
    granted: list[GrantOnce] = []
    for pause, operation, link in drawn:
        linked = operation
        if -len(steps) <= link < 0:
            linked = steps[link][1]
        elif 0 < link <= len(reserved) and isinstance(operation, Settle | Release | Extend):
            hold = reserved[-link]
            linked = replace(operation, account=hold.account, reservation_id=hold.reservation_id)
        elif 0 < link <= len(granted) and isinstance(operation, RevokeGrant | ReinstateGrant):
            grant = granted[-link]
            account = grant.account if operation.account_named else operation.account
            linked = replace(operation, account=account, grant_key=grant.idempotency_key)
        if isinstance(linked, Reserve):
            reserved.append(linked)
        if isinstance(linked, GrantOnce):
            granted.append(linked)
        steps.append((pause, linked))
    return steps


def _in_batches(script: list[Step]) -> list[Batch]:
    """Decide together what has no pause in between."""
    batches: list[Batch] = []
    for pause, operation in script:
        if pause or not batches:
            batches.append(Batch(pause, []))
        batches[-1].operations.append(operation)
    return batches


def in_namespace(operation: Operation, namespace: str) -> Operation:
    """The same operation in another namespace."""
    if isinstance(operation, Chain):
        return Chain(tuple(_link_in_namespace(link, namespace) for link in operation.operations))
    return replace(operation, account=operation.account._replace(namespace=namespace))


def _link_in_namespace(link: Link, namespace: str) -> Link:
    return replace(link, account=link.account._replace(namespace=namespace))


def in_chains(operations: Sequence[Operation], lengths: Sequence[int]) -> list[Operation]:
    """Chain operations that follow each other, up to so many at a time; 0 leaves one alone."""
    chained: list[Operation] = []
    left = list(operations)
    for length in cycle(lengths):
        if not left:
            return chained
        links: list[Link] = []
        while (
            left
            and len(links) < length
            and isinstance(link := left[0], Link)
            and names_account(link)
        ):
            links.append(link)
            left.pop(0)
        chained.append(Chain(tuple(links)) if links else left.pop(0))
    raise AssertionError("lengths are endless")


def names_account(operation: Link) -> bool:
    """Whether an operation says of which account it is."""
    return getattr(operation, "account_named", True)


links = st.sampled_from([0, -1, -3] + [1] * 5 + [2] * 2 + [3])
scripts = st.lists(st.tuples(pauses, operations, links), min_size=15, max_size=40).map(_linked)
chain_lengths = st.lists(st.sampled_from([0, 0, 0, 1, 2, 2, 3]), min_size=1, max_size=7)
batches = st.builds(
    lambda script, lengths: [
        Batch(batch.pause, in_chains(batch.operations, lengths)) for batch in _in_batches(script)
    ],
    scripts,
    chain_lengths,
)
"""With chains among the operations."""


@st.composite
def books(draw: st.DrawFn) -> Book:
    """Accounts that have a grant already or do not exist yet, some with credit."""
    book = Book()
    for key in ACCOUNTS:
        amount = draw(st.sampled_from([100, 40, 0]))
        if amount:
            expire_time = draw(expire_times)
            book.do(grant(f"first-{key.account}", amount, account=key, expire_time=expire_time))
        if draw(st.booleans()):
            book.allow_credit(draw(st.sampled_from([25, 1000])), holds=draw(st.booleans()), key=key)
    return book
