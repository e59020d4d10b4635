"""What a user's program looks like to a type checker. It is checked, not run."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import meterhold
from meterhold import (
    Allowance,
    AllowancePeriod,
    AsyncClient,
    AsyncHold,
    Client,
    ExpectedSource,
    Hold,
    Label,
    OnExpiry,
    Overage,
    SpendDimension,
    Usage,
)

NEXT_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


def account_of(user: str, text: str) -> str:
    return user


def worst_case_micros(user: str, text: str) -> int:
    return 100 * len(text)


def calls(client: Client) -> int:
    client.grant_once("alice", 5, idempotency_key="order", expire_time=NEXT_YEAR)
    held: meterhold.ReserveResult = client.reserve("alice", 5, reservation_id="job")
    client.extend("alice", reservation_id="job", ttl=timedelta(minutes=5))
    done = client.settle("alice", 5, reservation_id="job", overage=Overage.OVERDRAFT)
    client.release("alice", reservation_id="job")
    client.debit("alice", 5, request_id=None)
    lots: tuple[meterhold.Lot, ...] = client.balance("alice", include_lots=True).lots
    total = sum(entry.amount_micros for entry in client.list_entries("alice"))
    return held.held_micros + done.charged_micros + len(lots) + total


def terms(client: Client) -> int:
    monthly = Allowance(amount_micros=5, period=AllowancePeriod.MONTHLY)
    account: meterhold.Account = client.configure_account("alice", allowance=monthly)
    client.configure_account("alice", allowance=Allowance.OFF)
    client.configure_defaults(signup_grant=meterhold.SignupGrant.OFF, allowance=monthly)
    granted = client.grant_once("alice", 5, idempotency_key="order", effective_time=NEXT_YEAR)
    seq = granted.entry.seq if granted.entry else 0
    client.refund_charge("alice", 5, idempotency_key="back", entry_seq=seq)
    taken: int = client.revoke_grant("order", fraction_ppm=500_000).revoked_micros
    client.reinstate_grant("order", expected_source=ExpectedSource(provider="acme"))
    return taken + (account.allowance.amount_micros if account.allowance else 0)


def reports(client: Client) -> int:
    report = client.spend_report(group_by=[SpendDimension.MODEL, Label("team")])
    for row in report.rows:
        model, team = row.values
        print(model, team, row.charged_micros)
    wrong = client.verify_balance("alice").differences
    repaired: tuple[meterhold.Difference, ...] = client.rebuild_balance("alice").repaired
    return client.get_stats().outstanding_micros + len(wrong) + len(repaired)


def refusals(client: Client) -> int:
    try:
        return client.debit("alice", 5).balance.available_micros
    except meterhold.InsufficientCredits as refusal:
        return refusal.available_micros - refusal.required_micros
    except meterhold.IdempotencyMismatch as mismatch:
        print(mismatch.field, mismatch.original)
    except meterhold.Unavailable as failure:
        print(failure.retry_delay_seconds)
    except meterhold.OutcomeUnknown as failure:
        print(failure.call, failure.key)
    return 0


def holds(client: Client) -> int | None:
    with client.hold("alice", 5, ttl=timedelta(minutes=1), on_expiry=OnExpiry.RELEASE) as hold:
        hold.start()
        hold.charge(3, usage=Usage(model="large"))
        hold.capture(1)
        hold.extend(add_amount_micros=2)

    @client.metered(account_of, worst_case_micros, labels={"app": "demo"})
    def summarize(hold: Hold, user: str, text: str) -> str:
        hold.charge(len(text))
        return text[:10]

    summary: str = summarize("alice", text="A long text")
    print(summary, client.deliver_journal().pending)
    return hold.result.balance.available_micros if hold.result else None


async def asynchronous(client: AsyncClient) -> int:
    async with client.hold("alice", 5) as hold:
        hold.charge(1)
        captured: int = (await hold.capture(1)).charged_micros

    @client.metered(account_of, 5)
    async def summarize(hold: AsyncHold, user: str, text: str) -> str:
        hold.charge(len(text))
        return text[:10]

    lots: AsyncIterator[meterhold.Lot] = client.list_lots("alice")
    return captured + len(await summarize("alice", "text")) + len([lot async for lot in lots])


async def main() -> None:
    tls = meterhold.Tls.from_files(root_certificates="root.pem", server_name="meterhold.example")
    with Client(["10.0.0.1:7717", "10.0.0.2:7717"], tls=tls, api_key="mh_…") as client:
        print(calls(client) + terms(client) + reports(client) + refusals(client), holds(client))
    async with AsyncClient(attempt_timeout_seconds=1.0, journal="undelivered.db") as async_client:
        print(await asynchronous(async_client))


asyncio.run(main())
