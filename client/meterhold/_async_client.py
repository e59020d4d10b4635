"""The asynchronous twin of the client. What the methods mean is written down in `_client.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack

from meterhold import (
    _admin_requests,
    _answers,
    _channel,
    _ledger_requests,
    _metered,
    _requests,
    _tab,
)
from meterhold._async_calls import AsyncCalls
from meterhold._async_courier import AsyncCourier
from meterhold._async_hold import AsyncHold
from meterhold._background import Background
from meterhold._tab import HoldOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path
    from types import TracebackType

    import grpc.aio

    from meterhold import _results
    from meterhold._delivery import Delivery
    from meterhold._enums import (
        EntryKind,
        LotCategory,
        OnExpiry,
        Overage,
        ReservationState,
        Scope,
        SpendDimension,
    )
    from meterhold._values import (
        Allowance,
        Cash,
        ExpectedSource,
        Label,
        SignupGrant,
        Source,
        Tls,
        Usage,
    )

_P = ParamSpec("_P")
_R = TypeVar("_R")


class AsyncClient:
    """The twin of `Client` for asyncio: the same methods, awaited; lists are iterated `async for`.

        async with meterhold.AsyncClient() as client:
            await client.reserve("alice", 75_000_000, reservation_id="job-7")
            await client.settle("alice", 60_000_000, reservation_id="job-7")

    Make it inside the event loop that uses it. A call whose task is cancelled raises
    `asyncio.CancelledError` as usual; what became of it is unknown, as with `OutcomeUnknown`.
    """

    def __init__(
        self,
        target: str | Sequence[str] = _channel.DEFAULT_TARGET,
        *,
        timeout_seconds: float = _channel.DEFAULT_TIMEOUT_SECONDS,
        attempt_timeout_seconds: float = _channel.DEFAULT_ATTEMPT_TIMEOUT_SECONDS,
        tls: Tls | None = None,
        api_key: str | Callable[[], str] | None = None,
        journal: str | Path | None = None,
        channel: grpc.aio.Channel | None = None,
        coalesce: bool = True,
    ) -> None:
        """See `Client`. A ready `channel` must be one of `grpc.aio`."""
        endpoint = _channel.endpoint(target, tls, api_key)
        self._calls = AsyncCalls(
            endpoint, channel, timeout_seconds, attempt_timeout_seconds, coalesce=coalesce
        )
        self._background = Background()
        self._courier = AsyncCourier(self._calls, journal)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection. Calls under way end with `asyncio.CancelledError`.

        Waits for the ends of holds whose tasks were cancelled. What `hold` could not deliver yet
        stays in the journal; without a journal it is logged.
        """
        await self._background.aclose()
        await self._courier.aclose()
        await self._calls.aclose()

    def hold(self, account: str, amount_micros: int, **options: Unpack[HoldOptions]) -> AsyncHold:
        """See `Client.hold`; used with `async with`."""
        terms = _tab.terms(account, amount_micros, options)
        return AsyncHold(self._calls, self._background, self._courier, terms)

    def metered(
        self,
        account: str | Callable[..., str],
        amount_micros: int | Callable[..., int],
        **options: Unpack[HoldOptions],
    ) -> Callable[
        [Callable[Concatenate[AsyncHold, _P], Awaitable[_R]]], Callable[_P, Awaitable[_R]]
    ]:
        """See `Client.metered`; for coroutine functions."""
        _tab.check_shared(options)

        def open_hold(*args: Any, **kwargs: Any) -> AsyncHold:
            account_of_call = _metered.value_of(account, args, kwargs)
            amount_of_call = _metered.value_of(amount_micros, args, kwargs)
            return self.hold(account_of_call, amount_of_call, **options)

        return lambda function: _metered.async_metered(function, open_hold)

    async def deliver_journal(self) -> Delivery:
        """See `Client.deliver_journal`."""
        return await self._courier.deliver()

    async def reserve(
        self,
        account: str,
        amount_micros: int,
        *,
        reservation_id: str,
        unit: str = "",
        ttl: timedelta | None = None,
        min_amount_micros: int = 0,
        min_available_micros: int = 0,
        on_expiry: OnExpiry | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.ReserveResult:
        """See `Client.reserve`."""
        request = _requests.reserve(
            account,
            amount_micros,
            reservation_id=reservation_id,
            unit=unit,
            ttl=ttl,
            min_amount_micros=min_amount_micros,
            min_available_micros=min_available_micros,
            on_expiry=on_expiry,
            labels=labels,
            metadata=metadata,
        )
        return _answers.reserve(
            await self._calls.call(self._calls.metering.Reserve, request, timeout_seconds)
        )

    async def settle(
        self,
        account: str,
        amount_micros: int,
        *,
        reservation_id: str,
        unit: str = "",
        keep_open: bool = False,
        capture_id: str = "",
        overage: Overage | None = None,
        labels: Mapping[str, str] | None = None,
        usage: Usage | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.SettleResult:
        """See `Client.settle`."""
        request = _requests.settle(
            account,
            amount_micros,
            reservation_id=reservation_id,
            unit=unit,
            keep_open=keep_open,
            capture_id=capture_id,
            overage=overage,
            labels=labels,
            usage=usage,
            metadata=metadata,
        )
        return _answers.settle(
            await self._calls.call(self._calls.metering.Settle, request, timeout_seconds)
        )

    async def release(
        self,
        account: str,
        *,
        reservation_id: str,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.ReleaseResult:
        """See `Client.release`."""
        request = _requests.release(account, reservation_id=reservation_id, unit=unit)
        return _answers.release(
            await self._calls.call(self._calls.metering.Release, request, timeout_seconds)
        )

    async def extend(
        self,
        account: str,
        *,
        reservation_id: str,
        unit: str = "",
        ttl: timedelta | None = None,
        add_amount_micros: int = 0,
        on_expiry: OnExpiry | None = None,
        extend_id: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.ExtendResult:
        """See `Client.extend`."""
        request = _requests.extend(
            account,
            reservation_id=reservation_id,
            unit=unit,
            ttl=ttl,
            add_amount_micros=add_amount_micros,
            on_expiry=on_expiry,
            extend_id=extend_id,
        )
        return _answers.extend(
            await self._calls.call(self._calls.metering.Extend, request, timeout_seconds)
        )

    async def debit(
        self,
        account: str,
        amount_micros: int,
        *,
        unit: str = "",
        overage: Overage | None = None,
        request_id: str | None = "",
        labels: Mapping[str, str] | None = None,
        usage: Usage | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.DebitResult:
        """See `Client.debit`."""
        request = _requests.debit(
            account,
            amount_micros,
            unit=unit,
            overage=overage,
            request_id=request_id,
            labels=labels,
            usage=usage,
            metadata=metadata,
        )
        response = await self._calls.call(self._calls.metering.Debit, request, timeout_seconds)
        return _answers.debit(response)

    async def debit_once(
        self,
        account: str,
        amount_micros: int,
        *,
        idempotency_key: str,
        unit: str = "",
        overage: Overage | None = None,
        labels: Mapping[str, str] | None = None,
        usage: Usage | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.DebitResult:
        """See `Client.debit_once`."""
        request = _requests.debit_once(
            account,
            amount_micros,
            idempotency_key=idempotency_key,
            unit=unit,
            overage=overage,
            labels=labels,
            usage=usage,
            metadata=metadata,
        )
        response = await self._calls.call(self._calls.metering.DebitOnce, request, timeout_seconds)
        return _answers.debit(response)

    async def grant_once(
        self,
        account: str,
        amount_micros: int,
        *,
        idempotency_key: str,
        unit: str = "",
        legacy_keys: Iterable[str] = (),
        reason: str = "",
        category: LotCategory | None = None,
        priority: int | None = None,
        effective_time: datetime | None = None,
        expire_time: datetime | None = None,
        cash: Cash | None = None,
        source: Source | None = None,
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.GrantResult:
        """See `Client.grant_once`."""
        request = _requests.grant_once(
            account,
            amount_micros,
            idempotency_key=idempotency_key,
            unit=unit,
            legacy_keys=legacy_keys,
            reason=reason,
            category=category,
            priority=priority,
            effective_time=effective_time,
            expire_time=expire_time,
            cash=cash,
            source=source,
            labels=labels,
            metadata=metadata,
        )
        return _answers.grant(
            await self._calls.call(self._calls.metering.GrantOnce, request, timeout_seconds)
        )

    async def refund_charge(
        self,
        account: str,
        amount_micros: int = 0,
        *,
        idempotency_key: str,
        entry_seq: int | None = None,
        reservation_id: str | None = None,
        capture_id: str = "",
        unit: str = "",
        expired_lot_grace: timedelta | None = None,
        reason: str = "",
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.RefundResult:
        """See `Client.refund_charge`."""
        request = _requests.refund_charge(
            account,
            amount_micros,
            idempotency_key=idempotency_key,
            unit=unit,
            entry_seq=entry_seq,
            reservation_id=reservation_id,
            capture_id=capture_id,
            expired_lot_grace=expired_lot_grace,
            reason=reason,
            labels=labels,
            metadata=metadata,
        )
        return _answers.refund(
            await self._calls.call(self._calls.metering.RefundCharge, request, timeout_seconds)
        )

    async def revoke_grant(
        self,
        grant_key: str,
        *,
        fraction_ppm: int | None = None,
        amount_micros: int | None = None,
        account: str | None = None,
        unit: str = "",
        allow_tombstone: bool = False,
        revocation_id: str = "",
        expected_source: ExpectedSource | None = None,
        reason: str = "",
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.RevokeResult:
        """See `Client.revoke_grant`."""
        request = _requests.revoke_grant(
            grant_key,
            fraction_ppm=fraction_ppm,
            amount_micros=amount_micros,
            account=account,
            unit=unit,
            allow_tombstone=allow_tombstone,
            revocation_id=revocation_id,
            expected_source=expected_source,
            reason=reason,
            labels=labels,
            metadata=metadata,
        )
        return _answers.revoke(
            await self._calls.call(self._calls.metering.RevokeGrant, request, timeout_seconds)
        )

    async def reinstate_grant(
        self,
        grant_key: str,
        *,
        account: str | None = None,
        unit: str = "",
        revocation_id: str = "",
        expected_source: ExpectedSource | None = None,
        reason: str = "",
        labels: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.ReinstateResult:
        """See `Client.reinstate_grant`."""
        request = _requests.reinstate_grant(
            grant_key,
            account=account,
            unit=unit,
            revocation_id=revocation_id,
            expected_source=expected_source,
            reason=reason,
            labels=labels,
            metadata=metadata,
        )
        return _answers.reinstate(
            await self._calls.call(self._calls.metering.ReinstateGrant, request, timeout_seconds)
        )

    async def balance(
        self,
        account: str,
        *,
        unit: str = "",
        min_seq: int = 0,
        include_lots: bool = False,
        timeout_seconds: float | None = None,
    ) -> _results.Balance:
        """See `Client.balance`."""
        request = _requests.balance(account, unit=unit, min_seq=min_seq, include_lots=include_lots)
        return _answers.balance(
            await self._calls.call(self._calls.metering.Balance, request, timeout_seconds)
        )

    async def get_reservation(
        self,
        account: str,
        *,
        reservation_id: str,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.Reservation:
        """See `Client.get_reservation`."""
        request = _ledger_requests.get_reservation(
            account, reservation_id=reservation_id, unit=unit
        )
        return _answers.reservation(
            await self._calls.call(self._calls.ledger.GetReservation, request, timeout_seconds)
        )

    def list_reservations(
        self,
        account: str,
        *,
        unit: str = "",
        states: Iterable[ReservationState] = (),
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[_results.Reservation]:
        """See `Client.list_reservations`."""
        request = _ledger_requests.list_reservations(
            account, unit=unit, states=states, page_size=page_size
        )
        return self._calls.items(
            self._calls.ledger.ListReservations, request, _answers.reservations, timeout_seconds
        )

    def list_entries(
        self,
        account: str,
        *,
        unit: str = "",
        kinds: Iterable[EntryKind] = (),
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        oldest_first: bool = False,
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[_results.Entry]:
        """See `Client.list_entries`."""
        request = _ledger_requests.list_entries(
            account,
            unit=unit,
            kinds=kinds,
            start_time=start_time,
            end_time=end_time,
            labels=labels,
            oldest_first=oldest_first,
            page_size=page_size,
        )
        return self._calls.items(
            self._calls.ledger.ListEntries, request, _answers.entries, timeout_seconds
        )

    async def get_entry(
        self,
        account: str,
        *,
        unit: str = "",
        seq: int | None = None,
        debit_key: str | None = None,
        grant_key: str | None = None,
        refund_key: str | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.Entry:
        """See `Client.get_entry`."""
        request = _ledger_requests.get_entry(
            account,
            unit=unit,
            seq=seq,
            debit_key=debit_key,
            grant_key=grant_key,
            refund_key=refund_key,
        )
        return _answers.entry(
            await self._calls.call(self._calls.ledger.GetEntry, request, timeout_seconds)
        )

    def list_lots(
        self,
        account: str,
        *,
        unit: str = "",
        include_spent: bool = False,
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[_results.Lot]:
        """See `Client.list_lots`."""
        request = _ledger_requests.list_lots(
            account, unit=unit, include_spent=include_spent, page_size=page_size
        )
        return self._calls.items(
            self._calls.ledger.ListLots, request, _answers.lots, timeout_seconds
        )

    async def get_stats(
        self,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.Stats:
        """See `Client.get_stats`."""
        request = _ledger_requests.get_stats(unit=unit)
        return _answers.stats(
            await self._calls.call(self._calls.ledger.GetStats, request, timeout_seconds)
        )

    async def spend_report(
        self,
        account: str | None = None,
        *,
        unit: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        group_by: Iterable[SpendDimension | Label] = (),
        row_limit: int = 0,
        timeout_seconds: float | None = None,
    ) -> _results.SpendReport:
        """See `Client.spend_report`."""
        request = _ledger_requests.spend_report(
            account,
            unit=unit,
            start_time=start_time,
            end_time=end_time,
            labels=labels,
            group_by=group_by,
            row_limit=row_limit,
        )
        return _answers.spend_report(
            await self._calls.call(self._calls.ledger.SpendReport, request, timeout_seconds)
        )

    async def configure_account(
        self,
        account: str,
        *,
        unit: str = "",
        credit_limit_micros: int | None = None,
        holds_use_credit: bool | None = None,
        frozen: bool | None = None,
        allowance: Allowance | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.Account:
        """See `Client.configure_account`."""
        request = _admin_requests.configure_account(
            account,
            unit=unit,
            credit_limit_micros=credit_limit_micros,
            holds_use_credit=holds_use_credit,
            frozen=frozen,
            allowance=allowance,
        )
        return _answers.configured(
            await self._calls.call(self._calls.admin.ConfigureAccount, request, timeout_seconds)
        )

    async def get_account(
        self, account: str, *, unit: str = "", timeout_seconds: float | None = None
    ) -> _results.Account:
        """See `Client.get_account`."""
        request = _admin_requests.get_account(account, unit=unit)
        return _answers.account(
            await self._calls.call(self._calls.admin.GetAccount, request, timeout_seconds)
        )

    def list_accounts(
        self,
        account_prefix: str = "",
        *,
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[_results.Account]:
        """See `Client.list_accounts`."""
        request = _admin_requests.list_accounts(account_prefix=account_prefix, page_size=page_size)
        return self._calls.items(
            self._calls.admin.ListAccounts, request, _answers.accounts, timeout_seconds
        )

    async def configure_defaults(
        self,
        *,
        unit: str = "",
        signup_grant: SignupGrant | None = None,
        allowance: Allowance | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.Defaults:
        """See `Client.configure_defaults`."""
        request = _admin_requests.configure_defaults(
            unit=unit, signup_grant=signup_grant, allowance=allowance
        )
        calls = self._calls
        response = await calls.call(calls.admin.ConfigureDefaults, request, timeout_seconds)
        return _answers.defaults(response)

    async def get_defaults(
        self,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.Defaults:
        """See `Client.get_defaults`."""
        request = _admin_requests.get_defaults(unit=unit)
        response = await self._calls.call(self._calls.admin.GetDefaults, request, timeout_seconds)
        return _answers.defaults(response)

    async def verify_balance(
        self,
        account: str,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.VerifyResult:
        """See `Client.verify_balance`."""
        request = _admin_requests.verify_balance(account, unit=unit)
        return _answers.verified(
            await self._calls.call(self._calls.admin.VerifyBalance, request, timeout_seconds)
        )

    async def rebuild_balance(
        self,
        account: str,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.RebuildResult:
        """See `Client.rebuild_balance`."""
        request = _admin_requests.rebuild_balance(account, unit=unit)
        return _answers.rebuilt(
            await self._calls.call(self._calls.admin.RebuildBalance, request, timeout_seconds)
        )

    async def create_api_key(
        self,
        name: str,
        *,
        scopes: Iterable[Scope],
        operations_per_second_max: int = 0,
        timeout_seconds: float | None = None,
    ) -> _results.CreatedApiKey:
        """See `Client.create_api_key`."""
        request = _admin_requests.create_api_key(
            name, scopes=scopes, operations_per_second_max=operations_per_second_max
        )
        return _answers.created_api_key(
            await self._calls.call(self._calls.admin.CreateApiKey, request, timeout_seconds)
        )

    def list_credentials(
        self, *, page_size: int = 0, timeout_seconds: float | None = None
    ) -> AsyncIterator[_results.Credential]:
        """See `Client.list_credentials`."""
        request = _admin_requests.list_credentials(page_size=page_size)
        return self._calls.items(
            self._calls.admin.ListCredentials, request, _answers.credentials, timeout_seconds
        )

    async def revoke_credential(
        self, credential_id: str, *, timeout_seconds: float | None = None
    ) -> _results.Credential | None:
        """See `Client.revoke_credential`."""
        request = _admin_requests.revoke_credential(credential_id)
        return _answers.revoked_credential(
            await self._calls.call(self._calls.admin.RevokeCredential, request, timeout_seconds)
        )
