"""Reserve, Settle, Release and Extend, by the model."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from meterhold_server.core.operations import Extend, Release, Reserve, Settle
from robustness.conservation.account import Account, Hold
from robustness.conservation.told import Told
from robustness.conservation.uses import Uses, insufficient, request

_WRONG_STATE: Final = {
    "SETTLED": "RESERVATION_SETTLED",
    "RELEASED": "RESERVATION_RELEASED",
    "EXPIRED": "RESERVATION_EXPIRED",
}


@dataclass(slots=True)
class Jobs:
    uses: Uses
    ttl_default: timedelta
    settle_grace: timedelta

    def reserve(self, account: Account | None, asked: Reserve) -> Told:
        place = ("reserve", asked.account, asked.reservation_id)
        if again := self.uses.again(place, request(asked)):
            return again
        if account and account.frozen:
            return Told("ACCOUNT_FROZEN")
        required = max(asked.min_amount_micros or asked.amount_micros, asked.min_available_micros)
        if account is None or account.reservable < required:
            return insufficient(account, required)
        micros = min(asked.amount_micros, account.reservable)
        expire_time = account.now + (asked.ttl or self.ttl_default)
        parts, on_credit = account.earmark(micros)
        charges = asked.on_expiry == "CHARGE"
        hold = Hold(asked.reservation_id, micros, parts, on_credit, charges, expire_time)
        account.holds[hold.reservation_id] = account.active[hold.reservation_id] = hold
        answer = Told("Reserved", account.balance(), (micros, expire_time))
        return self.uses.add(place, request(asked), answer)

    def settle(self, account: Account | None, asked: Settle) -> Told:
        hold = account.holds.get(asked.reservation_id) if account else None
        if account is None or hold is None:
            return Told("RESERVATION_NOT_FOUND")
        capture = (asked.capture_id,) if asked.keep_open else ()
        place = ("settle", asked.account, asked.reservation_id, *capture)
        if again := self.uses.again(place, _compared(asked)):
            return again
        if not self.takes_settles(account, hold):
            return Told(_WRONG_STATE[hold.state])
        from_hold = min(asked.amount_micros, hold.open)
        overage, shortfall = asked.amount_micros - from_hold, 0
        if overage > account.spendable and asked.overage != "OVERDRAFT":
            if asked.overage == "REJECT":
                return insufficient(account, overage)
            overage, shortfall = account.spendable, overage - account.spendable
        seq = self._charge(account, hold, asked, from_hold, overage)
        late = hold.state != "ACTIVE"
        released = 0
        if not asked.keep_open:
            released = hold.open
            self._return_rest(account, hold)
            hold.state, hold.late = "SETTLED", late
        numbers = (from_hold + overage, from_hold, overage, shortfall, released, late, seq)
        answer = Told("Settled", account.balance(), numbers)
        return self.uses.add(place, _compared(asked), answer)

    def takes_settles(self, account: Account, hold: Hold) -> bool:
        """Whether a job may still be charged."""
        if hold.state == "EXPIRED":
            return hold.expire_time + self.settle_grace > account.now
        return hold.state == "ACTIVE"

    def _charge(
        self, account: Account, hold: Hold, asked: Settle, from_hold: int, overage: int
    ) -> int:
        """Charge; but what the expiry charged of it is charged already."""
        parts, on_credit = hold.cut(from_hold)
        micros = overage
        if hold.state == "ACTIVE":
            micros += from_hold
            parts = account.charge_held(parts, on_credit)
            hold.from_hold += from_hold
        else:
            parts = []
        hold.captured += micros
        if micros == 0:
            return 0
        parts += account.take_or_owe(overage)
        account.spent += micros
        return account.write(
            "CAPTURE",
            -micros,
            parts,
            reservation_id=hold.reservation_id,
            key=asked.capture_id,
        ).seq

    def _return_rest(self, account: Account, hold: Hold) -> None:
        if hold.state == "ACTIVE":
            account.free(hold, account.now)
            return
        micros = hold.open
        if micros == 0:
            return
        parts, owed = hold.cut(micros)
        hold.released += micros
        hold.expiry_charged -= micros
        seq = hold.expiry_charge_seq
        account.given_back[seq] = account.given_back.get(seq, 0) + micros
        account.give_back(
            "REFUND", parts, owed, related_seq=seq, reservation_id=hold.reservation_id
        )

    def release(self, account: Account | None, asked: Release) -> Told:
        hold = account.holds.get(asked.reservation_id) if account else None
        if account is None or hold is None:
            return Told("RESERVATION_NOT_FOUND")
        changed = hold.state == "ACTIVE"
        if changed:
            account.free(hold, account.now)
            hold.state = "RELEASED"
        return Told("Released", account.balance(), (changed, hold.state, hold.captured))

    def extend(self, account: Account | None, asked: Extend) -> Told:
        hold = account.holds.get(asked.reservation_id) if account else None
        if account is None or hold is None:
            return Told("RESERVATION_NOT_FOUND")
        place = ("extend", asked.account, asked.reservation_id, asked.extend_id)
        if asked.extend_id and (again := self.uses.again(place, request(asked))):
            return again
        if hold.state != "ACTIVE":
            return Told(_WRONG_STATE[hold.state])
        growth = asked.add_amount_micros
        if growth and account.frozen:
            return Told("ACCOUNT_FROZEN")
        if growth > account.reservable:
            return insufficient(account, growth)
        if growth:
            self._grow(account, hold, growth)
        if asked.ttl is not None:
            hold.expire_time = max(hold.expire_time, account.now + asked.ttl)
        if asked.on_expiry is not None:
            hold.charges = asked.on_expiry == "CHARGE"
        on_expiry = "CHARGE" if hold.charges else "RELEASE"
        numbers = (hold.open, hold.expire_time, on_expiry)
        answer = Told("Extended", account.balance(), numbers)
        return self.uses.add(place if asked.extend_id else None, request(asked), answer)

    def _grow(self, account: Account, hold: Hold, micros: int) -> None:
        parts, on_credit = account.earmark(micros)
        held = {seq: 0 for seq, _ in hold.parts + parts}
        for seq, part in hold.parts + parts:
            held[seq] += part
        hold.parts = sorted(held.items(), key=lambda part: account.lots[part[0]].turn)
        hold.on_credit += on_credit
        hold.reserved += micros


def _compared(asked: Settle) -> tuple[Any, ...]:
    return asked.amount_micros, asked.overage, asked.usage
