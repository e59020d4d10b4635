"""A state machine that drives the core beside a deliberately naive model of what it should owe.

The model knows no lots, no debt and no ledger: only totals, added up from the outcomes, and what
each hold has left. What expired, was revoked or has landed, which only lots can tell, it learns
from the account and checks against what was granted. Of an allowance it knows the next boundary,
found by walking from the anchor.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meterhold_server.core.model import (
    Account,
    AccountKey,
    AllowancePeriod,
    AllowanceTerms,
    Defaults,
    DefaultsKey,
    EntryKind,
    OnExpiry,
    Overage,
    PendingState,
    ReservationState,
)
from meterhold_server.core.operations import (
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Expire,
    Extend,
    GrantOnce,
    Operation,
    RefundCharge,
    ReinstateGrant,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
)
from meterhold_server.core.outcomes import (
    Configured,
    Debited,
    DefaultsConfigured,
    Elsewhere,
    Extended,
    Granted,
    Outcome,
    Reason,
    Refunded,
    Reinstated,
    Rejected,
    Released,
    Reserved,
    Revoked,
    Settled,
)

from . import strategies
from .book import ALICE, Book

OfHold = TypeVar("OfHold", Settle, Release, Extend)


@dataclass
class Hold:
    """`left` is what is held; once expired, what the expiry charged and nothing confirmed yet."""

    left: int
    expire_time: datetime
    on_expiry: OnExpiry
    running: bool = True


@dataclass
class Plan:
    """An allowance. `until` ends the period of what it gave last."""

    terms: AllowanceTerms
    anchor: datetime
    until: datetime | None
    refill: datetime | None = None

    def boundary_from(self, at: datetime) -> datetime:
        number, begin = 0, self.anchor
        while begin < at:
            number += 1
            begin = self._begin(number)
        return begin

    def _begin(self, number: int) -> datetime:
        if self.terms.period is not AllowancePeriod.MONTHLY:
            days = 1 if self.terms.period is AllowancePeriod.DAILY else 7
            return self.anchor + timedelta(days=days * number)
        months = self.anchor.month - 1 + number
        year, month, day = self.anchor.year + months // 12, months % 12 + 1, self.anchor.day
        while True:
            try:
                return self.anchor.replace(year=year, month=month, day=day)
            except ValueError:
                day -= 1


@dataclass
class Totals:
    """What the outcomes said about one account."""

    granted: int = 0
    spent: int = 0
    refunded: int = 0
    limit: int = 0
    holds_use_credit: bool = False
    frozen: bool = False
    holds: dict[str, Hold] = field(default_factory=dict)
    given_back: dict[int, int] = field(default_factory=dict)
    may_expire: list[tuple[datetime, int]] = field(default_factory=list)
    exists: bool = False
    plan: Plan | None = None

    @property
    def held(self) -> int:
        return sum(hold.left for hold in self.holds.values() if hold.running)

    def available(self, account: Account) -> int:
        lost = account.expired_micros + account.revoked_micros
        granted = self.granted + _landed(account)
        return granted + self.refunded - self.spent - lost - self.held

    def create(self, defaults: Defaults, now: datetime, own_allowance: bool = False) -> None:
        """What an account gets when it is created."""
        if self.exists:
            return
        self.exists = True
        if defaults.allowance and not own_allowance:
            self.set_plan(defaults.allowance, now)
        self.granted += defaults.signup_micros
        if defaults.signup_lifetime:
            self.may_expire.append((now + defaults.signup_lifetime, defaults.signup_micros))

    def set_plan(self, terms: AllowanceTerms, now: datetime) -> None:
        old = self.plan
        anchor = terms.anchor_time or (old.anchor if old else now)
        self.plan = Plan(terms, anchor, old.until if old else None)
        if terms.period is AllowancePeriod.OFF:
            return
        until = self.plan.until
        if until is not None and until > now:
            self.plan.refill = self.plan.boundary_from(until)
        else:
            self.plan.refill = anchor
        self.let_time_pass(now)

    def let_time_pass(self, now: datetime) -> None:
        plan = self.plan
        if plan and plan.refill and plan.refill <= now:
            self.granted += plan.terms.amount_micros
            plan.until = plan.refill = plan.boundary_from(now + timedelta(microseconds=1))
            self.may_expire.append((plan.until, plan.terms.amount_micros))
        for hold in self.holds.values():
            if hold.running and hold.expire_time <= now:
                hold.running = False
                if hold.on_expiry is OnExpiry.CHARGE:
                    self.spent += hold.left
                else:
                    hold.left = 0


class Metering(RuleBasedStateMachine):
    """Each rule asks one thing, tells the model of the outcome, and compares the two."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.totals: dict[AccountKey, Totals] = {key: Totals() for key in strategies.ACCOUNTS}
        self.expired: dict[AccountKey, int] = dict.fromkeys(strategies.ACCOUNTS, 0)
        self.reserved: list[tuple[AccountKey, str]] = []
        self.defaults = Defaults(DefaultsKey("live", "credits"))

    @initialize(limit=st.sampled_from([0, 0, 25, 1000]), holds=st.booleans(), amount=st.just(100))
    def open(self, limit: int, holds: bool, amount: int) -> None:
        if limit:
            self.book.allow_credit(limit, holds=holds)
            self.totals[ALICE].exists = True
            self.totals[ALICE].limit = limit
            self.totals[ALICE].holds_use_credit = holds
        self.grant(GrantOnce(ALICE, "first", amount))

    @rule(span=st.sampled_from([1, 59, 60, 600, 3600, 24 * 3600, 3 * 24 * 3600]))
    def wait(self, span: int) -> None:
        self.book.wait(timedelta(seconds=span))

    @rule(operation=strategies.expires)
    def expire(self, operation: Expire) -> None:
        self.ask(operation)

    @rule(days=st.sampled_from([1, 7, 28, 31, 59, 400]))
    def wait_for_long(self, days: int) -> None:
        self.book.wait(timedelta(days=days))

    @rule(operation=strategies.defaults)
    def set_defaults(self, operation: ConfigureDefaults) -> None:
        outcome = self.do_in_time(operation)
        assert isinstance(outcome, DefaultsConfigured)
        if operation.signup_micros is not None:
            self.defaults.signup_micros = operation.signup_micros
            lifetime = operation.signup_lifetime if operation.signup_micros else None
            self.defaults.signup_lifetime = lifetime
        if operation.allowance is not None:
            off = operation.allowance.period is AllowancePeriod.OFF
            self.defaults.allowance = None if off else operation.allowance
        assert outcome.defaults == self.defaults

    @rule(operation=st.one_of(strategies.configures, strategies.allowance_changes))
    def configure(self, operation: Configure) -> None:
        _, totals, outcome = self.ask(operation)
        assert isinstance(outcome, Configured)
        totals.create(self.defaults, self.book.now, operation.allowance is not None)
        if operation.allowance is not None:
            totals.set_plan(operation.allowance, self.book.now)
        refill = outcome.allowance.refill_time if outcome.allowance else None
        assert refill == (totals.plan.refill if totals.plan else None)
        if operation.credit_limit_micros is not None:
            totals.limit = operation.credit_limit_micros
        if operation.holds_use_credit is not None:
            totals.holds_use_credit = operation.holds_use_credit
        if operation.frozen is not None:
            totals.frozen = operation.frozen
        assert outcome.balance.credit_limit_micros == totals.limit
        assert outcome.holds_use_credit == totals.holds_use_credit
        assert outcome.frozen == totals.frozen

    @rule(operation=st.one_of(strategies.fresh_grants, strategies.grants))
    def grant(self, operation: GrantOnce) -> None:
        _, totals, outcome = self.ask(operation)
        if isinstance(outcome, Granted) and not outcome.replayed:
            assert not totals.frozen
            totals.create(self.defaults, self.book.now)
            effective = operation.effective_time
            assert outcome.pending == (effective is not None and effective > self.book.now)
            if outcome.entry is not None:
                assert outcome.entry.amount_micros == operation.amount_micros
                totals.granted += operation.amount_micros
            if operation.expire_time:
                totals.may_expire.append((operation.expire_time, operation.amount_micros))

    @rule(operation=strategies.reserves)
    def reserve(self, operation: Reserve) -> None:
        available, totals, outcome = self.ask(operation)
        credit = totals.limit if totals.holds_use_credit else 0
        least = operation.min_amount_micros or operation.amount_micros
        enough = available + credit >= max(least, operation.min_available_micros)
        if operation.reservation_id in totals.holds:
            assert _is_replay_or(outcome, Reason.IDEMPOTENCY_MISMATCH)
        elif totals.frozen:
            assert _is_refusal(outcome, Reason.ACCOUNT_FROZEN)
        elif not enough:
            assert _is_refusal(outcome, Reason.INSUFFICIENT_CREDITS)
        else:
            assert isinstance(outcome, Reserved)
            assert outcome.held_micros == min(operation.amount_micros, available + credit)
            totals.holds[operation.reservation_id] = Hold(
                outcome.held_micros, outcome.expire_time, operation.on_expiry
            )
            self.reserved.append((operation.account, operation.reservation_id))

    @rule(operation=st.one_of(strategies.settles, strategies.captures), nth=st.integers(0, 3))
    def settle(self, operation: Settle, nth: int) -> None:
        operation = self.named(operation, nth)
        available, totals, outcome = self.ask(operation)
        hold = totals.holds.get(operation.reservation_id)
        if hold is None:
            assert _is_refusal(outcome, Reason.RESERVATION_NOT_FOUND)
        elif isinstance(outcome, Settled) and not outcome.replayed:
            self.settled(operation, outcome, totals, hold, available)

    def settled(
        self, operation: Settle, outcome: Settled, totals: Totals, hold: Hold, available: int
    ) -> None:
        from_hold = min(operation.amount_micros, hold.left)
        overage = operation.amount_micros - from_hold
        spendable = max(0, available + totals.limit)
        if operation.overage is not Overage.OVERDRAFT:
            assert overage <= spendable or operation.overage is Overage.CAP
            overage = min(overage, spendable)
        assert outcome.from_hold_micros == from_hold
        assert outcome.overage_micros == overage
        assert outcome.charged_micros == from_hold + overage
        assert outcome.shortfall_micros == operation.amount_micros - outcome.charged_micros
        assert outcome.late == (not hold.running)
        totals.spent += overage + (from_hold if hold.running else 0)
        hold.left -= from_hold
        if operation.keep_open:
            assert outcome.released_micros == 0
            return
        assert outcome.released_micros == hold.left
        totals.refunded += 0 if hold.running else hold.left
        hold.left, hold.running = 0, False

    @rule(operation=strategies.releases, nth=st.integers(0, 3))
    def release(self, operation: Release, nth: int) -> None:
        operation = self.named(operation, nth)
        _, totals, outcome = self.ask(operation)
        hold = totals.holds.get(operation.reservation_id)
        if hold is None:
            assert _is_refusal(outcome, Reason.RESERVATION_NOT_FOUND)
            return
        assert isinstance(outcome, Released)
        assert outcome.changed == hold.running
        if hold.running:
            hold.left, hold.running = 0, False

    @rule(operation=strategies.extends, nth=st.integers(0, 3))
    def extend(self, operation: Extend, nth: int) -> None:
        operation = self.named(operation, nth)
        available, totals, outcome = self.ask(operation)
        hold = totals.holds.get(operation.reservation_id)
        if hold is None:
            assert _is_refusal(outcome, Reason.RESERVATION_NOT_FOUND)
        elif isinstance(outcome, Extended) and not outcome.replayed:
            assert hold.running
            credit = totals.limit if totals.holds_use_credit else 0
            assert operation.add_amount_micros <= max(0, available + credit)
            assert not (totals.frozen and operation.add_amount_micros)
            hold.left += operation.add_amount_micros
            if operation.ttl:
                hold.expire_time = max(hold.expire_time, self.book.now + operation.ttl)
            hold.on_expiry = operation.on_expiry or hold.on_expiry
            assert outcome.held_micros == hold.left
            assert outcome.expire_time == hold.expire_time
            assert outcome.on_expiry == hold.on_expiry

    @rule(operation=st.one_of(strategies.debits, strategies.debits_once))
    def debit(self, operation: Debit | DebitOnce) -> None:
        available, totals, outcome = self.ask(operation)
        if isinstance(outcome, Debited) and not outcome.replayed:
            assert not totals.frozen
            totals.spent += operation.amount_micros
            covered = operation.amount_micros <= available + totals.limit
            assert covered or operation.overage is Overage.OVERDRAFT
        elif _is_refusal(outcome, Reason.INSUFFICIENT_CREDITS):
            assert operation.amount_micros > max(0, available + totals.limit)

    @rule(operation=strategies.refunds)
    def refund(self, operation: RefundCharge) -> None:
        _, totals, outcome = self.ask(operation)
        if not isinstance(outcome, Refunded) or outcome.replayed:
            return
        before = totals.given_back.get(operation.charge_seq, 0)
        after = outcome.charge_refunded_micros
        charge = self.book.ledger(operation.account)[operation.charge_seq - 1]
        assert before < after <= -charge.amount_micros
        assert outcome.refunded_micros == after - before
        if operation.amount_micros:
            assert after - before == operation.amount_micros
        else:
            assert after == -charge.amount_micros
        totals.given_back[operation.charge_seq] = after
        totals.refunded += after - before

    @rule(operation=st.one_of(strategies.revokes, strategies.reinstates))
    def revoke_or_reinstate(self, operation: RevokeGrant | ReinstateGrant) -> None:
        outcome = self.do_in_time(operation)
        if isinstance(outcome, Elsewhere):
            operation = replace(operation, account=outcome.account)
            outcome = self.do_in_time(operation)
        if operation.account not in self.totals or isinstance(outcome, Rejected):
            return
        assert isinstance(outcome, Revoked | Reinstated)
        before, again = outcome.balance, self.book.do(operation)
        assert isinstance(again, Revoked | Reinstated)
        assert again.balance == before, "what is said again changes nothing"
        assert again.entry is None
        if outcome.entry is not None and outcome.entry.kind is not EntryKind.GRANT:
            micros = getattr(outcome, "revoked_micros", 0)
            micros -= getattr(outcome, "reinstated_micros", 0)
            assert outcome.entry.amount_micros == -micros

    def named(self, operation: OfHold, nth: int) -> OfHold:
        """The same of the last, second last … hold, or as it was drawn if there is none."""
        if nth >= len(self.reserved):
            return operation
        account, reservation_id = self.reserved[-1 - nth]
        return replace(operation, account=account, reservation_id=reservation_id)

    def do_in_time(self, operation: Operation) -> Outcome:
        """The outcome. What is due in its account expires first, whatever is asked."""
        if operation.account in self.totals:
            self.totals[operation.account].let_time_pass(self.book.now)
        return self.book.do(operation)

    def ask(self, operation: Operation) -> tuple[int, Totals, Outcome]:
        """The outcome, and what the model says was available before it, once time had passed.

        What expired meanwhile is read off a twin, in which nothing else happens.
        """
        twin = self.book.twin()
        twin.do(Expire(operation.account))
        totals = self.totals[operation.account]
        totals.let_time_pass(self.book.now)
        available = totals.available(twin.account(operation.account))
        return available, totals, self.book.do(operation)

    @invariant()
    def the_totals_agree(self) -> None:
        for key, told in self.totals.items():
            twin, totals = self.book.twin(), deepcopy(told)
            twin.do(Expire(key))
            totals.let_time_pass(self.book.now)
            account = twin.account(key)
            assert account.granted_micros == totals.granted + _landed(account)
            assert account.spent_micros == totals.spent
            assert account.refunded_micros == totals.refunded
            assert account.held_micros == totals.held
            assert account.available_micros == totals.available(account)
            running = {name for name, hold in totals.holds.items() if hold.running}
            assert running == {
                name
                for name, reservation in account.reservations.items()
                if reservation.state is ReservationState.ACTIVE
            }

    @invariant()
    def what_expired_was_granted_to_expire(self) -> None:
        for key, totals in self.totals.items():
            expired = self.book.account(key).expired_micros
            assert expired >= self.expired[key], "what has expired never comes back"
            self.expired[key] = expired
            due = [
                amount for expire_time, amount in totals.may_expire if expire_time <= self.book.now
            ]
            landed = _landed(self.book.account(key))
            assert expired <= sum(due) + totals.refunded + landed

    @invariant()
    def what_was_revoked_was_granted(self) -> None:
        for key in self.totals:
            account = self.book.account(key)
            assert 0 <= account.revoked_micros <= account.granted_micros

    @invariant()
    def what_is_pending_lies_in_the_future(self) -> None:
        for key in self.totals:
            twin = self.book.twin()
            twin.do(Expire(key))
            for pending in twin.account(key).pending.values():
                assert (pending.state is PendingState.PENDING) <= (
                    pending.effective_time > self.book.now
                )


def _landed(account: Account) -> int:
    """What was granted by grants that had been pending."""
    landed = (one for one in account.pending.values() if one.state is PendingState.LANDED)
    return sum(one.amount_micros for one in landed)


def _is_refusal(outcome: Outcome, reason: Reason) -> bool:
    return isinstance(outcome, Rejected) and outcome.reason is reason


def _is_replay_or(outcome: Outcome, reason: Reason) -> bool:
    replayed = isinstance(outcome, Reserved) and outcome.replayed
    return replayed or _is_refusal(outcome, reason)


Metering.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, print_blob=True
)
TestMetering = Metering.TestCase
