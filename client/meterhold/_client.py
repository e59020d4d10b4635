"""The synchronous client: one method per call of the contract, plain Python in and out."""

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
from meterhold._calls import Calls
from meterhold._courier import Courier
from meterhold._heart import Heart
from meterhold._hold import Hold
from meterhold._tab import HoldOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path
    from types import TracebackType

    import grpc

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


class Client:
    """Talks to a Meterhold server. Safe to share between threads; make one and keep it.

        with meterhold.Client() as client:
            client.grant_once("alice", 500_000_000, idempotency_key="invoice-17")
            client.reserve("alice", 75_000_000, reservation_id="job-7")
            client.settle("alice", 60_000_000, reservation_id="job-7")

    Amounts are int micro-units, 1 credit = 1 000 000 micros, at most 10^15 in one call; anything
    but an int is a TypeError. `account` is your own id of the account, 1–128 printable characters,
    and `unit` what is counted, empty = `credits`; units are never converted. `labels` are at most
    16, with keys of 1–64 and values of at most 256 bytes. `metadata` holds JSON values, at most 4
    KiB. Times must be aware.

    Every call has a deadline: `timeout_seconds` of the call, otherwise that of the client. Until
    then the client makes the call again by itself, with the same key, when nobody knows what became
    of it: the connection broke, the answer did not come, the server could not tell. What is raised
    in the end is true of all attempts. A call without a key, which is a `debit` with `request_id`
    None, is made once only.

    Every call can raise `InvalidRequest`, `Unavailable`, `OutcomeUnknown` and `ServerError`; the
    methods name what else they raise. All are `MeterholdError`s.
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
        channel: grpc.Channel | None = None,
        coalesce: bool = True,
    ) -> None:
        """Make a client of the server at `target`; it connects with the first call.

        `target` is `host:port`, or any name that gRPC resolves. All addresses behind it are used in
        turn; several literal IP addresses with ports can be given as a sequence. `tls` None =
        plaintext. `api_key`, a key or a token, goes with every call; over plaintext to anything but
        this machine it is a ValueError. It can be a function that is asked before each call, in any
        thread, and answers the newest one at once. `attempt_timeout_seconds` is what one attempt of
        a call may take before it is made again. `journal` is a file that keeps what `hold` could
        not deliver.

        A ready `channel` is used instead of `target` and `tls` if given. It keeps its own options,
        retries included, and stays open when the client is closed.

        With `coalesce` calls that are made at the same time, in any threads, go to the server
        together, in a Batch: reserve, settle, release, extend, debit, debit_once and grant_once. As
        long as few calls are under way, each goes at once and by itself. Each keeps its own result
        or exception and its own timeout; concurrent calls have no order among them, as ever.
        """
        endpoint = _channel.endpoint(target, tls, api_key)
        self._calls = Calls(
            endpoint, channel, timeout_seconds, attempt_timeout_seconds, coalesce=coalesce
        )
        self._heart = Heart()
        self._courier = Courier(self._calls, journal)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Calls under way in other threads end with `OutcomeUnknown`.

        What `hold` could not deliver yet stays in the journal; without a journal it is logged.
        """
        self._heart.close()
        self._courier.close()
        self._calls.close()
        self._heart.join()
        self._courier.join()

    def hold(self, account: str, amount_micros: int, **options: Unpack[HoldOptions]) -> Hold:
        """Hold credits for a job that runs in a `with` block, and charge it at the end.

            with client.hold("alice", 5_000_000) as hold:
                for chunk in stream():
                    hold.charge(chunk.cost_micros)

        The end of the block settles what was collected, also when an exception ends it. It releases
        the hold if nothing was charged at all. While the block runs, heartbeats keep the hold
        alive. `HoldOptions` has the details.

        A settle that cannot be delivered is kept in the client's journal and delivered later.
        Without a journal the block raises `Unavailable` or `OutcomeUnknown`, and the client goes on
        trying until it is closed. If another exception is on its way out of the block already, that
        one goes on, with a note.

        The block raises what `reserve` does when it begins, and what `settle` does when it ends.
        """
        terms = _tab.terms(account, amount_micros, options)
        return Hold(self._calls, self._heart, self._courier, terms)

    def metered(
        self,
        account: str | Callable[..., str],
        amount_micros: int | Callable[..., int],
        **options: Unpack[HoldOptions],
    ) -> Callable[[Callable[Concatenate[Hold, _P], _R]], Callable[_P, _R]]:
        """Run each call of a function inside a `hold`, which it gets as its first argument.

            @client.metered(account=lambda user, text: user, amount_micros=5_000_000)
            def summarize(hold: meterhold.Hold, user: str, text: str) -> str: ...

            summarize("alice", "A long text")

        `account` and `amount_micros` are values, or functions of the arguments of the call. It is a
        TypeError to wrap a generator or coroutine function, or to give a `reservation_id`: each
        call has its own.
        """
        _tab.check_shared(options)

        def open_hold(*args: Any, **kwargs: Any) -> Hold:
            account_of_call = _metered.value_of(account, args, kwargs)
            amount_of_call = _metered.value_of(amount_micros, args, kwargs)
            return self.hold(account_of_call, amount_of_call, **options)

        return lambda function: _metered.metered(function, open_hold)

    def deliver_journal(self) -> Delivery:
        """Try now, once, to deliver what `hold` could not; a client does so by itself, too."""
        return self._courier.deliver()

    def reserve(
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
        """Hold credits before a job that costs at most `amount_micros`, 1 or more.

        `reservation_id`, 1–128 printable characters, is used once in the account for ever and is
        the idempotency key. `ttl` None = the server's default, 15 minutes; at most 7 days.
        `min_amount_micros` admits a smaller hold, of at least that much; 0 = all or nothing.
        `min_available_micros` admits only if that much is available before the hold. `on_expiry`
        None = RELEASE.

        Raises `IdempotencyMismatch`, `InsufficientCredits`, `BalanceOutOfRange`.
        """
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
            self._calls.call(self._calls.metering.Reserve, request, timeout_seconds)
        )

    def settle(
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
        """Charge what the job really cost, 0 or more, on top of earlier captures.

        Closes the reservation and gives the rest of the hold back, unless `keep_open`: that is a
        capture. `capture_id` makes a capture safe to repeat; empty = a fresh one, good for the
        client's own retries only. `overage` says what to do when hold and free balance do not cover
        the amount, None = CAP. An expired reservation can still be settled within the grace time.

        Raises `ReservationNotFound`, `IdempotencyMismatch`, `ReservationSettled`,
        `ReservationReleased`, `ReservationExpired`, `InsufficientCredits` (with `Overage.REJECT`),
        `BalanceOutOfRange`.
        """
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
            self._calls.call(self._calls.metering.Settle, request, timeout_seconds)
        )

    def release(
        self,
        account: str,
        *,
        reservation_id: str,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.ReleaseResult:
        """Free what a reservation still holds; its captures stay charged.

        On a finished one it succeeds with `changed` False. Raises `ReservationNotFound`.
        """
        request = _requests.release(account, reservation_id=reservation_id, unit=unit)
        return _answers.release(
            self._calls.call(self._calls.metering.Release, request, timeout_seconds)
        )

    def extend(
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
        """Move the expiry of a hold later, make it larger, or mark its work as started.

        At least one of `ttl`, `add_amount_micros` and `on_expiry` is needed. `ttl` holds at least
        that long from now, at most 7 days, and never shortens. Growth is all or nothing.
        `extend_id` makes growth safe to repeat; empty = a fresh one, good for the client's own
        retries only.

        Raises `ReservationNotFound`, `IdempotencyMismatch`, `ReservationSettled`,
        `ReservationReleased`, `ReservationExpired`, `InsufficientCredits`, `BalanceOutOfRange`.
        """
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
            self._calls.call(self._calls.metering.Extend, request, timeout_seconds)
        )

    def debit(
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
        """Charge at once, 1 micro or more, all or nothing.

        `overage` is REJECT (None) or OVERDRAFT, which records usage that has already happened, even
        into debt. `request_id`, unique in the account, makes the debit safe to repeat; empty = a
        fresh one, so that the client's own retries charge once and two calls charge twice; None =
        no key: made at most once, and never again by itself.

        Raises `IdempotencyMismatch`, `InsufficientCredits`, `BalanceOutOfRange`.
        """
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
        return _answers.debit(
            self._calls.call(self._calls.metering.Debit, request, timeout_seconds)
        )

    def debit_once(
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
        """Charge exactly once for `idempotency_key`, 1 micro or more, all or nothing.

        The key, 1–255 printable characters, is unique among all debits, whatever the account, and
        kept as long as the ledger. `overage` is REJECT (None) or OVERDRAFT.

        Raises `IdempotencyMismatch`, `InsufficientCredits`, `BalanceOutOfRange`.
        """
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
        return _answers.debit(
            self._calls.call(self._calls.metering.DebitOnce, request, timeout_seconds)
        )

    def grant_once(
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
        """Put credits in exactly once for `idempotency_key`, 1 micro or more. Debt is repaid first.

        The key, 1–255 printable characters, is unique among all grants, whatever the account, and
        kept as long as the ledger. `legacy_keys` are at most 8 further keys under which the grant
        may already have been made. `reason` is for people, at most 256 bytes. `category` None =
        PAID. Lots are spent by ascending `priority`, 0 to 1000, None = 50. The credits can be spent
        from `effective_time` on and are pending until then; None or passed = at once. `expire_time`
        None = never.

        Raises `IdempotencyMismatch`, `SourceMismatch`, `GrantRevoked`, `AccountFrozen`,
        `BalanceOutOfRange`.
        """
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
            self._calls.call(self._calls.metering.GrantOnce, request, timeout_seconds)
        )

    def refund_charge(
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
        """Give a charge back, or part of it, into the very lots it came from; once for its key.

        `amount_micros` 0 = all that is left of it. The charge is a debit or a capture, named by the
        `entry_seq` of its ledger entry or by `reservation_id`: then it is the final settle, or the
        capture of that `capture_id`. What came from a lot that has expired since expires at once,
        or lives for `expired_lot_grace`, at most 366 days. The key, 1–255 printable characters, is
        unique among all refunds, whatever the account. `reason` is for people, at most 256 bytes.

        Raises `IdempotencyMismatch`, `EntryNotFound`, `RefundExceedsCharge`, `BalanceOutOfRange`.
        """
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
            self._calls.call(self._calls.metering.RefundCharge, request, timeout_seconds)
        )

    def revoke_grant(
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
        """Take credits of a grant back, as after a refund or a dispute of its purchase.

        `grant_key` is the `idempotency_key`, or a legacy key, of the `grant_once`. `fraction_ppm`,
        1 to 1 000 000 millionths of the grant, or `amount_micros`, 1 to 10^15, says how much is
        revoked all in all, by this call and earlier ones of the same `revocation_id` together;
        neither = all of it. Only what is more than before is taken, so that a repeated call takes
        nothing.

        What the grant's own lot has available is taken first; for what was spent or is held, other
        lots pay, then the account owes it. What has expired is not taken.

        `account` None = whichever has the grant; `unit` is then left out, too. `allow_tombstone`
        remembers a revocation that comes before its grant: then the grant is blocked if all of it
        is revoked, else reduced. Revocations of different `revocation_id`, at most 128 characters,
        add up, up to the grant: give each dispute its own. `expected_source` is compared with the
        purchase. `reason` is for people, at most 256 bytes.

        Raises `GrantNotFound`, `SourceMismatch`.
        """
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
            self._calls.call(self._calls.metering.RevokeGrant, request, timeout_seconds)
        )

    def reinstate_grant(
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
        """Give back what `revoke_grant` took under a `revocation_id`, as when a dispute is won.

        A repeated call gives nothing, and earlier revocations of that id, sent again, take nothing
        any more. The other arguments are as in `revoke_grant`.

        Raises `GrantNotFound`, `SourceMismatch`, `BalanceOutOfRange`.
        """
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
            self._calls.call(self._calls.metering.ReinstateGrant, request, timeout_seconds)
        )

    def balance(
        self,
        account: str,
        *,
        unit: str = "",
        min_seq: int = 0,
        include_lots: bool = False,
        timeout_seconds: float | None = None,
    ) -> _results.Balance:
        """Answer all numbers of an account, all zeros for an unknown one.

        `min_seq` waits, for a bounded time, until the ledger has reached that entry, and raises
        `Unavailable` if it does not. `include_lots` adds the lots with credits left, in spend
        order, and the grants that are pending.
        """
        request = _requests.balance(account, unit=unit, min_seq=min_seq, include_lots=include_lots)
        return _answers.balance(
            self._calls.call(self._calls.metering.Balance, request, timeout_seconds)
        )

    def get_reservation(
        self,
        account: str,
        *,
        reservation_id: str,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.Reservation:
        """Answer one reservation as it is now. Raises `ReservationNotFound`."""
        request = _ledger_requests.get_reservation(
            account, reservation_id=reservation_id, unit=unit
        )
        return _answers.reservation(
            self._calls.call(self._calls.ledger.GetReservation, request, timeout_seconds)
        )

    def list_reservations(
        self,
        account: str,
        *,
        unit: str = "",
        states: Iterable[ReservationState] = (),
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> Iterator[_results.Reservation]:
        """Iterate over the reservations of an account, newest first; only `states`, empty = all.

        Pages of `page_size`, 0 = 50, at most 1000, are fetched as they are needed; each has the
        deadline of its own and can raise like a call.
        """
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
    ) -> Iterator[_results.Entry]:
        """Iterate over the ledger of an account, newest first; only `kinds`, empty = all.

        Only entries written at `start_time` or later and before `end_time`, None = no limit, that
        have all of `labels`. Pages as in `list_reservations`.
        """
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

    def get_entry(
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
        """Answer one ledger entry, by exactly one of `seq` and the key of what made it.

        `debit_key` is the `idempotency_key` of a `debit_once`, `refund_key` of a `refund_charge`,
        `grant_key` of a `grant_once`, or a legacy key of it. Raises `EntryNotFound`.
        """
        request = _ledger_requests.get_entry(
            account,
            unit=unit,
            seq=seq,
            debit_key=debit_key,
            grant_key=grant_key,
            refund_key=refund_key,
        )
        return _answers.entry(
            self._calls.call(self._calls.ledger.GetEntry, request, timeout_seconds)
        )

    def list_lots(
        self,
        account: str,
        *,
        unit: str = "",
        include_spent: bool = False,
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> Iterator[_results.Lot]:
        """Iterate over the lots of an account, newest first; spent ones only if asked for.

        Pages as in `list_reservations`.
        """
        request = _ledger_requests.list_lots(
            account, unit=unit, include_spent=include_spent, page_size=page_size
        )
        return self._calls.items(
            self._calls.ledger.ListLots, request, _answers.lots, timeout_seconds
        )

    def get_stats(
        self,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.Stats:
        """Answer the sums of all accounts of a unit, from one snapshot.

        It reads all accounts: nothing but `timeout_seconds` limits how long. Raises
        `BalanceOutOfRange` if a sum is past int64.
        """
        request = _ledger_requests.get_stats(unit=unit)
        return _answers.stats(
            self._calls.call(self._calls.ledger.GetStats, request, timeout_seconds)
        )

    def spend_report(
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
        """Sum the charges of an account, or of all of the unit, by what they were for.

            by_team = [meterhold.Label("team"), meterhold.SpendDimension.MODEL]
            for row in client.spend_report("alice", group_by=by_team).rows:
                team, model = row.values

        Counts charges made at `start_time` or later and before `end_time`, None = no limit, that
        have all of `labels`. `group_by` names at most 3 things, each once; empty = the total alone.
        The report has the `row_limit` largest groups, 0 = 50, at most 1000. Those of a
        large account are read in sums, but one by one with two labels, or of all accounts: nothing
        but `timeout_seconds` limits how long.
        """
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
            self._calls.call(self._calls.ledger.SpendReport, request, timeout_seconds)
        )

    def configure_account(
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
        """Set what an account may do; None leaves a thing as it is. Creates the account if new.

        `credit_limit_micros`, 0 to 10^15, is how far below zero charges may take the available
        credits; with `holds_use_credit` holds may, too. Lowered under what is used it blocks new
        spending only. A `frozen` account takes no new work and no credits; what runs may be
        settled, released, and held longer. A first `allowance` begins at once, or at its anchor if
        that is in the future; a change, and `Allowance.OFF`, count from the end of the running
        period.
        """
        request = _admin_requests.configure_account(
            account,
            unit=unit,
            credit_limit_micros=credit_limit_micros,
            holds_use_credit=holds_use_credit,
            frozen=frozen,
            allowance=allowance,
        )
        return _answers.configured(
            self._calls.call(self._calls.admin.ConfigureAccount, request, timeout_seconds)
        )

    def get_account(
        self, account: str, *, unit: str = "", timeout_seconds: float | None = None
    ) -> _results.Account:
        """Answer an account; all zeros, and `create_time` None, for an unknown one."""
        request = _admin_requests.get_account(account, unit=unit)
        return _answers.account(
            self._calls.call(self._calls.admin.GetAccount, request, timeout_seconds)
        )

    def list_accounts(
        self,
        account_prefix: str = "",
        *,
        page_size: int = 0,
        timeout_seconds: float | None = None,
    ) -> Iterator[_results.Account]:
        """Iterate over the accounts whose id begins with `account_prefix`, by id and unit.

        Pages as in `list_reservations`.
        """
        request = _admin_requests.list_accounts(account_prefix=account_prefix, page_size=page_size)
        return self._calls.items(
            self._calls.admin.ListAccounts, request, _answers.accounts, timeout_seconds
        )

    def configure_defaults(
        self,
        *,
        unit: str = "",
        signup_grant: SignupGrant | None = None,
        allowance: Allowance | None = None,
        timeout_seconds: float | None = None,
    ) -> _results.Defaults:
        """Set what accounts of a unit get when they are created; None leaves a thing as it is.

        Accounts are created by their first grant or by `configure_account`; those that exist stay
        as they are. `SignupGrant.OFF` and `Allowance.OFF` take a thing away. An allowance without
        `anchor_time` counts from the creation of each account.
        """
        request = _admin_requests.configure_defaults(
            unit=unit, signup_grant=signup_grant, allowance=allowance
        )
        return _answers.defaults(
            self._calls.call(self._calls.admin.ConfigureDefaults, request, timeout_seconds)
        )

    def get_defaults(
        self,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.Defaults:
        """Answer what accounts of a unit get when they are created."""
        request = _admin_requests.get_defaults(unit=unit)
        return _answers.defaults(
            self._calls.call(self._calls.admin.GetDefaults, request, timeout_seconds)
        )

    def verify_balance(
        self,
        account: str,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.VerifyResult:
        """Recompute an account from its entries, lots, holds and keys, and answer each difference.

        It reads the whole ledger of the account: nothing but `timeout_seconds` limits how long.
        """
        request = _admin_requests.verify_balance(account, unit=unit)
        return _answers.verified(
            self._calls.call(self._calls.admin.VerifyBalance, request, timeout_seconds)
        )

    def rebuild_balance(
        self,
        account: str,
        *,
        unit: str = "",
        timeout_seconds: float | None = None,
    ) -> _results.RebuildResult:
        """Set right what `verify_balance` finds; a sound account stays as it is.

        What can be recomputed is, and what the ledger lacks is posted as CORRECTION entries.
        History is never changed. `timeout_seconds` is as in `verify_balance`.
        """
        request = _admin_requests.rebuild_balance(account, unit=unit)
        return _answers.rebuilt(
            self._calls.call(self._calls.admin.RebuildBalance, request, timeout_seconds)
        )

    def create_api_key(
        self,
        name: str,
        *,
        scopes: Iterable[Scope],
        operations_per_second_max: int = 0,
        timeout_seconds: float | None = None,
    ) -> _results.CreatedApiKey:
        """Make an API key of the caller's namespace; `name` tells what it is for.

        It may have some of the scopes that the caller has. `operations_per_second_max` 0 = no
        limit. The key is answered this once. After `OutcomeUnknown` there may be one that nobody
        has: `list_credentials` shows it.
        """
        request = _admin_requests.create_api_key(
            name, scopes=scopes, operations_per_second_max=operations_per_second_max
        )
        return _answers.created_api_key(
            self._calls.call(self._calls.admin.CreateApiKey, request, timeout_seconds)
        )

    def list_credentials(
        self, *, page_size: int = 0, timeout_seconds: float | None = None
    ) -> Iterator[_results.Credential]:
        """Iterate over the credentials of the caller's namespace, oldest first, revoked ones too.

        Pages as in `list_reservations`.
        """
        request = _admin_requests.list_credentials(page_size=page_size)
        return self._calls.items(
            self._calls.admin.ListCredentials, request, _answers.credentials, timeout_seconds
        )

    def revoke_credential(
        self, credential_id: str, *, timeout_seconds: float | None = None
    ) -> _results.Credential | None:
        """Revoke a credential of the caller's namespace; None if there is none of that id.

        It opens nothing after 5 seconds at most. One that is revoked stays as it is.
        """
        request = _admin_requests.revoke_credential(credential_id)
        return _answers.revoked_credential(
            self._calls.call(self._calls.admin.RevokeCredential, request, timeout_seconds)
        )
