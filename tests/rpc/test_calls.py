"""Every call and every read, through the client library and a real server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import meterhold
from meterhold import (
    Cash,
    DebitStatus,
    EntryKind,
    LotCategory,
    OnExpiry,
    Overage,
    ReservationState,
    Source,
    Usage,
)
from meterhold_server.rpc import metering
from support.service import service

USAGE = Usage(
    provider="anthropic",
    model="opus",
    input_tokens=1,
    output_tokens=2,
    cache_read_tokens=3,
    cache_write_tokens=4,
    provider_cost_micros=5,
    stop_reason="end_turn",
)
LABELS = {"run": "7", "key": "ключ"}
METADATA: dict[str, Any] = {
    "text": "\\u0000 is no NUL",
    "number": 1.5,
    "large": 1e300,
    "list": [True, None, {"deep": "é"}],
}


def _nested(levels: int) -> dict[str, Any]:
    """An object of so many levels. The last but one is a list's, the last an object's."""
    inner: Any = {"bottom": True}
    for _ in range(levels - 2):
        inner = [inner]
    return {"top": inner}


async def _granted(client: meterhold.AsyncClient, micros: int, account: str = "alice") -> None:
    await client.grant_once(account, micros, idempotency_key=f"{account}-{micros}")


class TestReserve:
    async def test_it_holds_and_says_until_when(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        held = await client.reserve("alice", 200, reservation_id="job", ttl=timedelta(minutes=1))
        assert (held.held_micros, held.created, held.replayed) == (200, True, False)
        assert (held.balance.available_micros, held.balance.held_micros) == (300, 200)
        assert held.balance.remaining_micros == 500
        assert _from_now(held.expire_time) == pytest.approx(60, abs=5)

    async def test_the_default_ttl_is_the_server_s(self, database_url: str) -> None:
        async with (
            service(database_url, ttl_default_seconds=33) as address,
            meterhold.AsyncClient(address) as client,
        ):
            await _granted(client, 5)
            held = await client.reserve("alice", 5, reservation_id="job")
            assert _from_now(held.expire_time) == pytest.approx(33, abs=5)

    async def test_an_equal_request_gets_the_first_answer(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        first = await client.reserve("alice", 200, reservation_id="job")
        await client.settle("alice", 150, reservation_id="job")
        again = await client.reserve("alice", 200, reservation_id="job", labels=LABELS)
        assert (again.created, again.replayed) == (False, True)
        assert (again.balance, again.expire_time) == (first.balance, first.expire_time)

    async def test_another_request_of_the_same_id_is_refused(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        with pytest.raises(meterhold.IdempotencyMismatch) as raised:
            await client.reserve("alice", 201, reservation_id="job")
        assert (raised.value.field, raised.value.original) == ("amount_micros", "200")

    @pytest.mark.parametrize(
        ("amount", "at_least", "floor", "held"),
        [
            (100, 0, 0, 100),
            (101, 0, 0, None),
            (101, 1, 0, 100),
            (500, 100, 0, 100),
            (500, 101, 0, None),
            (10, 0, 100, 10),
            (10, 0, 101, None),
            (500, 1, 100, 100),
        ],
    )
    async def test_admission(
        self,
        client: meterhold.AsyncClient,
        amount: int,
        at_least: int,
        floor: int,
        held: int | None,
    ) -> None:
        """Of 100: all, or at least so much, if so much is there."""
        await _granted(client, 100)
        reserving = client.reserve(
            "alice",
            amount,
            reservation_id="job",
            min_amount_micros=at_least,
            min_available_micros=floor,
        )
        if held is None:
            with pytest.raises(meterhold.InsufficientCredits) as raised:
                await reserving
            required = max(at_least or amount, floor)
            assert raised.value.required_micros == required
            assert raised.value.available_micros == raised.value.reservable_micros == 100
        else:
            assert (await reserving).held_micros == held

    async def test_a_refusal_is_not_remembered(self, client: meterhold.AsyncClient) -> None:
        with pytest.raises(meterhold.InsufficientCredits):
            await client.reserve("alice", 5, reservation_id="job")
        assert (await client.balance("alice")).ledger_seq == 0, "an account was made"
        await _granted(client, 5)
        assert (await client.reserve("alice", 5, reservation_id="job")).created


class TestSettle:
    async def test_it_charges_what_it_cost_and_frees_the_rest(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        done = await client.settle(
            "alice", 150, reservation_id="job", labels=LABELS, usage=USAGE, metadata=METADATA
        )
        assert (done.charged_micros, done.from_hold_micros, done.released_micros) == (150, 150, 50)
        assert (done.overage_micros, done.shortfall_micros, done.late) == (0, 0, False)
        assert done.balance.available_micros == done.balance.remaining_micros == 350
        entry = await client.get_entry("alice", seq=done.entry_seq)
        assert (entry.kind, entry.amount_micros) == (EntryKind.CAPTURE, -150)
        assert (entry.reservation_id, entry.key) == ("job", "")
        assert (entry.labels, entry.usage, entry.metadata) == (LABELS, USAGE, METADATA)

    async def test_nothing_is_charged_for_a_cost_of_zero(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        done = await client.settle("alice", 0, reservation_id="job")
        assert (done.charged_micros, done.entry_seq, done.released_micros) == (0, 0, 200)
        assert done.balance.available_micros == 500

    @pytest.mark.parametrize(
        ("overage", "charged", "shortfall", "available"),
        [(None, 500, 100, 0), (Overage.CAP, 500, 100, 0), (Overage.OVERDRAFT, 600, 0, -100)],
    )
    async def test_a_cost_above_the_balance(
        self,
        client: meterhold.AsyncClient,
        overage: Overage | None,
        charged: int,
        shortfall: int,
        available: int,
    ) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        done = await client.settle("alice", 600, reservation_id="job", overage=overage)
        assert (done.charged_micros, done.shortfall_micros) == (charged, shortfall)
        assert (done.from_hold_micros, done.overage_micros) == (200, charged - 200)
        assert done.balance.available_micros == available
        assert done.balance.debt_micros == max(-available, 0)

    async def test_a_cost_above_the_balance_can_be_refused(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        with pytest.raises(meterhold.InsufficientCredits) as raised:
            await client.settle("alice", 501, reservation_id="job", overage=Overage.REJECT)
        assert (raised.value.required_micros, raised.value.available_micros) == (301, 300)
        kept = await client.get_reservation("alice", reservation_id="job")
        assert (kept.state, kept.held_micros) == (ReservationState.ACTIVE, 200)

    async def test_captures_keep_the_hold_open(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        first, again = [
            await client.settle(
                "alice", 30, reservation_id="job", keep_open=True, capture_id="part-1"
            )
            for _ in range(2)
        ]
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.balance, again.entry_seq) == (first.balance, first.entry_seq)
        assert (first.released_micros, first.balance.held_micros) == (0, 170)
        await client.settle("alice", 30, reservation_id="job", keep_open=True)
        done = await client.settle("alice", 40, reservation_id="job")
        assert (done.charged_micros, done.released_micros) == (40, 100)
        assert done.balance.spent_micros == 100
        keys = [entry.key async for entry in client.list_entries("alice", oldest_first=True)]
        assert keys[1] == "part-1"
        assert keys[3] == ""

    async def test_an_equal_settle_replays_and_another_is_refused(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        first = await client.settle("alice", 150, reservation_id="job", usage=USAGE)
        again = await client.settle("alice", 150, reservation_id="job", usage=USAGE)
        assert again.replayed
        assert again.balance == first.balance
        with pytest.raises(meterhold.IdempotencyMismatch) as raised:
            await client.settle("alice", 151, reservation_id="job", usage=USAGE)
        assert (raised.value.field, raised.value.original) == ("amount_micros", "150")

    async def test_an_unknown_hold(self, client: meterhold.AsyncClient) -> None:
        with pytest.raises(meterhold.ReservationNotFound) as raised:
            await client.settle("alice", 1, reservation_id="job")
        assert raised.value.reservation_id == "job"

    @pytest.mark.parametrize(
        ("on_expiry", "cost", "spent", "refunded", "late_entry"),
        [
            (OnExpiry.RELEASE, 150, 150, 0, EntryKind.CAPTURE),
            (OnExpiry.CHARGE, 150, 200, 50, EntryKind.REFUND),
            (OnExpiry.CHARGE, 250, 250, 0, EntryKind.CAPTURE),
            (OnExpiry.CHARGE, 200, 200, 0, EntryKind.EXPIRY_CHARGE),
        ],
    )
    async def test_a_late_settle_charges_the_real_cost(
        self,
        client: meterhold.AsyncClient,
        on_expiry: OnExpiry,
        cost: int,
        spent: int,
        refunded: int,
        late_entry: EntryKind,
    ) -> None:
        """The job ran longer than its hold: what it cost is known now."""
        await _granted(client, 500)
        await client.reserve(
            "alice", 200, reservation_id="job", on_expiry=on_expiry, ttl=timedelta(milliseconds=1)
        )
        await _expired(client, "job")
        done = await client.settle("alice", cost, reservation_id="job")
        assert (done.late, done.charged_micros) == (True, cost)
        assert done.balance.spent_micros == spent
        assert done.balance.refunded_micros == refunded
        assert done.balance.remaining_micros == 500 - cost
        kinds = [entry.kind async for entry in client.list_entries("alice")]
        assert kinds[0] is late_entry
        final = await client.get_reservation("alice", reservation_id="job")
        assert (final.state, final.late) == (ReservationState.SETTLED, True)

    async def test_after_the_grace_time_it_is_too_late(self, database_url: str) -> None:
        async with (
            service(database_url, settle_grace_seconds=60) as address,
            meterhold.AsyncClient(address) as client,
        ):
            await _granted(client, 500)
            await client.reserve("alice", 200, reservation_id="job")
            _let_pass(database_url, seconds=900 + 61)
            with pytest.raises(meterhold.ReservationExpired) as raised:
                await client.settle("alice", 150, reservation_id="job")
            assert raised.value.reservation_id == "job"
            assert raised.value.end_time is not None
            assert _from_now(raised.value.end_time) == pytest.approx(-61, abs=5)
            assert (await client.balance("alice")).available_micros == 500


class TestRelease:
    async def test_it_frees_what_is_held(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        await client.settle("alice", 30, reservation_id="job", keep_open=True)
        released = await client.release("alice", reservation_id="job")
        assert released.changed
        assert released.balance.available_micros == 470, "captures stay charged"
        assert released.reservation.state is ReservationState.RELEASED
        assert released.reservation.released_micros == 170
        again = await client.release("alice", reservation_id="job")
        assert not again.changed
        assert again.reservation == released.reservation

    async def test_a_settled_hold_stays_settled(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        await client.settle("alice", 150, reservation_id="job")
        released = await client.release("alice", reservation_id="job")
        assert (released.changed, released.reservation.state) == (False, ReservationState.SETTLED)

    async def test_an_unknown_hold(self, client: meterhold.AsyncClient) -> None:
        with pytest.raises(meterhold.ReservationNotFound):
            await client.release("alice", reservation_id="job")


class TestExtend:
    async def test_time_only_moves_later(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job", ttl=timedelta(hours=1))
        shorter = await client.extend("alice", reservation_id="job", ttl=timedelta(minutes=1))
        assert _from_now(shorter.expire_time) == pytest.approx(3600, abs=5)
        longer = await client.extend("alice", reservation_id="job", ttl=timedelta(hours=2))
        assert _from_now(longer.expire_time) == pytest.approx(7200, abs=5)
        assert (longer.held_micros, longer.on_expiry) == (200, OnExpiry.RELEASE)

    async def test_growth_happens_once_for_its_id(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        first, again = [
            await client.extend(
                "alice", reservation_id="job", add_amount_micros=100, extend_id="more"
            )
            for _ in range(2)
        ]
        assert (first.held_micros, again.held_micros) == (300, 300)
        assert (first.replayed, again.replayed) == (False, True)
        assert (await client.balance("alice")).held_micros == 300
        with pytest.raises(meterhold.IdempotencyMismatch) as raised:
            await client.extend(
                "alice", reservation_id="job", add_amount_micros=99, extend_id="more"
            )
        assert raised.value.field == "add_amount_micros"

    async def test_growth_is_all_or_nothing(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        with pytest.raises(meterhold.InsufficientCredits) as raised:
            await client.extend("alice", reservation_id="job", add_amount_micros=301)
        assert raised.value.reservable_micros == 300

    async def test_work_that_has_started_is_charged_at_the_expiry(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job", ttl=timedelta(milliseconds=300))
        started = await client.extend("alice", reservation_id="job", on_expiry=OnExpiry.CHARGE)
        assert started.on_expiry is OnExpiry.CHARGE
        expired = await _expired(client, "job")
        assert (expired.expiry_charged_micros, expired.captured_micros) == (200, 0)
        assert expired.end_time == expired.expire_time
        assert (await client.balance("alice")).spent_micros == 200

    async def test_an_ended_hold_is_not_revived(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        for name in ("settled", "released", "expired"):
            await client.reserve(
                "alice",
                10,
                reservation_id=name,
                ttl=timedelta(milliseconds=1) if name == "expired" else None,
            )
        await client.settle("alice", 1, reservation_id="settled")
        await client.release("alice", reservation_id="released")
        await _expired(client, "expired")
        for name, error in (
            ("settled", meterhold.ReservationSettled),
            ("released", meterhold.ReservationReleased),
            ("expired", meterhold.ReservationExpired),
            ("unknown", meterhold.ReservationNotFound),
        ):
            with pytest.raises(error):
                await client.extend("alice", reservation_id=name, ttl=timedelta(hours=1))


class TestDebit:
    async def test_it_charges_at_once(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        done = await client.debit("alice", 150, labels=LABELS, usage=USAGE, metadata=METADATA)
        assert (done.status, done.replayed) == (DebitStatus.DEBITED, False)
        assert (done.entry.kind, done.entry.amount_micros) == (EntryKind.DEBIT, -150)
        assert done.entry.remaining_after_micros == done.balance.remaining_micros == 350
        assert done.balance.ledger_seq == done.entry.seq == 2
        assert await client.get_entry("alice", seq=2) == done.entry
        assert (done.entry.labels, done.entry.usage) == (LABELS, USAGE)
        assert done.entry.metadata == METADATA

    async def test_all_or_nothing(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 200, reservation_id="job")
        with pytest.raises(meterhold.InsufficientCredits) as raised:
            await client.debit("alice", 301)
        assert (raised.value.available_micros, raised.value.required_micros) == (300, 301)
        assert (await client.balance("alice")).spent_micros == 0

    async def test_an_overdraft_is_seen_by_the_next_hold(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        done = await client.debit("alice", 600, overage=Overage.OVERDRAFT)
        assert (done.balance.available_micros, done.balance.debt_micros) == (-100, 100)
        with pytest.raises(meterhold.InsufficientCredits):
            await client.reserve("alice", 1, reservation_id="job")
        granted = await client.grant_once("alice", 130, idempotency_key="top-up")
        assert (granted.debt_repaid_micros, granted.balance.available_micros) == (100, 30)
        assert granted.balance.debt_micros == 0

    async def test_a_request_id_makes_retries_safe(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await _granted(client, 500, "bob")
        first = await client.debit("alice", 150, request_id="call-1")
        again = await client.debit("alice", 150, request_id="call-1")
        assert (again.status, again.replayed) == (DebitStatus.REPLAYED, True)
        assert (again.entry, again.balance) == (first.entry, first.balance)
        other = await client.debit("bob", 150, request_id="call-1")
        assert other.status is DebitStatus.DEBITED, "the id is the account's own"
        assert (await client.debit("alice", 150)).status is DebitStatus.DEBITED

    async def test_a_key_is_used_once_in_the_namespace(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await _granted(client, 500, "bob")
        first = await client.debit_once("alice", 150, idempotency_key="order")
        await client.debit_once("alice", 1, idempotency_key="another")
        again = await client.debit_once("alice", 150, idempotency_key="order")
        assert (again.status, again.entry, again.balance) == (
            DebitStatus.REPLAYED,
            first.entry,
            first.balance,
        )
        for account, amount, unit, field, original in (
            ("bob", 150, "", "account", "alice"),
            ("alice", 150, "minutes", "unit", "credits"),
            ("alice", 151, "", "amount_micros", "150"),
        ):
            with pytest.raises(meterhold.IdempotencyMismatch) as raised:
                await client.debit_once(account, amount, unit=unit, idempotency_key="order")
            assert (raised.value.field, raised.value.original) == (field, original)
        assert (await client.balance("bob")).spent_micros == 0


class TestGrant:
    async def test_all_that_is_said_of_it_is_kept(self, client: meterhold.AsyncClient) -> None:
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        cash = Cash(currency_code="EUR", minor_units=-999)
        source = Source(
            provider="stripe", order_id="o", store_id="s", test_mode=True, variant_id="v"
        )
        granted = await client.grant_once(
            "alice",
            500,
            idempotency_key="order",
            reason="welcome",
            category=LotCategory.PROMOTIONAL,
            priority=10,
            expire_time=tomorrow,
            cash=cash,
            source=source,
            labels=LABELS,
            metadata=METADATA,
        )
        entry = granted.entry
        assert entry
        assert (entry.kind, entry.amount_micros, entry.seq) == (EntryKind.GRANT, 500, 1)
        assert (entry.key, entry.reason) == ("order", "welcome")
        assert (entry.labels, entry.metadata) == (LABELS, METADATA)
        (lot,) = [lot async for lot in client.list_lots("alice")]
        assert (lot.seq, lot.granted_micros, lot.available_micros) == (1, 500, 500)
        assert (lot.priority, lot.category) == (10, LotCategory.PROMOTIONAL)
        assert (lot.expire_time, lot.idempotency_key) == (tomorrow, "order")
        assert (lot.cash, lot.source) == (cash, source)

    async def test_a_key_grants_once(self, client: meterhold.AsyncClient) -> None:
        first = await client.grant_once("alice", 500, idempotency_key="order")
        again = await client.grant_once("alice", 500, idempotency_key="order")
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.entry, again.balance) == (first.entry, first.balance)
        with pytest.raises(meterhold.IdempotencyMismatch) as raised:
            await client.grant_once("bob", 500, idempotency_key="order")
        assert raised.value.field == "account"

    async def test_legacy_keys_name_the_grant_made_under_them(
        self, client: meterhold.AsyncClient
    ) -> None:
        """A key format changed across a deploy: neither the old nor the new one grants twice."""
        first = await client.grant_once("alice", 500, idempotency_key="old-7")
        new = await client.grant_once(
            "alice", 500, idempotency_key="new-7", legacy_keys=["old-7", "older-7"]
        )
        assert new.replayed
        assert new.entry == first.entry
        for key in ("new-7", "older-7"):
            assert (await client.grant_once("alice", 500, idempotency_key=key)).replayed
            assert await client.get_entry("alice", grant_key=key) == first.entry
        assert (await client.balance("alice")).granted_micros == 500

    async def test_lots_are_spent_in_order(self, client: meterhold.AsyncClient) -> None:
        """Priority, then earliest expiry, then promotional before paid, then oldest."""
        soon, later = (datetime.now(UTC) + timedelta(days=days) for days in (1, 2))
        promotional = LotCategory.PROMOTIONAL
        kinds: dict[str, dict[str, Any]] = {
            "last": {"priority": 1000, "expire_time": soon},
            "never": {},
            "never-again": {},
            "gift": {"category": promotional},
            "later": {"expire_time": later},
            "soon": {"expire_time": soon},
            "first": {"priority": 0},
        }
        for name, kind in kinds.items():
            await client.grant_once("alice", 10, idempotency_key=name, **kind)
        lots = (await client.balance("alice", include_lots=True)).lots
        order = ["first", "soon", "later", "gift", "never", "never-again", "last"]
        assert [lot.idempotency_key for lot in lots] == order
        await client.debit("alice", 25)
        left = (await client.balance("alice", include_lots=True)).lots
        assert [(lot.idempotency_key, lot.available_micros) for lot in left[:2]] == [
            ("later", 5),
            ("gift", 10),
        ]

    async def test_an_expired_lot_is_written_off_but_for_what_is_held(
        self, client: meterhold.AsyncClient
    ) -> None:
        soon = datetime.now(UTC) + timedelta(milliseconds=400)
        await client.grant_once("alice", 100, idempotency_key="trial", expire_time=soon)
        await client.reserve("alice", 30, reservation_id="job")
        await _until(soon)
        balance = await client.balance("alice", include_lots=True)
        assert (balance.available_micros, balance.held_micros) == (0, 30)
        assert balance.expired_micros == 70
        assert [lot.held_micros for lot in balance.lots] == [30]
        await client.settle("alice", 20, reservation_id="job")
        entries = [
            (entry.kind, entry.amount_micros, entry.related_seq)
            async for entry in client.list_entries("alice", oldest_first=True)
        ]
        assert entries == [
            (EntryKind.GRANT, 100, 0),
            (EntryKind.EXPIRY, -70, 1),
            (EntryKind.CAPTURE, -20, 0),
            (EntryKind.EXPIRY, -10, 1),
        ]


class TestBalance:
    async def test_an_unknown_account_has_nothing(self, client: meterhold.AsyncClient) -> None:
        balance = await client.balance("nobody", include_lots=True)
        assert balance == meterhold.Balance(
            ledger_seq=0,
            available_micros=0,
            held_micros=0,
            remaining_micros=0,
            granted_micros=0,
            spent_micros=0,
            expired_micros=0,
            revoked_micros=0,
            refunded_micros=0,
            debt_micros=0,
            credit_limit_micros=0,
        )

    async def test_units_are_accounts_of_their_own(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.grant_once("alice", 60, unit="minutes", idempotency_key="plan")
        assert (await client.balance("alice")).available_micros == 500
        assert (await client.balance("alice", unit="credits")).available_micros == 500
        assert (await client.balance("alice", unit="minutes")).available_micros == 60

    async def test_min_seq_waits_for_the_ledger(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        waiting = asyncio.create_task(client.balance("alice", min_seq=2))
        await client.debit("alice", 1)
        assert (await waiting).ledger_seq == 2

    async def test_min_seq_does_not_wait_for_ever(
        self, client: meterhold.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(metering, "MIN_SEQ_WAIT_SECONDS", 0.05)
        await _granted(client, 500)
        with pytest.raises(meterhold.Unavailable) as raised:
            await client.balance("alice", min_seq=2)
        assert raised.value.reason == "LEDGER_BEHIND"


class TestDueButNotSwept:
    """Time is the database's, and what is due has expired, whether a sweeper came by or not."""

    async def test_reads_show_what_is_due_as_expired(self, database_url: str) -> None:
        async with (
            service(database_url, sweep=False) as address,
            meterhold.AsyncClient(address) as client,
        ):
            for account in ("a", "b", "c", "d", "e"):
                await _granted(client, 500, account)
                await client.reserve(account, 200, reservation_id="job", on_expiry=OnExpiry.CHARGE)
            _let_pass(database_url, seconds=901)
            balance = await client.balance("a")
            assert (balance.held_micros, balance.spent_micros) == (0, 200)
            job = await client.get_reservation("b", reservation_id="job")
            assert (job.state, job.expiry_charged_micros) == (ReservationState.EXPIRED, 200)
            (listed,) = [job async for job in client.list_reservations("c")]
            assert listed.state is ReservationState.EXPIRED
            entries = [entry async for entry in client.list_entries("d")]
            assert entries[0].kind is EntryKind.EXPIRY_CHARGE
            assert entries[0].reservation_id == "job"
            (lot,) = [lot async for lot in client.list_lots("e")]
            assert (lot.available_micros, lot.held_micros) == (300, 0)


class TestReads:
    @pytest.mark.parametrize("oldest_first", [False, True])
    async def test_pages_of_entries_have_each_entry_once(
        self, client: meterhold.AsyncClient, oldest_first: bool
    ) -> None:
        await _granted(client, 500)
        for _ in range(6):
            await client.debit("alice", 1)
        seqs = [
            entry.seq
            async for entry in client.list_entries("alice", page_size=3, oldest_first=oldest_first)
        ]
        assert seqs == (list(range(1, 8)) if oldest_first else list(range(7, 0, -1)))

    async def test_entries_by_kind(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        await client.reserve("alice", 10, reservation_id="job")
        await client.settle("alice", 10, reservation_id="job")
        await client.debit("alice", 1)
        for kinds, seqs in (
            ([], [3, 2, 1]),
            ([EntryKind.GRANT], [1]),
            ([EntryKind.DEBIT, EntryKind.CAPTURE], [3, 2]),
            ([EntryKind.REFUND], []),
        ):
            found = [e.seq async for e in client.list_entries("alice", kinds=kinds, page_size=1)]
            assert found == seqs

    async def test_an_entry_by_seq_or_key(self, client: meterhold.AsyncClient) -> None:
        granted = await client.grant_once("alice", 500, idempotency_key="same")
        debited = await client.debit_once("alice", 1, idempotency_key="same")
        assert await client.get_entry("alice", seq=1) == granted.entry
        assert await client.get_entry("alice", grant_key="same") == granted.entry
        assert await client.get_entry("alice", debit_key="same") == debited.entry
        selectors: list[dict[str, Any]] = [{"seq": 3}, {"debit_key": "x"}, {"grant_key": "x"}]
        for selector in selectors:
            with pytest.raises(meterhold.EntryNotFound):
                await client.get_entry("alice", **selector)
        with pytest.raises(meterhold.EntryNotFound):
            await client.get_entry("bob", debit_key="same")

    async def test_pages_of_reservations(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        for number in range(7):
            await client.reserve("alice", 10, reservation_id=f"job-{number}")
        for number in range(3):
            await client.settle("alice", 10, reservation_id=f"job-{number}")
        await client.release("alice", reservation_id="job-3")
        active, settled, released = (
            ReservationState.ACTIVE,
            ReservationState.SETTLED,
            ReservationState.RELEASED,
        )
        for states, numbers in (
            ([], [6, 5, 4, 3, 2, 1, 0]),
            ([active], [6, 5, 4]),
            ([settled, released], [3, 2, 1, 0]),
            ([ReservationState.EXPIRED], []),
        ):
            listed = client.list_reservations("alice", states=states, page_size=2)
            found = [reservation.reservation_id async for reservation in listed]
            assert found == [f"job-{number}" for number in numbers]

    async def test_a_reservation_says_all_of_itself(self, client: meterhold.AsyncClient) -> None:
        await _granted(client, 500)
        held = await client.reserve(
            "alice",
            200,
            reservation_id="job",
            ttl=timedelta(seconds=90, milliseconds=5),
            on_expiry=OnExpiry.CHARGE,
            labels=LABELS,
            metadata=METADATA,
        )
        job = await client.get_reservation("alice", reservation_id="job")
        assert (job.reservation_id, job.state) == ("job", ReservationState.ACTIVE)
        assert (job.held_micros, job.reserved_micros) == (200, 200)
        assert (job.captured_micros, job.released_micros, job.expiry_charged_micros) == (0, 0, 0)
        assert (job.on_expiry, job.expire_time) == (OnExpiry.CHARGE, held.expire_time)
        assert job.expire_time - job.create_time == job.ttl == timedelta(seconds=90.005)
        assert (job.end_time, job.late) == (None, False)
        assert (job.labels, job.metadata) == (LABELS, METADATA)

    async def test_pages_of_lots(self, client: meterhold.AsyncClient) -> None:
        for number in range(5):
            await client.grant_once("alice", 10, idempotency_key=f"lot-{number}")
        await client.debit("alice", 15)
        for include_spent, seqs in ((False, [5, 4, 3, 2]), (True, [5, 4, 3, 2, 1])):
            lots = client.list_lots("alice", include_spent=include_spent, page_size=2)
            assert [lot.seq async for lot in lots] == seqs

    async def test_an_unknown_account_is_an_empty_one(self, client: meterhold.AsyncClient) -> None:
        assert [entry async for entry in client.list_entries("nobody")] == []
        assert [lot async for lot in client.list_lots("nobody")] == []
        assert [job async for job in client.list_reservations("nobody")] == []
        with pytest.raises(meterhold.ReservationNotFound):
            await client.get_reservation("nobody", reservation_id="job")

    async def test_metadata_as_deep_as_it_may_be_comes_back(
        self, client: meterhold.AsyncClient
    ) -> None:
        await _granted(client, 500)
        done = await client.debit("alice", 1, metadata=_nested(16))
        (entry, _) = [entry async for entry in client.list_entries("alice")]
        assert entry.metadata == done.entry.metadata == _nested(16)

    @pytest.mark.parametrize("levels", [17, 49])
    async def test_deeper_metadata_is_refused_before_nobody_can_read_it(
        self, client: meterhold.AsyncClient, levels: int
    ) -> None:
        """Readers limit the depth, and an entry lies deeper in an answer than in a request."""
        await _granted(client, 500)
        with pytest.raises(meterhold.InvalidRequest) as raised:
            await client.debit("alice", 1, metadata=_nested(levels))
        assert [field for field, _ in raised.value.field_violations] == ["metadata"]
        assert [entry.seq async for entry in client.list_entries("alice")] == [1]


def _from_now(time: datetime) -> float:
    return (time - datetime.now(UTC)).total_seconds()


async def _until(time: datetime) -> None:
    """The one thing that only a clock tells: that it is this time."""
    await asyncio.sleep(max(0, _from_now(time)))


async def _expired(client: meterhold.AsyncClient, reservation_id: str) -> meterhold.Reservation:
    """The reservation once its time has passed."""
    found = await client.get_reservation("alice", reservation_id=reservation_id)
    if found.state is ReservationState.ACTIVE:
        await _until(found.expire_time)
        found = await client.get_reservation("alice", reservation_id=reservation_id)
    assert found.state is ReservationState.EXPIRED
    return found


def _let_pass(database_url: str, seconds: int) -> None:
    """Move all reservations into the past, as if so much time had passed."""
    past = timedelta(seconds=seconds)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE reservation SET create_time = create_time - %(past)s,"
            " expire_time = expire_time - %(past)s",
            {"past": past},
        )
        connection.execute(
            "UPDATE account SET next_expire_time = next_expire_time - %(past)s", {"past": past}
        )
