"""GrantOnce, RevokeGrant and ReinstateGrant, by the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import GrantOnce, ReinstateGrant, RevokeGrant
from robustness.conservation.account import (
    Account,
    Pending,
    Said,
    level_micros,
    waiting_micros,
)
from robustness.conservation.purse import NEVER, Lot, Taken
from robustness.conservation.told import NOBODY, Told
from robustness.conservation.uses import Use, request


@dataclass(slots=True)
class Grant:
    """A grant that was made, and the lot or the pending grant that it is."""

    use: Use
    owner: AccountKey
    micros: int
    seq: int
    pending: Pending | None


@dataclass(slots=True)
class Tombstone:
    source: dict[str, Any]
    said: dict[str, Said] = field(default_factory=dict)


@dataclass(slots=True)
class Grants:
    create: Callable[[GrantOnce, datetime], Account]
    """Opens the account of a grant that has none."""
    _grants: dict[str, tuple[Grant, bool]] = field(default_factory=dict)
    """By key; and whether the key is the grant's own, not one that it is known by as well."""
    _tombstones: dict[str, Tombstone] = field(default_factory=dict)

    def grant(self, account: Account | None, asked: GrantOnce, now: datetime) -> Told:
        keys = (asked.idempotency_key, *asked.legacy_keys)
        for key in keys:
            if key in self._grants:
                return self._grant_again(asked, key)
        said: dict[str, Said] = {}
        for key in reversed(keys):
            if tombstone := self._tombstones.get(key):
                if _differs(tombstone.source, asked.source or {}):
                    return Told("SOURCE_MISMATCH")
                said |= {name: replace(one) for name, one in tombstone.said.items()}
        micros = asked.amount_micros
        if waiting_micros(micros, said) == micros:
            return Told("GRANT_REVOKED")
        if asked.expire_time is not None and asked.expire_time <= now:
            return Told("INVALID_FIELD")
        if account and account.frozen:
            return Told("ACCOUNT_FROZEN")
        account = account or self.create(asked, now)
        key = asked.idempotency_key
        promotional = asked.category == "PROMOTIONAL"
        lot = Lot(0, 0, 0, asked.priority, promotional, asked.expire_time or NEVER)
        pending, seq, repaid, revoked = None, 0, 0, 0
        if asked.effective_time is not None and asked.effective_time > now:
            pending = Pending(key, micros, asked.effective_time, lot, said)
            account.pending[key] = account.to_come[key] = pending
        else:
            line, repaid = account.deposit("GRANT", micros, lot, key)
            seq, revoked = line.seq, account.take_said(lot, said)
        answer = Told("Granted", account.balance(), (seq, repaid, revoked))
        grant = Grant(Use(request(asked), answer), asked.account, micros, seq, pending)
        self._grants[key] = grant, True
        self._name(grant, keys)
        return answer

    def _grant_again(self, asked: GrantOnce, key: str) -> Told:
        grant, own = self._grants[key]
        if own and key == asked.idempotency_key:
            answer = grant.use.again(request(asked))
            if answer.name == "IDEMPOTENCY_MISMATCH":
                return answer
        elif (asked.account, asked.amount_micros) != (grant.owner, grant.micros):
            return Told("IDEMPOTENCY_MISMATCH")
        self._name(grant, (asked.idempotency_key, *asked.legacy_keys))
        return grant.use.answer._replace(replayed=True)

    def _name(self, grant: Grant, keys: tuple[str, ...]) -> None:
        """Let all keys that are free mean the grant from now on."""
        for key in keys:
            self._grants.setdefault(key, (grant, False))

    def revoke_or_reinstate(
        self, account: Account | None, asked: RevokeGrant | ReinstateGrant
    ) -> Told:
        if asked.grant_key not in self._grants:
            return self._before(asked)
        grant, _ = self._grants[asked.grant_key]
        if grant.owner != asked.account:
            if asked.account_named:
                return Told("SOURCE_MISMATCH")
            return Told("Elsewhere", (), tuple(grant.owner))
        assert account is not None
        revoking = isinstance(asked, RevokeGrant)
        if _differs(asked.expected_source or {}, dict(grant.use.request).get("source") or {}):
            return Told("SOURCE_MISMATCH")
        pending = grant.pending
        if pending and pending.state != "LANDED":
            numbers = self._change_pending(account, pending, asked)
        else:
            lot = pending.lot if pending else account.lots[grant.seq]
            change = self._revoke if isinstance(asked, RevokeGrant) else self._reinstate
            numbers = change(account, lot, asked)  # type: ignore[arg-type]
        return Told("Revoked" if revoking else "Reinstated", account.balance(), numbers)

    def _revoke(self, account: Account, lot: Lot, asked: RevokeGrant) -> tuple[Any, ...]:
        taken = lot.revocations.setdefault(asked.revocation_id, Taken())
        level = level_micros(lot.granted, asked.fraction_ppm, asked.amount_micros)
        left = lot.granted - lot.expired - lot.revoked
        micros = min(max(0, level - taken.level), left)
        taken.level = max(level, taken.level)
        taken.micros += micros
        seq = account.take_back(lot, micros, asked.grant_key).seq if micros else 0
        return seq, micros, lot.revoked, False

    def _reinstate(self, account: Account, lot: Lot, asked: ReinstateGrant) -> tuple[Any, ...]:
        taken = lot.revocations.get(asked.revocation_id, Taken())
        micros = taken.micros
        if micros == 0:
            return 0, 0, lot.revoked, False
        elsewhere = min(micros, lot.revoked - lot.revoked_here)
        here = micros - elsewhere
        taken.micros = 0
        lot.revoked_here -= here
        line = account.give_back(
            "REINSTATEMENT",
            [(lot.seq, here)] if here else [],
            elsewhere,
            related_seq=lot.seq,
            key=asked.grant_key,
        )
        return line.seq, micros, lot.revoked, False

    def _change_pending(
        self, account: Account, pending: Pending, asked: RevokeGrant | ReinstateGrant
    ) -> tuple[Any, ...]:
        before = pending.coming
        if isinstance(asked, RevokeGrant):
            one = pending.said.setdefault(asked.revocation_id, Said())
            one.raise_to(asked.fraction_ppm, asked.amount_micros)
        elif one_said := pending.said.get(asked.revocation_id):
            one_said.undo()
        coming = pending.coming
        seq, waits = 0, True
        if coming == 0:
            pending.state = "REVOKED"
        elif pending.state == "REVOKED":
            pending.state = "PENDING"
            if pending.effective_time <= account.now:
                seq, waits = account.seq + 1, False
                account.pass_time(account.now)
        return seq, abs(coming - before), pending.micros - coming, waits

    def _before(self, asked: RevokeGrant | ReinstateGrant) -> Told:
        """Of a grant that has not come."""
        tombstone = self._tombstones.get(asked.grant_key)
        if isinstance(asked, ReinstateGrant):
            if tombstone is None:
                return Told("GRANT_NOT_FOUND")
        elif not asked.allow_tombstone:
            return Told("GRANT_NOT_FOUND")
        source = asked.expected_source or {}
        if tombstone is None:
            tombstone = self._tombstones[asked.grant_key] = Tombstone({})
        if any(tombstone.source.get(name, value) != value for name, value in source.items()):
            return Told("SOURCE_MISMATCH")
        if isinstance(asked, RevokeGrant):
            tombstone.source = source | tombstone.source
            one = tombstone.said.setdefault(asked.revocation_id, Said())
            one.raise_to(asked.fraction_ppm, asked.amount_micros)
            return Told("Revoked", NOBODY, (0, 0, 0, True))
        if one_said := tombstone.said.get(asked.revocation_id):
            one_said.undo()
        return Told("Reinstated", NOBODY, (0, 0, 0, True))


def _differs(expected: dict[str, Any], has: dict[str, Any]) -> bool:
    """What was not said of a purchase is empty."""
    return any(has.get(name, "") != value for name, value in expected.items())
