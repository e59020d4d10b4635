"""A load of calls, many of which are about what earlier ones have made. Drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from meterhold_server.prove.history import Call, Method, Overage

POISONED: Final = "poison"
"""How the names of calls begin that a database cannot store."""


class Load:
    """Draws the calls of all callers. Told what came of them, it asks about that later.

    `accounts` must be fresh; what `chance` draws decides all else. All keys begin with `prefix`.
    """

    def __init__(
        self,
        chance: random.Random,
        accounts: Sequence[str],
        *,
        chains: bool = False,
        refunds: bool = True,
        poison: bool = False,
        prefix: str = "",
    ) -> None:
        self._chance = chance
        self._accounts = accounts
        self._chains = chains
        self._refunds = refunds
        self._poisons = poison
        self._prefix = prefix
        self._made = 0
        self._holds: list[tuple[str, str]] = []
        self._charges: list[tuple[str, int]] = []
        self._keyed: list[Call] = []

    def next(self) -> list[Call]:
        """The calls of one message."""
        chance = self._chance
        if self._made < len(self._accounts):
            account = self._accounts[self._made]
            return [self._named(Method.GRANT, account, chance.randint(500, 2000), key="grant")]
        if self._chains and chance.random() < 0.06:
            self._made += 1
            calls = [self._charge_or_grant(keyed=True) for _ in range(chance.randint(2, 3))]
            for call in calls:
                call.chain = f"chain-{self._made}"
            return calls
        if chance.random() < 0.08:
            return [self._call() for _ in range(chance.randint(2, 5))]
        if chance.random() < 0.06:
            return [self._named(Method.BALANCE, self._account())]
        return [self._call()]

    def learn(self, calls: Sequence[Call]) -> None:
        """Remember what later calls can be about."""
        for call in calls:
            answer = call.answers[-1] if call.answers else None
            if call.method is Method.RESERVE:
                self._holds.append((call.account, call.reservation_id))
                del self._holds[:-6]
            if answer and answer.entry_seq and call.method is not Method.GRANT:
                self._charges.append((call.account, answer.entry_seq))
                del self._charges[:-8]
            if call.method in (Method.DEBIT, Method.GRANT) and call.key and answer:
                self._keyed.append(call)
                del self._keyed[:-8]

    def _call(self) -> Call:
        drawn = self._chance.random()
        if drawn < 0.02 and self._keyed:
            return self._misuse()
        if drawn < 0.025 and self._poisons:
            return self._poison()
        if drawn < 0.07 and self._charges and self._refunds:
            return self._refund()
        if drawn < 0.55 and self._holds:
            return self._on_hold()
        if drawn < 0.78:
            return self._reserve()
        return self._charge_or_grant()

    def _charge_or_grant(self, *, keyed: bool = False) -> Call:
        chance = self._chance
        if chance.random() < 0.35:
            return self._named(Method.GRANT, self._account(), chance.randint(1, 2000), key="grant")
        kind = chance.choice(["once", "request"] if keyed else ["once", "request", ""])
        call = self._named(Method.DEBIT, self._account(), chance.randint(1, 200), key=kind)
        call.once = kind == "once"
        if chance.random() < 0.1:
            call.overage = self._overdraft(call.account, Overage.REJECT)
        return call

    def _reserve(self) -> Call:
        chance = self._chance
        call = self._named(Method.RESERVE, self._account(), chance.randint(1, 300))
        call.reservation_id = f"{self._prefix}hold-{self._made}"
        call.ttl_seconds = round(chance.choice([0.02, 0.2, 0.6, 2.0]) * chance.uniform(0.5, 1.5), 6)
        call.charge_on_expiry = chance.random() < 0.5
        if chance.random() < 0.3:
            call.min_micros = chance.randint(1, call.micros)
        return call

    def _on_hold(self) -> Call:
        chance = self._chance
        account, reservation_id = chance.choice(self._holds)
        methods = [Method.CAPTURE] * 3 + [Method.SETTLE] * 3 + [Method.RELEASE, Method.EXTEND]
        method = chance.choice(methods)
        key = {Method.CAPTURE: "capture", Method.EXTEND: "extend"}.get(method, "")
        amount = 0 if method is Method.RELEASE else chance.randint(0, 250)
        call = self._named(method, account, amount, key=key)
        call.reservation_id = reservation_id
        if method is Method.EXTEND:
            call.ttl_seconds = round(chance.uniform(0.02, 2.0), 6)
            call.micros = chance.choice([0, amount])
        else:
            overdraft = self._overdraft(account, Overage.CAP)
            call.overage = chance.choice([Overage.CAP] * 5 + [Overage.REJECT, overdraft])
        return call

    def _refund(self) -> Call:
        account, seq = self._chance.choice(self._charges)
        call = self._named(
            Method.REFUND, account, self._chance.choice([0, 5, 50, 150]), key="refund"
        )
        call.related_seq = seq
        return call

    def _misuse(self) -> Call:
        """Another request under a key that was used."""
        used = self._chance.choice(self._keyed)
        call = self._named(used.method, used.account, used.micros + 1)
        call.key, call.once, call.overage, call.misuse = used.key, used.once, used.overage, True
        return call

    def _poison(self) -> Call:
        call = self._named(Method.DEBIT, self._account(), 1, key="once")
        call.once = True
        call.name = f"{POISONED}-{self._made}"
        return call

    def _overdraft(self, account: str, otherwise: Overage) -> Overage:
        """Only some accounts ever go into debt: the others show who takes too much."""
        return Overage.OVERDRAFT if account.endswith(("2", "3")) else otherwise

    def _account(self) -> str:
        return self._chance.choice(self._accounts)

    def _named(self, method: Method, account: str, micros: int = 0, *, key: str = "") -> Call:
        self._made += 1
        if key:
            key = f"{self._prefix}{key}-{self._made}"
        return Call(f"call-{self._made}", method, account, micros, key)
