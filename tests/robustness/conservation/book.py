"""The model: what becomes of operations, one after the other, each at its own time.

It imports from the server what operations and outcomes are, and no rule. It says what each caller
must be told, and keeps what every account must be worth in the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from meterhold_server.core.model import AccountKey, AllowanceTerms
from meterhold_server.core.operations import (
    Chain,
    Configure,
    ConfigureDefaults,
    Debit,
    DebitOnce,
    Expire,
    Extend,
    GrantOnce,
    Operation,
    Rebuild,
    RefundCharge,
    ReinstateGrant,
    Release,
    Reserve,
    RevokeGrant,
    Settle,
)
from robustness.conservation.account import Account
from robustness.conservation.grants import Grants
from robustness.conservation.jobs import Jobs
from robustness.conservation.purse import NEVER, Lot
from robustness.conservation.told import NOBODY, Told
from robustness.conservation.uses import Place, Uses, insufficient, request

_CHARGES: Final = ("DEBIT", "CAPTURE", "EXPIRY_CHARGE")


@dataclass(slots=True)
class Signup:
    micros: int = 0
    lifetime: timedelta | None = None
    allowance: AllowanceTerms | None = None


class Book:
    """`ttl_default` and `settle_grace` are the settings of the servers."""

    def __init__(self, ttl_default: timedelta, settle_grace: timedelta) -> None:
        self.accounts: dict[AccountKey, Account] = {}
        self._defaults: dict[tuple[str, str], Signup] = {}
        self._uses = Uses()
        self._jobs = Jobs(self._uses, ttl_default, settle_grace)
        self._grants = Grants(self._create)

    def enter(self, operation: Operation, now: datetime) -> Told:
        """Carry an operation out. Answers what its caller is told."""
        account = self.accounts.get(operation.account)
        if account:
            account.pass_time(now)
        match operation:
            case Reserve():
                return self._jobs.reserve(account, operation)
            case Settle():
                return self._jobs.settle(account, operation)
            case Release():
                return self._jobs.release(account, operation)
            case Extend():
                return self._jobs.extend(account, operation)
            case Debit() | DebitOnce():
                return self._debit(account, operation)
            case RefundCharge():
                return self._refund(account, operation)
            case Rebuild() | Chain():
                raise AssertionError("nobody here asks for that")
            case _:
                return self._enter_rarer(account, operation, now)

    def _enter_rarer(self, account: Account | None, operation: _Rarer, now: datetime) -> Told:
        match operation:
            case GrantOnce():
                return self._grants.grant(account, operation, now)
            case RevokeGrant() | ReinstateGrant():
                return self._grants.revoke_or_reinstate(account, operation)
            case Configure():
                return self._configure(account, operation, now)
            case ConfigureDefaults():
                return self._configure_defaults(operation)
            case Expire():
                return Told("Expired", account.balance() if account else NOBODY)

    def _debit(self, account: Account | None, asked: Debit | DebitOnce) -> Told:
        place: Place | None = None
        key = ""
        if isinstance(asked, DebitOnce):
            key = asked.idempotency_key
            place = ("debit once", key)
        elif asked.request_id:
            key = asked.request_id
            place = ("debit", asked.account, key)
        if again := self._uses.again(place, request(asked)):
            return again
        if account and account.frozen:
            return Told("ACCOUNT_FROZEN")
        micros = asked.amount_micros
        covered = account is not None and micros <= account.spendable
        if account is None or not (covered or asked.overage == "OVERDRAFT"):
            return insufficient(account, micros)
        account.spent += micros
        line = account.write("DEBIT", -micros, account.take_or_owe(micros), key=key)
        answer = Told("Debited", account.balance(), (line.seq, -micros))
        return self._uses.add(place, request(asked), answer)

    def _refund(self, account: Account | None, asked: RefundCharge) -> Told:
        place = ("refund", asked.idempotency_key)
        if again := self._uses.again(place, request(asked)):
            return again
        seq = asked.charge_seq
        if account is None or not 1 <= seq <= account.seq:
            return Told("ENTRY_NOT_FOUND")
        charge = account.ledger[seq - 1]
        hold = account.holds.get(charge.reservation_id)
        charged_hold = charge.kind == "EXPIRY_CHARGE" and hold
        if charge.kind not in _CHARGES or (
            charged_hold and self._jobs.takes_settles(account, charged_hold)
        ):
            return Told("INVALID_FIELD")
        left = account.refundable(seq)
        micros = asked.amount_micros or left
        if micros > left or micros == 0:
            return Told("REFUND_EXCEEDS_CHARGE")
        first = self._give_back(account, asked, micros)
        total = account.given_back[seq] = account.given_back.get(seq, 0) + micros
        answer = Told("Refunded", account.balance(), (first, micros, total))
        return self._uses.add(place, request(asked), answer)

    def _give_back(self, account: Account, asked: RefundCharge, micros: int) -> int:
        """Answers the first of the entries."""
        charge = account.ledger[asked.charge_seq - 1]
        parts, owed = account.slice_of_charge(charge.seq, micros)
        late = []
        if asked.expired_lot_grace is not None:
            late = [part for part in parts if account.lots[part[0]].expire_time <= account.now]
            parts = [part for part in parts if part not in late]
        first = account.seq + 1
        names = {"key": asked.idempotency_key, "reservation_id": charge.reservation_id}
        if parts or owed:
            account.give_back("REFUND", parts, owed, related_seq=charge.seq, **names)
        if late and asked.expired_lot_grace is not None:
            model = account.lots[late[0][0]]
            micros = sum(part for _, part in late)
            rest = micros - account.repay(micros)
            account.refunded += micros
            seq = account.seq + 1
            account.write("REFUND", micros, [(seq, rest)], related_seq=charge.seq, **names)
            until = account.now + asked.expired_lot_grace
            if rest:
                account.open_lot(Lot(seq, rest, rest, model.priority, model.promotional, until))
        return first

    def _create(self, asked: GrantOnce | Configure, now: datetime) -> Account:
        account = self.accounts[asked.account] = Account(now=now)
        signup = self._defaults.get((asked.account.namespace, asked.account.unit), Signup())
        if signup.allowance and not (isinstance(asked, Configure) and asked.allowance):
            _plan(account, signup.allowance)
        if signup.micros:
            until = now + signup.lifetime if signup.lifetime else NEVER
            lot = Lot(0, 0, 0, promotional=True, expire_time=until)
            account.deposit("GRANT", signup.micros, lot)
        return account

    def _configure(self, account: Account | None, asked: Configure, now: datetime) -> Told:
        account = account or self._create(asked, now)
        if asked.credit_limit_micros is not None:
            account.limit = asked.credit_limit_micros
        if asked.holds_use_credit is not None:
            account.holds_use_credit = asked.holds_use_credit
        if asked.frozen is not None:
            account.frozen = asked.frozen
        if asked.allowance is not None:
            _plan(account, asked.allowance)
        refill = account.plan.refill if account.plan else None
        numbers = (account.holds_use_credit, account.frozen, refill)
        return Told("Configured", account.balance(), numbers)

    def _configure_defaults(self, asked: ConfigureDefaults) -> Told:
        place = (asked.account.namespace, asked.account.unit)
        signup = self._defaults.setdefault(place, Signup())
        if asked.signup_micros is not None:
            signup.micros = asked.signup_micros
            signup.lifetime = asked.signup_lifetime
        if asked.allowance is not None:
            signup.allowance = asked.allowance if asked.allowance.period != "OFF" else None
        return Told("DefaultsConfigured", (), (signup.micros, signup.allowance))


_Rarer = GrantOnce | RevokeGrant | ReinstateGrant | Configure | ConfigureDefaults | Expire


def _plan(account: Account, terms: AllowanceTerms) -> None:
    account.set_plan(terms.amount_micros, terms.period, terms.anchor_time, terms.priority)
