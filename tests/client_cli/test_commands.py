"""What each command does, and what it prints: for programs, and for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import meterhold
from client_cli.conftest import Run
from support.certificates import needs_openssl, self_signed
from support.keys import make_key
from support.service import service


def names(result: type[Any], *without: str) -> set[str]:
    """The fields of a result of the client."""
    return {field.name for field in fields(result)} - set(without)


BALANCE = names(meterhold.Balance, "lots", "pending")


@pytest.fixture
async def used(client: meterhold.AsyncClient) -> meterhold.AsyncClient:
    """The account `alice`: 10 credits granted, 2.75 of a hold of 4 charged, a hold of 1 left."""
    await client.grant_once(
        *("alice", 10_000_000),
        idempotency_key="order-1",
        reason="first order",
        labels={"shop": "a", "by": "web"},
        metadata={"n": 1},
    )
    await client.reserve("alice", 4_000_000, reservation_id="job-1")
    usage = meterhold.Usage(provider="acme", model="large", input_tokens=900)
    await client.settle("alice", 2_750_000, reservation_id="job-1", usage=usage)
    await client.reserve("alice", 1_000_000, reservation_id="job-2", labels={"user": "x"})
    return client


async def test_grant(run: Run, client: meterhold.AsyncClient) -> None:
    done = await run(
        *("grant", "alice", "10cr", "--key", "order-1", "--reason", "thanks", "--json"),
        *("--category", "promotional", "--priority", "7", "--expires", "2100-01-31T00:00:00Z"),
        *("--label", "a=1", "--label", "b=x=y", "--legacy-key", "old-1", "--legacy-key", "old-2"),
    )
    assert set(done.value) == names(meterhold.GrantResult)
    assert done.value["entry"]["amount_micros"] == 10_000_000
    [lot] = [lot async for lot in client.list_lots("alice")]
    assert (lot.priority, lot.category) == (7, meterhold.LotCategory.PROMOTIONAL)
    assert lot.expire_time == datetime(2100, 1, 31, tzinfo=UTC)
    entry = await client.get_entry("alice", grant_key="order-1")
    assert (entry.reason, entry.labels) == ("thanks", {"a": "1", "b": "x=y"})
    for key in ("order-1", "old-1", "old-2"):
        again = await run("grant", "alice", "10cr", "--key", "new", "--legacy-key", key, "--json")
        assert again.value["replayed"] is True
        assert again.value["entry"] == done.value["entry"]


async def test_a_grant_that_expires_after_a_length_of_time(
    run: Run, client: meterhold.AsyncClient
) -> None:
    before = datetime.now(UTC)
    await run("grant", "alice", "1cr", "--key", "k", "--expires", "30d")
    [lot] = [lot async for lot in client.list_lots("alice")]
    assert lot.expire_time is not None
    assert before <= lot.expire_time - timedelta(days=30) <= datetime.now(UTC)


async def test_debit_with_a_key_charges_once(run: Run, used: meterhold.AsyncClient) -> None:
    command = (
        *("debit", "alice", "0.25cr", "--key", "fee", "--json", "--label", "a=b"),
        *("--provider", "acme", "--model", "small", "--input-tokens", "3", "--output-tokens", "4"),
    )
    first, second = await run(*command), await run(*command)
    assert set(first.value) == names(meterhold.DebitResult)
    assert (first.value["status"], second.value["status"]) == ("DEBITED", "REPLAYED")
    entry = await used.get_entry("alice", debit_key="fee")
    assert (entry.amount_micros, entry.labels) == (-250_000, {"a": "b"})
    assert entry.usage == meterhold.Usage(
        provider="acme", model="small", input_tokens=3, output_tokens=4
    )
    assert (await used.balance("alice")).spent_micros == 3_000_000


async def test_debit_with_a_request_id_charges_once(run: Run, used: meterhold.AsyncClient) -> None:
    command = ("debit", "alice", "0.25cr", "--request-id", "fee")
    first, second = await run(*command), await run(*command)
    assert "Debited 0.250000." in first.out
    assert "Debited 0.250000 before; nothing now." in second.out
    assert (await used.balance("alice")).spent_micros == 3_000_000


async def test_debit_without_a_key_makes_one_up_and_shows_it(
    run: Run, used: meterhold.AsyncClient
) -> None:
    first = await run("debit", "alice", "0.25cr", "--json")
    second = await run("debit", "alice", "0.25cr", "--json")
    assert first.value["entry"]["key"] != second.value["entry"]["key"]
    again = await run(
        "debit", "alice", "0.25cr", "--request-id", first.value["entry"]["key"], "--json"
    )
    assert again.value["replayed"] is True
    assert (await used.balance("alice")).spent_micros == 3_250_000


async def test_debit_into_debt(run: Run, used: meterhold.AsyncClient) -> None:
    await run("debit", "alice", "7cr", "--overage", "overdraft")
    assert (await used.balance("alice")).debt_micros == 750_000
    shown = await run("balance", "alice")
    assert "available  -0.750000\n" in shown.out
    assert "debt        0.750000\n" in shown.out
    repaid = await run("grant", "alice", "1cr", "--key", "more")
    assert "debt repaid  0.750000\n" in repaid.out


async def test_reserve(run: Run, used: meterhold.AsyncClient) -> None:
    done = await run(
        *("reserve", "alice", "100cr", "--id", "job", "--ttl", "1h30m", "--on-expiry", "charge"),
        *("--min-amount", "1cr", "--min-available", "2cr", "--label", "a=b", "--json"),
    )
    assert set(done.value) == names(meterhold.ReserveResult) | {"reservation_id"}
    assert (done.value["reservation_id"], done.value["held_micros"]) == ("job", 6_250_000)
    held = await used.get_reservation("alice", reservation_id="job")
    assert (held.ttl, held.on_expiry) == (timedelta(minutes=90), meterhold.OnExpiry.CHARGE)
    assert held.labels == {"a": "b"}


async def test_reserve_without_an_id_makes_one_up_and_shows_it(
    run: Run, used: meterhold.AsyncClient
) -> None:
    done = await run("reserve", "alice", "1cr", "--json")
    made_up = done.value["reservation_id"]
    assert (await used.get_reservation("alice", reservation_id=made_up)).held_micros == 1_000_000
    shown = await run("reserve", "alice", "1cr", "--id", made_up)
    assert shown.out.splitlines()[:2] == [
        "Held 1.000000 before; nothing now.",
        f"reservation  {made_up}",
    ]


async def test_settle(run: Run, used: meterhold.AsyncClient) -> None:
    command = ("settle", "alice", "job-2", "0.4cr", "--model", "large", "--label", "a=b", "--json")
    done = await run(*command)
    assert set(done.value) == names(meterhold.SettleResult) | {"reservation_id"}
    assert (done.value["charged_micros"], done.value["released_micros"]) == (400_000, 600_000)
    assert (await run(*command)).value["replayed"] is True
    entry = await used.get_entry("alice", seq=done.value["entry_seq"])
    assert (entry.labels, entry.usage) == ({"a": "b"}, meterhold.Usage(model="large"))


async def test_settle_with_nothing_to_charge(run: Run, used: meterhold.AsyncClient) -> None:
    done = await run("settle", "alice", "job-2", "0cr")
    assert (done.code, done.out.splitlines()[0]) == (0, "Charged 0.000000.")


async def test_settle_more_than_there_is(run: Run, used: meterhold.AsyncClient) -> None:
    refused = await run("settle", "alice", "job-2", "100cr", "--overage", "reject")
    assert refused.code == 3
    done = await run("settle", "alice", "job-2", "100cr", "--overage", "cap")
    assert done.out == (
        "Charged 7.250000.\n"
        "reservation      job-2\n"
        "from the hold    1.000000\n"
        "beyond the hold  6.250000\n"
        "not charged      92.750000\n"
        "released         0.000000\n"
        "available        0.000000\n"
    )


async def test_a_capture_keeps_the_hold(run: Run, used: meterhold.AsyncClient) -> None:
    command = ("settle", "alice", "job-2", "0.1cr", "--keep-open", "--json")
    first = await run(*command, "--capture-id", "first")
    assert first.value["capture_id"] == "first"
    assert (await run(*command, "--capture-id", "first")).value["replayed"] is True
    made_up = (await run(*command)).value["capture_id"]
    assert (await run(*command, "--capture-id", made_up)).value["replayed"] is True
    held = await used.get_reservation("alice", reservation_id="job-2")
    assert (held.captured_micros, held.held_micros) == (200_000, 800_000)


async def test_release(run: Run, used: meterhold.AsyncClient) -> None:
    done = await run("release", "alice", "job-2", "--json")
    assert set(done.value) == names(meterhold.ReleaseResult)
    assert set(done.value["reservation"]) == names(meterhold.Reservation)
    assert done.value["changed"] is True
    again = await run("release", "alice", "job-2")
    assert (again.code, again.out.splitlines()[0]) == (0, "It had ended before: RELEASED.")


async def test_extend(run: Run, used: meterhold.AsyncClient) -> None:
    command = ("extend", "alice", "job-2", "--ttl", "2d", "--on-expiry", "charge", "--json")
    done = await run(*command)
    assert set(done.value) == names(meterhold.ExtendResult) | {"reservation_id"}
    assert done.value["on_expiry"] == "CHARGE"
    held = await used.get_reservation("alice", reservation_id="job-2")
    assert held.expire_time - datetime.now(UTC) > timedelta(days=1)


async def test_extend_by_an_amount_is_done_once(run: Run, used: meterhold.AsyncClient) -> None:
    command = ("extend", "alice", "job-2", "--add", "0.5cr", "--json")
    assert (await run(*command, "--extend-id", "e")).value["extend_id"] == "e"
    assert (await run(*command, "--extend-id", "e")).value["replayed"] is True
    made_up = (await run(*command)).value["extend_id"]
    assert (await run(*command, "--extend-id", made_up)).value["replayed"] is True
    assert (await used.get_reservation("alice", reservation_id="job-2")).held_micros == 2_000_000


async def test_configure(run: Run, used: meterhold.AsyncClient) -> None:
    done = await run("configure", "alice", "--credit-limit", "2cr", "--holds-use-credit", "--json")
    assert set(done.value) == names(meterhold.Account)
    assert done.value["balance"]["credit_limit_micros"] == 2_000_000
    assert (done.value["holds_use_credit"], done.value["frozen"]) == (True, False)
    assert (await run("configure", "alice", "--freeze", "--json")).value["frozen"] is True
    assert (await run("debit", "alice", "1cr")).code == 4
    shown = (await run("account", "alice")).out
    assert "credit limit  2.000000" in re.sub(" {2,}", "  ", shown)
    assert "frozen" in shown
    assert (await run("configure", "alice", "--thaw", "--json")).value["frozen"] is False
    assert (await run("configure", "alice")).code == 2
    unchanged = await used.get_account("alice")
    assert unchanged.balance.credit_limit_micros == 2_000_000


async def test_accounts(run: Run, used: meterhold.AsyncClient) -> None:
    await used.configure_account("alan")
    await used.configure_account("bob", unit="tokens")
    assert [line["account"] for line in (await run("accounts", "--json")).values] == [
        "alan",
        "alice",
        "bob",
    ]
    assert [line["unit"] for line in (await run("accounts", "b", "--json")).values] == ["tokens"]
    assert "alan" in (await run("accounts", "a", "--limit", "1")).out
    assert "no such account" in (await run("account", "nobody")).out


LIST_COMMANDS: list[tuple[Sequence[str], str, list[object]]] = [
    (("entries", "alice"), "seq", [2, 1]),
    (("entries", "alice", "--oldest-first"), "seq", [1, 2]),
    (("entries", "alice", "--limit", "1"), "seq", [2]),
    (("entries", "alice", "--kind", "grant"), "seq", [1]),
    (("entries", "alice", "--kind", "grant", "--kind", "capture"), "seq", [2, 1]),
    (("entries", "alice", "--all"), "seq", [2, 1]),
    (("entries", "bob"), "seq", []),
    (("entries", "alice", "--unit", "tokens"), "seq", []),
    (("reservations", "alice"), "reservation_id", ["job-2", "job-1"]),
    (("reservations", "alice", "--limit", "1"), "reservation_id", ["job-2"]),
    (("reservations", "alice", "--state", "settled"), "reservation_id", ["job-1"]),
    (("reservations", "alice", "--all"), "reservation_id", ["job-2", "job-1"]),
    (("lots", "alice"), "idempotency_key", ["order-1"]),
    (("lots", "alice", "--spent"), "idempotency_key", ["order-1"]),
]


async def test_lists(run: Run, used: meterhold.AsyncClient) -> None:
    for command, name, expected in LIST_COMMANDS:
        done = await run(*command, "--json")
        assert [item[name] for item in done.values] == expected, command


async def test_a_spent_lot_is_listed_only_if_it_is_asked_for(
    run: Run, used: meterhold.AsyncClient
) -> None:
    await used.debit("alice", 7_250_000, overage=meterhold.Overage.OVERDRAFT)
    await used.release("alice", reservation_id="job-2")
    assert (await run("lots", "alice", "--json")).values == []
    assert len((await run("lots", "alice", "--spent", "--json")).values) == 1


async def test_more_than_a_page_is_listed(run: Run, client: meterhold.AsyncClient) -> None:
    for number in range(60):
        await client.grant_once("alice", 1, idempotency_key=f"{number}")
    for option, count in ((("--limit", "55"), 55), (("--all",), 60), ((), 50)):
        assert len((await run("entries", "alice", "--json", *option)).values) == count


async def test_the_fields_of_what_is_read_are_those_of_the_api(
    run: Run, used: meterhold.AsyncClient
) -> None:
    table: list[tuple[Sequence[str], set[str]]] = [
        (("balance", "alice"), BALANCE),
        (("balance", "alice", "--lots"), names(meterhold.Balance)),
        (("entry", "alice", "--seq", "2"), names(meterhold.Entry)),
        (("reservation", "alice", "job-1"), names(meterhold.Reservation)),
        (("top", "alice", "--once"), {"balance", "reservations", "entries"}),
    ]
    for command, expected in table:
        assert set((await run(*command, "--json")).value) == expected, command
    for command, result in (("entries", meterhold.Entry), ("lots", meterhold.Lot)):
        assert set((await run(command, "alice", "--json")).values[0]) == names(result)
    nested = (await run("grant", "alice", "1cr", "--key", "k", "--json")).value
    assert (set(nested["balance"]), set(nested["entry"])) == (BALANCE, names(meterhold.Entry))


async def test_the_values_of_json(run: Run, used: meterhold.AsyncClient) -> None:
    entry = (await run("entry", "alice", "--grant-key", "order-1", "--json")).value
    assert entry == entry | {
        "seq": 1,
        "kind": "GRANT",
        "amount_micros": 10_000_000,
        "labels": {"by": "web", "shop": "a"},
        "metadata": {"n": 1},
        "usage": None,
    }
    assert list(entry["labels"]) == ["by", "shop"]
    created = (await used.get_entry("alice", seq=1)).create_time
    assert entry["create_time"].endswith("Z")
    assert datetime.fromisoformat(entry["create_time"]) == created
    held = (await run("reservation", "alice", "job-1", "--json")).value
    assert (held["ttl"], held["late"], held["state"]) == ("900s", False, "SETTLED")
    [lot] = (await run("balance", "alice", "--lots", "--json")).value["lots"]
    assert (lot["expire_time"], lot["cash"]) == (None, None)


TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ")
SOME_TIME = "2030-01-31 12:00:00Z"


async def test_the_tables(run: Run, used: meterhold.AsyncClient) -> None:
    table = {
        ("balance", "alice", "--lots"): """\
account    alice (credits)
available   6.250000
held        1.000000
remaining   7.250000
granted    10.000000
spent       2.750000
entries            2

seq    granted  available      held  category  priority  expires  key
─────────────────────────────────────────────────────────────────────────
  1  10.000000   6.250000  1.000000  PAID            50  never    order-1
""",
        ("entries", "alice"): """\
seq  time                  kind        amount  remaining  reservation, key
──────────────────────────────────────────────────────────────────────────
  2  2030-01-31 12:00:00Z  CAPTURE  -2.750000   7.250000  job-1
  1  2030-01-31 12:00:00Z  GRANT    10.000000  10.000000  order-1
""",
        ("entry", "alice", "--seq", "1"): """\
seq        1
kind       GRANT
amount     10.000000
remaining  10.000000
time       2030-01-31 12:00:00Z
key        order-1
reason     first order
labels     by=web shop=a
metadata   {"n": 1}
""",
        ("entry", "alice", "--seq", "2", "--micros"): """\
seq          2
kind         CAPTURE
amount       -2750000
remaining    7250000
time         2030-01-31 12:00:00Z
reservation  job-1
usage        provider=acme model=large input_tokens=900
""",
        ("reservations", "alice"): """\
reservation  state        held  captured  expires               then
───────────────────────────────────────────────────────────────────────
job-2        ACTIVE   1.000000  0.000000  2030-01-31 12:00:00Z  RELEASE
job-1        SETTLED  0.000000  2.750000  2030-01-31 12:00:00Z  RELEASE
""",
        ("reservation", "alice", "job-2"): """\
reservation  job-2
state        ACTIVE
held         1.000000
reserved     1.000000
captured     0.000000
released     0.000000
created      2030-01-31 12:00:00Z
expires      2030-01-31 12:00:00Z, then RELEASE
labels       user=x
""",
    }
    for command, expected in table.items():
        done = await run(*command)
        assert (done.code, TIME.sub(SOME_TIME, done.out)) == (0, expected)


async def test_nothing_but_plain_text_without_a_terminal(
    run: Run, used: meterhold.AsyncClient
) -> None:
    reason = "\x1b[31mred\x1b[0m and [bold]bold[/bold] :smile: [1]"
    await used.grant_once("alice", 1, idempotency_key="k", reason=reason)
    shown = await run("entry", "alice", "--grant-key", "k")
    assert r"reason     \x1b[31mred\x1b[0m and [bold]bold[/bold] :smile: [1]" in shown.out
    printed = [shown.out]
    for command, _, _ in LIST_COMMANDS:
        printed += [(await run(*command)).out, (await run(*command, "--json")).out]
    assert "\x1b" not in "".join(printed)


async def test_a_line_is_not_cut_without_a_terminal(
    run: Run, client: meterhold.AsyncClient
) -> None:
    key = "k" * 255
    await client.grant_once("a" * 128, 1, idempotency_key=key)
    assert key in (await run("entries", "a" * 128)).out


async def test_the_options_of_every_command_stand_before_it_or_after_it(
    run: Run, used: meterhold.AsyncClient
) -> None:
    shown = (await run("balance", "alice", "--micros")).out
    assert "available   6250000\n" in shown
    assert (await run("--micros", "balance", "alice")).out == shown
    nowhere = "127.0.0.1:1"
    address = (await run("config", "--json")).value["settings"]["address"]["value"]
    done = await run("--address", nowhere, "balance", "alice", "--address", address, "--json")
    assert done.value["available_micros"] == 6_250_000


@needs_openssl
async def test_over_tls(run_alone: Run, database_url: str, tmp_path: Path) -> None:
    certificate, private_key = self_signed(tmp_path, "meterhold.example")
    settings = {"tls_certificate": certificate, "tls_private_key": private_key}
    async with service(database_url, **settings) as address:
        key = make_key(database_url).text
        asked = ("balance", "alice", "--json", "--address", address, "--api-key", key)
        trusted = ("--tls-root-certificates", str(certificate))
        done = await run_alone(*asked, *trusted, "--tls-server-name", "meterhold.example")
        assert done.value["available_micros"] == 0
        refused = await run_alone(*asked, *trusted, "--timeout", "0.5")
        assert refused.error["exit_code"] == 6
