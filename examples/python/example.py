"""Buys credits, spends them, and meets what can go wrong on the way.

    .venv/bin/python examples/python/example.py [ACCOUNT]   # METERHOLD_ADDRESS says where

Keys are for ever: give each run a new account, or its calls are replays. The client brings what the
examples in other languages write out: the service config, a deadline on each call, round robin,
keepalive, and replays of what ended unknown.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import meterhold

CREDIT = 1_000_000  # micros
FIVE_MINUTES = timedelta(minutes=5)


def main() -> int:
    address = os.environ.get("METERHOLD_ADDRESS", "127.0.0.1:7717")
    account = sys.argv[1] if len(sys.argv) > 1 else "example"
    try:
        with meterhold.Client(address, timeout_seconds=10) as client:
            run(client, account)
    except meterhold.Rejected as error:
        return failed(error, "Nothing was done. Change the request, or top up.")
    except meterhold.Unavailable as error:
        return failed(error, "Nothing was done. Send the same request with the same key later.")
    except meterhold.MeterholdError as error:
        advice = "It may have been done. Only the same request with the same key can tell."
        return failed(error, advice)
    return 0


def run(client: meterhold.Client, account: str) -> None:
    granted = client.grant_once(
        account,
        10 * CREDIT,
        idempotency_key=f"{account}-order-1001",  # unique among all grants, whatever the account
    )
    assert granted.entry, "only a grant that waits for its time has none"
    print(
        f"grant order-1001: {granted.entry.amount_micros} granted,",
        f"{granted.balance.available_micros} available",
    )

    held = client.reserve(account, 4 * CREDIT, reservation_id="job-7", ttl=FIVE_MINUTES)
    print(
        f"reserve job-7: {held.held_micros} held, {held.balance.available_micros} available",
    )

    usage = meterhold.Usage(provider="acme", model="large", input_tokens=900, output_tokens=120)
    settled = client.settle(account, 2_750_000, reservation_id="job-7", usage=usage)
    print(
        f"settle job-7: {settled.charged_micros} charged, {settled.released_micros} released,",
        f"{settled.balance.available_micros} available",
    )

    for _ in range(2):
        debited = client.debit(account, 250_000, request_id="call-3")
        print(
            f"debit call-3: {debited.status.name} as entry {debited.entry.seq},",
            f"{debited.balance.available_micros} available",
        )

    try:
        client.reserve(account, 50 * CREDIT, reservation_id="job-8", ttl=FIVE_MINUTES)
    except meterhold.InsufficientCredits as refusal:
        print(
            f"reserve job-8: refused, {refusal.reason}, applied {refusal.applied},",
            f"{refusal.available_micros} available, {refusal.required_micros} required",
        )

    # A refusal is not remembered: after a top-up the same request passes.
    topped_up = client.grant_once(account, 50 * CREDIT, idempotency_key=f"{account}-order-1002")
    assert topped_up.entry
    print(
        f"grant order-1002: {topped_up.entry.amount_micros} granted,",
        f"{topped_up.balance.available_micros} available",
    )
    held = client.reserve(account, 50 * CREDIT, reservation_id="job-8", ttl=FIVE_MINUTES)
    print(
        f"reserve job-8: {held.held_micros} held, {held.balance.available_micros} available",
    )

    # One key, two requests: the second is refused.
    try:
        client.debit(account, 300_000, request_id="call-3")
    except meterhold.IdempotencyMismatch as refusal:
        print(
            f"debit call-3: refused, {refusal.reason}, applied {refusal.applied},",
            f"{refusal.field} was {refusal.original}",
        )

    charge_without_hearing_the_answer(client, account)
    charged = client.debit_once(account, 1 * CREDIT, idempotency_key=f"{account}-invoice-9")
    print(
        f"debit invoice-9: {charged.status.name} as entry {charged.entry.seq},",
        f"{charged.balance.available_micros} available",
    )

    balance = client.balance(account)
    print(
        f"balance: {balance.available_micros} available, {balance.held_micros} held,",
        f"{balance.remaining_micros} remaining, {balance.spent_micros} spent",
    )


def charge_without_hearing_the_answer(client: meterhold.Client, account: str) -> None:
    """Stand for a caller that dies when the server has just committed: the answer is thrown away.

    A connection that breaks then is the client's affair: it sends the same key again by itself.
    """
    client.debit_once(account, 1 * CREDIT, idempotency_key=f"{account}-invoice-9")


def failed(error: meterhold.MeterholdError, advice: str) -> int:
    print(f"{type(error).__name__}: {error}\n{advice}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
