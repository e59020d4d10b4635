"""`hold` against a real server, both twins through one and the same way of calling them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import meterhold
from meterhold import AsyncClient, Client, OnExpiry, ReservationState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

ACCOUNT = "alice"
GRANTED = 1_000
HELD = 100


class AnyHold(Protocol):
    """A hold whose methods are all awaited; `open` is the real one."""

    open: Any

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any: ...


class Twin(Protocol):
    """Either client."""

    def hold(self, amount: int = HELD, **options: Any) -> AbstractAsyncContextManager[AnyHold]: ...


class _Open:
    def __init__(self, hold: Any) -> None:
        self.open = hold

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        function = getattr(self.open, method)
        if asyncio.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)


class _Sync:
    def __init__(self, client: Client) -> None:
        self._client = client

    @asynccontextmanager
    async def hold(self, amount: int = HELD, **options: Any) -> AsyncIterator[AnyHold]:
        hold = self._client.hold(ACCOUNT, amount, **options)
        await asyncio.to_thread(hold.__enter__)
        try:
            yield _Open(hold)
        except BaseException as error:
            await asyncio.to_thread(hold.__exit__, type(error), error, error.__traceback__)
            raise
        await asyncio.to_thread(hold.__exit__, None, None, None)


class _Async:
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    @asynccontextmanager
    async def hold(self, amount: int = HELD, **options: Any) -> AsyncIterator[AnyHold]:
        async with self._client.hold(ACCOUNT, amount, **options) as hold:
            yield _Open(hold)


@pytest.fixture(params=["sync", "async"])
async def twin(request: pytest.FixtureRequest, address: str) -> AsyncIterator[Twin]:
    if request.param == "sync":
        client = Client(address)
        yield _Sync(client)
        await asyncio.to_thread(client.close)
    else:
        async with AsyncClient(address) as async_client:
            yield _Async(async_client)


@pytest.fixture(autouse=True)
async def granted(client: AsyncClient) -> None:
    await client.grant_once(ACCOUNT, GRANTED, idempotency_key="order")


async def _spent(client: AsyncClient) -> int:
    balance = await client.balance(ACCOUNT)
    assert balance.held_micros == 0
    return balance.spent_micros - balance.refunded_micros


class Cut(Exception):
    """What a job raises."""


async def _nothing(hold: AnyHold) -> None:
    pass


async def _charges(hold: AnyHold) -> None:
    await hold.call("charge", 30)
    await hold.call("charge", 12)


async def _charges_nothing(hold: AnyHold) -> None:
    await hold.call("charge", 0)


async def _captures(hold: AnyHold) -> None:
    await hold.call("capture", 20)
    await hold.call("capture", 5)


async def _does_both(hold: AnyHold) -> None:
    await _captures(hold)
    await _charges(hold)


async def _charges_more_than_is_held(hold: AnyHold) -> None:
    await hold.call("charge", HELD + 50)


SETTLED, RELEASED = ReservationState.SETTLED, ReservationState.RELEASED


@pytest.mark.parametrize(
    ("job", "raises", "options", "state", "spent"),
    [
        (_nothing, False, {}, RELEASED, 0),
        (_nothing, True, {}, RELEASED, 0),
        (_charges, False, {}, SETTLED, 42),
        (_charges, True, {}, SETTLED, 42),
        (_charges, True, {"on_error": "release"}, RELEASED, 0),
        (_charges, False, {"on_error": "release"}, SETTLED, 42),
        (_charges_nothing, False, {}, SETTLED, 0),
        (_captures, False, {}, SETTLED, 25),
        (_captures, True, {}, SETTLED, 25),
        (_captures, True, {"on_error": "release"}, RELEASED, 25),
        (_does_both, False, {}, SETTLED, 67),
        (_does_both, True, {"on_error": "release"}, RELEASED, 25),
        (_charges_more_than_is_held, False, {}, SETTLED, HELD + 50),
    ],
)
async def test_how_a_block_ends(
    twin: Twin,
    client: AsyncClient,
    job: Callable[[AnyHold], Awaitable[None]],
    raises: bool,
    options: dict[str, Any],
    state: ReservationState,
    spent: int,
) -> None:
    try:
        async with twin.hold(**options) as hold:
            assert hold.open.held_micros == HELD
            await job(hold)
            if raises:
                raise Cut
    except Cut:
        assert raises
    found = await client.get_reservation(ACCOUNT, reservation_id=hold.open.reservation_id)
    assert (found.state, found.captured_micros) == (state, spent)
    assert await _spent(client) == spent
    assert isinstance(
        hold.open.result, meterhold.SettleResult if state is SETTLED else meterhold.ReleaseResult
    )


async def test_what_was_charged_for_goes_with_the_charge(twin: Twin, client: AsyncClient) -> None:
    first, last = meterhold.Usage(model="small"), meterhold.Usage(model="large", output_tokens=7)
    labels = {"run": "r-1"}
    async with twin.hold(labels=labels, metadata={"shard": 3}) as hold:
        await hold.call("charge", 5, usage=first)
        await hold.call("charge", 5, usage=last)
        await hold.call("charge", 5)
        await hold.call("capture", 2, usage=first, labels={"step": "1"}, metadata={})
    settle, capture = [entry async for entry in client.list_entries(ACCOUNT)][:2]
    assert (settle.amount_micros, settle.usage, settle.labels) == (-15, last, labels)
    assert settle.metadata == {"shard": 3}
    assert (capture.amount_micros, capture.usage, capture.labels) == (-2, first, {"step": "1"})


async def test_refused_hold_runs_nothing(twin: Twin) -> None:
    with pytest.raises(meterhold.InsufficientCredits):
        async with twin.hold(GRANTED + 1):
            pytest.fail("the block ran")


async def test_smaller_hold_is_taken_if_asked_for(twin: Twin) -> None:
    async with twin.hold(GRANTED + 1, min_amount_micros=10) as hold:
        assert hold.open.held_micros == GRANTED


async def test_hold_grows_and_lasts_longer(twin: Twin) -> None:
    async with twin.hold(ttl=timedelta(minutes=5)) as hold:
        before = hold.open.expire_time
        result = await hold.call("extend", ttl=timedelta(minutes=20), add_amount_micros=50)
        assert hold.open.held_micros == result.held_micros == HELD + 50
        assert hold.open.expire_time - before > timedelta(minutes=14)


@pytest.mark.parametrize("on_expiry", [OnExpiry.RELEASE, OnExpiry.CHARGE])
async def test_start_marks_the_work_as_started(
    twin: Twin, client: AsyncClient, on_expiry: OnExpiry
) -> None:
    async with twin.hold(on_expiry=on_expiry) as hold:
        made = await client.get_reservation(ACCOUNT, reservation_id=hold.open.reservation_id)
        assert made.on_expiry is on_expiry
        await hold.call("start")
        found = await client.get_reservation(ACCOUNT, reservation_id=hold.open.reservation_id)
        assert found.on_expiry is OnExpiry.CHARGE


async def _until(
    client: AsyncClient, reservation_id: str, met: Callable[[meterhold.Reservation], bool]
) -> meterhold.Reservation:
    while True:
        found = await client.get_reservation(ACCOUNT, reservation_id=reservation_id)
        if met(found):
            return found


async def test_heartbeat_keeps_the_hold_alive_and_marks_it(twin: Twin, client: AsyncClient) -> None:
    async with twin.hold(ttl=timedelta(seconds=1.5), on_expiry=OnExpiry.RELEASE) as hold:
        reservation_id = hold.open.reservation_id
        first = await client.get_reservation(ACCOUNT, reservation_id=reservation_id)
        extended = await _until(
            client, reservation_id, lambda found: found.expire_time > first.expire_time
        )
        assert (extended.state, extended.on_expiry) == (ReservationState.ACTIVE, OnExpiry.CHARGE)
        # It would have expired long before the third heartbeat.
        await _until(
            client,
            reservation_id,
            lambda found: found.expire_time > first.expire_time + timedelta(seconds=1.4),
        )
        await hold.call("charge", 7)
    assert await _spent(client) == 7


@pytest.mark.parametrize(
    ("on_expiry", "job", "spent"),
    [
        (OnExpiry.CHARGE, _charges, 42),
        (OnExpiry.CHARGE, _nothing, 0),
        (OnExpiry.RELEASE, _charges, 42),
        (OnExpiry.RELEASE, _nothing, 0),
    ],
)
async def test_block_that_outlives_its_hold_is_charged_late(
    twin: Twin,
    client: AsyncClient,
    on_expiry: OnExpiry,
    job: Callable[[AnyHold], Awaitable[None]],
    spent: int,
) -> None:
    """And what the expiry charged is set right."""
    options: dict[str, Any] = {"ttl": timedelta(seconds=1), "heartbeat": False}
    async with twin.hold(**options, on_expiry=on_expiry) as hold:
        await job(hold)
        await _until(
            client,
            hold.open.reservation_id,
            lambda found: found.state is ReservationState.EXPIRED,
        )
    if job is _charges:
        assert hold.open.result.late
    assert await _spent(client) == spent


async def test_charges_belong_inside_the_block(twin: Twin) -> None:
    async with twin.hold() as hold:
        pass
    for method in ("charge", "capture"):
        with pytest.raises(RuntimeError, match="not open"):
            await hold.call(method, 5)


@pytest.mark.parametrize(
    ("amount", "error"), [(-1, ValueError), (1.5, TypeError), ("5", TypeError), (True, TypeError)]
)
async def test_amount_of_a_charge(twin: Twin, amount: Any, error: type[Exception]) -> None:
    async with twin.hold() as hold:
        with pytest.raises(error, match="amount_micros"):
            await hold.call("charge", amount)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"on_error": "charge"}, ValueError),
        ({"reservation_id": "job", "metadata": {"meterhold_hold": "x"}}, ValueError),
        ({"no_such": 1}, TypeError),
    ],
)
async def test_options_are_checked(
    twin: Twin, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        async with twin.hold(**options):
            pytest.fail("the block ran")


async def test_job_that_is_run_again_goes_on_with_its_hold(twin: Twin, client: AsyncClient) -> None:
    """The first run made the hold and died; the second charges it, and leaves no second hold."""
    await client.reserve(ACCOUNT, HELD, reservation_id="job", ttl=timedelta(minutes=15))
    await client.extend(ACCOUNT, reservation_id="job", on_expiry=OnExpiry.CHARGE)
    with pytest.raises(meterhold.IdempotencyMismatch):
        async with twin.hold(reservation_id="job"):
            pytest.fail("the block ran: that was another request")
    await client.release(ACCOUNT, reservation_id="job")
    async with twin.hold(reservation_id="job-2") as first:
        async with twin.hold(reservation_id="job-2") as second:
            await second.call("charge", 7)
        assert first.open.reservation_id == second.open.reservation_id
        await first.call("charge", 7)
    assert await _spent(client) == 7


async def test_hold_of_another_run_is_not_released(twin: Twin, client: AsyncClient) -> None:
    async with twin.hold(reservation_id="job") as first:
        async with twin.hold(reservation_id="job"):
            pass
        await first.call("charge", 7)
    assert await _spent(client) == 7


@pytest.mark.parametrize("ends", ["charged", "released"])
async def test_job_whose_hold_has_ended_does_not_run_again(twin: Twin, ends: str) -> None:
    async with twin.hold(reservation_id="job") as hold:
        if ends == "charged":
            await hold.call("charge", 7)
    expected = {
        "charged": meterhold.ReservationSettled,
        "released": meterhold.ReservationReleased,
    }[ends]
    with pytest.raises(expected) as raised:
        async with twin.hold(reservation_id="job"):
            pytest.fail("the block ran")
    assert raised.value.reservation_id == "job"
    assert raised.value.end_time is not None


async def test_hold_is_good_for_one_block(address: str) -> None:
    async with AsyncClient(address) as client:
        hold = client.hold(ACCOUNT, HELD)
        async with hold:
            pass
        with pytest.raises(RuntimeError, match="one `with` block"):
            await hold.__aenter__()


async def test_decorated_function_runs_in_a_hold(address: str, client: AsyncClient) -> None:
    @client.metered(lambda user, amount: user, amount_micros=lambda user, amount: amount)
    async def job(hold: meterhold.AsyncHold, user: str, amount: int) -> int:
        hold.charge(amount // 2)
        return hold.held_micros

    assert await job(ACCOUNT, 60) == 60
    assert await _spent(client) == 30

    def run() -> int:
        with Client(address) as sync_client:

            @sync_client.metered(ACCOUNT, 60)
            def sync_job(hold: meterhold.Hold, factor: int) -> int:
                hold.charge(10 * factor)
                return hold.held_micros

            return sync_job(factor=2)

    assert await asyncio.to_thread(run) == 60
    assert await _spent(client) == 50


def test_decorator_hides_the_hold_and_refuses_what_it_cannot_wrap(address: str) -> None:
    import inspect

    with Client(address) as client:
        metered = client.metered(ACCOUNT, 5)

        def fine(hold: meterhold.Hold, text: str) -> None:
            """Docstring."""

        def generator(hold: meterhold.Hold) -> Any:
            yield 1

        async def coroutine(hold: meterhold.Hold) -> None:
            pass

        wrapped = metered(fine)
        assert list(inspect.signature(wrapped).parameters) == ["text"]
        assert (wrapped.__name__, wrapped.__doc__) == ("fine", "Docstring.")
        for bad in (generator, coroutine):
            with pytest.raises(TypeError, match=bad.__name__):
                metered(bad)
        with pytest.raises(TypeError, match="reservation_id"):
            client.metered(ACCOUNT, 5, reservation_id="job")
