"""Replays a workload through the client, and keeps books of what was acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import meterhold
from meterhold_server.demo import DemoError
from meterhold_server.demo.books import AccountBook, CallTimes, Tally
from meterhold_server.demo.workload import Job, Workload

_ANSWER_SECONDS_MAX: Final = 20.0
_REPEAT_SECONDS: Final = 0.2
_POLL_SECONDS: Final = 0.2
# What the sweeper may lag behind the time of a hold.
_SWEEP_SECONDS_MAX: Final = 15.0

_T = TypeVar("_T")


class Replay:
    """One run: `grant`, `send_all`, `await_expiries`, `check_books`, in this order.

    `name` keeps its accounts apart from those of other runs on the same database. The methods
    raise DemoError if a call gets no answer whatever they do; wrong answers go to `tally.problems`.
    """

    def __init__(
        self, client: meterhold.AsyncClient, workload: Workload, name: str, in_flight_max: int
    ) -> None:
        self.tally = Tally()
        self._client = client
        self._workload = workload
        self._name = name
        self._slots = asyncio.Semaphore(in_flight_max)
        self._books = [AccountBook() for _ in workload.wallets]
        self._crashed: list[tuple[Job, int]] = []

    async def grant(self) -> None:
        """Give every account its credits."""
        async with _tasks() as tasks:
            for account in range(len(self._books)):
                tasks.create_task(self._grant(account))

    async def send_all(self) -> None:
        """Send the requests at their times, as far as there are slots, and wait for their ends."""
        begin = time.monotonic()
        try:
            async with _tasks() as tasks:
                for job in self._workload.jobs:
                    await asyncio.sleep(begin + job.start.total_seconds() - time.monotonic())
                    await self._slots.acquire()
                    self._count_sent()
                    self.tally.seconds = time.monotonic() - begin
                    tasks.create_task(self._send(job))
        finally:
            self.tally.seconds = time.monotonic() - begin

    async def await_expiries(self) -> None:
        """Wait until the hold of every crashed request has expired, and book what that charged."""
        seconds = self._workload.hold_ttl.total_seconds() + _SWEEP_SECONDS_MAX
        deadline = time.monotonic() + seconds
        async with _tasks() as tasks:
            for job, held_micros in self._crashed:
                tasks.create_task(self._await_expiry(job, held_micros, deadline))

    async def check_books(self) -> None:
        """Compare every balance with the books."""
        async with _tasks() as tasks:
            for account in range(len(self._books)):
                tasks.create_task(self._check_book(account))

    async def _grant(self, account: int) -> None:
        wallet, name = self._workload.wallets[account], self._account(account)
        paid = await self._answer(
            "GrantOnce",
            lambda: self._client.grant_once(
                name, wallet.paid_micros, idempotency_key=f"{name}-paid", reason="prepaid"
            ),
        )
        assert paid.entry is not None  # It is effective at once.
        # By the clock of the database, which may be another machine's.
        expire_time = paid.entry.create_time + self._workload.welcome_ttl
        await self._answer(
            "GrantOnce",
            lambda: self._client.grant_once(
                name,
                wallet.welcome_micros,
                idempotency_key=f"{name}-welcome",
                reason="welcome",
                category=meterhold.LotCategory.PROMOTIONAL,
                expire_time=expire_time,
            ),
        )
        self._books[account].granted_micros += wallet.paid_micros + wallet.welcome_micros

    def _count_sent(self) -> None:
        self.tally.sent += 1
        self.tally.in_flight += 1
        self.tally.in_flight_peak = max(self.tally.in_flight_peak, self.tally.in_flight)

    async def _send(self, job: Job) -> None:
        try:
            held_micros = await self._reserve(job)
            if held_micros is None:
                return
            await asyncio.sleep(job.work.total_seconds())
            if job.crashes:
                self._crashed.append((job, held_micros))
                self.tally.crashed += 1
            else:
                await self._settle(job)
        except meterhold.Rejected as error:
            self._problem(job, f"{type(error).__name__}: {error}")
        finally:
            self.tally.in_flight -= 1
            self._slots.release()

    async def _reserve(self, job: Job) -> int | None:
        """What is held; None if the account has too little."""
        on_expiry = meterhold.OnExpiry
        try:
            hold = await self._answer(
                "Reserve",
                lambda: self._client.reserve(
                    self._account(job.account),
                    job.worst_micros,
                    reservation_id=_reservation_id(job),
                    ttl=self._workload.hold_ttl,
                    on_expiry=on_expiry.CHARGE if job.charged_on_expiry else on_expiry.RELEASE,
                    labels=_labels(job),
                ),
            )
        except meterhold.InsufficientCredits as error:
            self.tally.refused += 1
            if not self._workload.wallets[job.account].scarce:
                self._problem(job, f"refused, though prepaid for the worst case: {error}")
            return None
        return hold.held_micros

    async def _settle(self, job: Job) -> None:
        result = await self._answer(
            "Settle",
            lambda: self._client.settle(
                self._account(job.account),
                job.true_micros,
                reservation_id=_reservation_id(job),
                labels=_labels(job),
                usage=meterhold.Usage(
                    provider=job.model.provider,
                    model=job.model.name,
                    input_tokens=job.context_tokens,
                    output_tokens=job.generated_tokens,
                ),
            ),
        )
        self._books[job.account].settled_micros += result.charged_micros
        self.tally.settled += 1
        self.tally.settled_late += result.late
        self.tally.settled_short += result.shortfall_micros > 0
        if result.charged_micros + result.shortfall_micros != job.true_micros:
            self._problem(job, f"{result.charged_micros} of {job.true_micros} micros charged")

    async def _await_expiry(self, job: Job, held_micros: int, deadline: float) -> None:
        name = self._account(job.account)
        while True:
            async with self._slots:
                hold = await self._answer(
                    "GetReservation",
                    lambda: self._client.get_reservation(name, reservation_id=_reservation_id(job)),
                )
            if hold.state is not meterhold.ReservationState.ACTIVE:
                break
            if time.monotonic() > deadline:
                self._problem(job, "its hold has not expired")
                return
            await asyncio.sleep(_POLL_SECONDS)
        charged_micros = held_micros if job.charged_on_expiry else 0
        self._books[job.account].expiry_charged_micros += charged_micros
        self.tally.expired_charged += job.charged_on_expiry
        self.tally.expired_released += not job.charged_on_expiry
        if hold.state is not meterhold.ReservationState.EXPIRED:
            self._problem(job, f"its hold is {hold.state}, not expired")
        if (hold.expiry_charged_micros, hold.captured_micros) != (charged_micros, 0):
            self._problem(job, f"its hold of {held_micros} micros ended as {hold}")

    async def _check_book(self, account: int) -> None:
        name = self._account(account)
        balance = await self._answer("Balance", lambda: self._client.balance(name))
        self.tally.problems += self._books[account].differences(name, balance)

    async def _answer(self, kind: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Make the call until there is a definite answer: every call has a key of its own."""
        times = self.tally.calls.setdefault(kind, CallTimes())
        deadline = time.monotonic() + _ANSWER_SECONDS_MAX
        while True:
            begin_nanoseconds = time.perf_counter_ns()
            try:
                return await call()
            except (meterhold.Unavailable, meterhold.OutcomeUnknown) as error:
                if time.monotonic() > deadline:
                    raise DemoError(f"{kind} got no answer: {error}") from error
                self.tally.repeated_calls += 1
                pause_seconds = error.retry_delay_seconds or _REPEAT_SECONDS
            except meterhold.ServerError as error:
                raise DemoError(f"{kind} failed: {error}") from error
            finally:
                times.nanoseconds.append(time.perf_counter_ns() - begin_nanoseconds)
            await asyncio.sleep(pause_seconds)

    def _account(self, number: int) -> str:
        return f"{self._name}-{number + 1:04}"

    def _problem(self, job: Job, text: str) -> None:
        self.tally.problems.append(f"{self._account(job.account)}, request {job.number}: {text}")


def _reservation_id(job: Job) -> str:
    return f"request-{job.number}"


def _labels(job: Job) -> dict[str, str]:
    return {"app": "chat", "model": job.model.name, "provider": job.model.provider}


@asynccontextmanager
async def _tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group that raises the first error as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
