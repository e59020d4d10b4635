"""Batch on a real server: as many calls in one message, and chains of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

import grpc
import grpc.aio
import psycopg
import pytest
from google.protobuf.message import Message

from meterhold.v1 import admin_service_pb2 as admin
from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1 import types_pb2 as types
from meterhold_server.batching import failures
from meterhold_server.batching.failures import Failure
from meterhold_server.core.model import AccountKey
from meterhold_server.core.outcomes import Reason, Rejected
from meterhold_server.rpc import batch as batch_servicer
from meterhold_server.rpc.handlers import BATCH_BYTES_MAX
from meterhold_server.rpc.units import CHAIN_OPERATIONS_MAX, OPERATIONS_MAX
from meterhold_server.storage.verify import verify
from rpc.answers import METHODS, Told, call, refusal
from rpc.batches import FIELDS, alone, of_call, refused
from rpc.scripted_engine import scripted
from support.engines import Observer

READS: Final = {"Balance"}


def reserve(job: str, micros: int, account: str = "alice") -> pb.ReserveRequest:
    return pb.ReserveRequest(account=account, reservation_id=job, amount_micros=micros)


def settle(job: str, micros: int, account: str = "alice") -> pb.SettleRequest:
    return pb.SettleRequest(account=account, reservation_id=job, amount_micros=micros)


def debit(micros: int, account: str = "alice", request_id: str = "") -> pb.DebitRequest:
    return pb.DebitRequest(account=account, amount_micros=micros, request_id=request_id)


def debit_once(key: str, micros: int, account: str = "alice") -> pb.DebitOnceRequest:
    return pb.DebitOnceRequest(account=account, idempotency_key=key, amount_micros=micros)


def grant(key: str, micros: int, account: str = "alice") -> pb.GrantOnceRequest:
    return pb.GrantOnceRequest(account=account, idempotency_key=key, amount_micros=micros)


def refund(key: str, job: str) -> pb.RefundChargeRequest:
    """Of the final settle of a job."""
    return pb.RefundChargeRequest(
        account="alice", idempotency_key=key, capture=pb.Capture(reservation_id=job)
    )


def chain(*requests: Message) -> list[pb.BatchOperation]:
    operations = [alone(request) for request in requests]
    for operation in operations[:-1]:
        operation.linked = True
    return operations


def reasons(results: Sequence[pb.BatchResult]) -> list[str]:
    """The reason of each error; empty for a response."""
    return [refused(each.error).reason if each.HasField("error") else "" for each in results]


class Sender:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def __call__(self, *operations: Message) -> list[pb.BatchResult]:
        """Send a Batch, each request of it alone. Answers its results, as many as were asked."""
        asked = [
            each if isinstance(each, pb.BatchOperation) else alone(each) for each in operations
        ]
        request = pb.BatchRequest(operations=asked)
        answer = await call(self.channel, METHODS["Batch"], request)
        assert isinstance(answer, bytes), answer
        results = list(pb.BatchResponse.FromString(answer).results)
        assert len(results) == len(operations)
        return results

    async def refused(self, request: pb.BatchRequest | bytes) -> Told:
        return await refusal(self.channel, METHODS["Batch"], request)

    async def balance(self, account: str = "alice") -> types.Balance:
        request = pb.BalanceRequest(account=account)
        answer = await call(self.channel, METHODS["Balance"], request)
        assert isinstance(answer, bytes)
        return pb.BalanceResponse.FromString(answer).balance


@pytest.fixture
async def send(address: str) -> AsyncIterator[Sender]:
    """To a server where alice has 1000, and a hold of 100 that is settled."""
    options = [("grpc.max_receive_message_length", 32 * 1024 * 1024)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        send = Sender(channel)
        assert reasons(
            await send(grant("first", 1100), reserve("old", 100), settle("old", 100))
        ) == ["", "", ""]
        yield send


def test_there_is_an_operation_and_a_result_for_each_call_that_changes_something() -> None:
    results = pb.BatchResult.DESCRIPTOR.oneofs_by_name["result"].fields
    answered = {
        field.name: field.message_type.full_name
        for field in results
        if field.message_type is not None and field.name != "error"
    }
    service = pb.DESCRIPTOR.services_by_name["MeteringService"]
    calls = [method for method in service.methods if method.name not in READS | {"Batch", "Stream"}]
    assert set(FIELDS) == {method.input_type.full_name for method in calls}
    assert answered == {
        FIELDS[method.input_type.full_name]: method.output_type.full_name for method in calls
    }


async def test_each_operation_is_answered_in_its_place(send: Sender) -> None:
    results = await send(
        reserve("job", 300),
        pb.ExtendRequest(
            account="alice", reservation_id="job", add_amount_micros=50, extend_id="more"
        ),
        pb.SettleRequest(
            account="alice", reservation_id="job", amount_micros=40, keep_open=True, capture_id="a"
        ),
        pb.ReleaseRequest(account="alice", reservation_id="job"),
        debit(10_000),
        debit(10),
        debit_once("order", 20),
        grant("gift", 500, "bob"),
        pb.RefundChargeRequest(account="alice", idempotency_key="back", entry_seq=2),
        pb.RevokeGrantRequest(grant_key="gift", account="bob", cumulative_amount_micros=200),
        pb.ReinstateGrantRequest(grant_key="gift", account="bob"),
        reserve("", 5),
    )
    assert [each.WhichOneof("result") for each in results] == [
        "reserve", "extend", "settle", "release", "error", "debit", "debit_once", "grant_once",
        "refund_charge", "revoke_grant", "reinstate_grant", "error",
    ]  # fmt: skip
    assert results[0].reserve.created
    assert results[1].extend.held_micros == 350
    assert results[2].settle.charged_micros == 40
    assert results[3].release.reservation.released_micros == 310
    assert results[5].debit.entry.amount_micros == -10
    assert results[6].debit_once.status == pb.DEBIT_STATUS_DEBITED
    assert results[8].refund_charge.refunded_micros == 100
    assert results[9].revoke_grant.balance.available_micros == 300
    assert results[10].reinstate_grant.balance.available_micros == 500
    assert reasons(results)[4::7] == ["INSUFFICIENT_CREDITS", "INVALID_FIELD"]


@pytest.mark.parametrize(
    "request_",
    [
        debit(10_000),
        debit(10**15 + 1),
        debit_once("key\0", -1),
        grant("first", 5),
        grant("gift", 5, "frozen"),
        settle("none", 5),
        pb.ExtendRequest(account="alice", reservation_id="old", on_expiry=types.ON_EXPIRY_CHARGE),
        refund("back", "none"),
        pb.RefundChargeRequest(
            account="alice", idempotency_key="back", entry_seq=2, amount_micros=101
        ),
        pb.RefundChargeRequest(account="alice", idempotency_key="back"),
        pb.RevokeGrantRequest(grant_key="none"),
        pb.ReinstateGrantRequest(grant_key="none", unit="credits"),
        pb.RevokeGrantRequest(
            grant_key="first", expected_source=types.ExpectedSource(provider="shop")
        ),
    ],
    ids=lambda request: request.DESCRIPTOR.name,
)
async def test_an_error_is_that_of_the_call(send: Sender, request_: Message) -> None:
    freeze = admin.ConfigureAccountRequest(account="frozen", frozen=True)
    assert isinstance(await call(send.channel, METHODS["ConfigureAccount"], freeze), bytes)
    method = next(method for method in METHODS.values() if method.input_type == request_.DESCRIPTOR)
    told = await refusal(send.channel, method, request_)
    before, result, after = await send(debit(1), request_, debit(1))
    if told.reason != "INSUFFICIENT_CREDITS":  # That has numbers which the debit before changes.
        assert refused(result.error) == of_call(told)
    assert refused(result.error).reason == told.reason
    assert reasons([before, after]) == ["", ""]


async def test_the_order_of_an_account_is_kept(send: Sender) -> None:
    results = await send(
        grant("gift", 10, "bob"), *(debit(1, "bob") for _ in range(11)), grant("more", 1, "bob"),
        debit(1, "bob"),
    )  # fmt: skip
    assert reasons(results) == [""] * 11 + ["INSUFFICIENT_CREDITS", "", ""]
    assert [each.debit.entry.seq for each in results[1:11]] == list(range(2, 12))


async def test_a_key_is_replayed_within_one_batch(send: Sender) -> None:
    results = await send(debit_once("order", 5), debit_once("order", 5), debit_once("order", 6))
    assert [each.debit_once.replayed for each in results[:2]] == [False, True]
    assert results[1].debit_once.entry == results[0].debit_once.entry
    assert refused(results[2].error).reason == "IDEMPOTENCY_MISMATCH"


async def test_a_batch_that_is_sent_again_is_replayed(send: Sender) -> None:
    operations = [
        *(debit_once(f"order-{number}", 1) for number in range(20)),
        *chain(debit_once("move", 50), grant("move", 50, "bob")),
        reserve("job", 5),
    ]
    first = await send(*operations)
    again = await send(*operations)
    assert reasons(first) == [""] * 23
    for one, other in zip(first, again, strict=True):
        kind = one.WhichOneof("result")
        assert kind is not None
        assert getattr(other, kind).replayed
        assert getattr(other, kind).balance == getattr(one, kind).balance


async def test_a_thousand_operations(send: Sender, database_url: str) -> None:
    operations = [
        debit_once(f"order-{number}", 1, f"account-{number % 7}") for number in range(993)
    ]
    grants = [grant(f"gift-{number}", 1000, f"account-{number}") for number in range(7)]
    results = await send(*grants, *operations)
    assert reasons(results) == [""] * OPERATIONS_MAX
    for number in range(7):
        mine = results[7:][number::7]
        assert [each.debit_once.entry.seq for each in mine] == list(range(2, 2 + len(mine)))
    assert verify(database_url).clean


class TestWhatHasToBeFound:
    """What does not name its entry or its account is found as if called after what is before it."""

    async def test_a_refund_finds_a_capture_of_the_same_batch(self, send: Sender) -> None:
        results = await send(
            reserve("job", 60), settle("job", 60), refund("back", "job"), debit(1000), debit(1)
        )
        assert reasons(results) == ["", "", "", "", "INSUFFICIENT_CREDITS"]
        assert results[2].refund_charge.refunded_micros == 60

    async def test_a_revocation_finds_a_grant_of_the_same_batch(self, send: Sender) -> None:
        results = await send(
            pb.RevokeGrantRequest(grant_key="gift"),
            grant("gift", 500, "bob"),
            debit(100, "bob"),
            pb.RevokeGrantRequest(grant_key="gift"),
            debit(1, "bob"),
            pb.ReinstateGrantRequest(grant_key="gift"),
            debit(1, "bob"),
        )
        assert reasons(results) == [
            "GRANT_NOT_FOUND", "", "", "", "INSUFFICIENT_CREDITS", "", "",
        ]  # fmt: skip
        assert results[3].revoke_grant.account == "bob"
        assert results[3].revoke_grant.revoked_micros == 500
        assert results[5].reinstate_grant.reinstated_micros == 500

    async def test_a_tombstone_meets_the_grant_that_comes_after_it(self, send: Sender) -> None:
        results = await send(
            pb.RevokeGrantRequest(grant_key="gift", allow_tombstone=True), grant("gift", 5, "bob")
        )
        assert reasons(results) == ["", "GRANT_REVOKED"]

    async def test_many_of_them_keep_their_order(self, send: Sender) -> None:
        half = pb.RevokeGrantRequest(grant_key="first", cumulative_fraction_ppm=500_000)
        whole = pb.RevokeGrantRequest(grant_key="first")
        results = await send(half, whole, half, refund("a", "old"), refund("b", "old"))
        assert [each.revoke_grant.revoked_micros for each in results[:3]] == [550, 550, 0]
        assert reasons(results[3:]) == ["", "REFUND_EXCEEDS_CHARGE"]


class TestChains:
    async def test_credits_are_moved(self, send: Sender) -> None:
        results = await send(*chain(debit_once("move", 400), grant("move", 400, "bob")))
        assert reasons(results) == ["", ""]
        assert (await send.balance()).available_micros == 600
        assert (await send.balance("bob")).available_micros == 400

    @pytest.mark.parametrize("place", [0, 1, 2])
    async def test_one_that_is_refused_refuses_all(self, send: Sender, place: int) -> None:
        requests: list[Message] = [grant("gift", 5, "bob"), reserve("job", 10)]
        requests.insert(place, debit(5000))
        results = await send(debit(1), *chain(*requests), debit(1))
        expected = ["CHAIN_REFUSED"] * 3
        expected[place] = "INSUFFICIENT_CREDITS"
        assert reasons(results) == ["", *expected, ""]
        other = refused(results[1 + (place + 1) % 3].error)
        assert other.code == "FAILED_PRECONDITION"
        assert other.metadata == {"applied": "NO", "index": str(1 + place)}
        assert f"operation {1 + place} " in other.message
        assert (await send.balance()).available_micros == 998
        assert (await send.balance("bob")).ledger_seq == 0

    @pytest.mark.parametrize("place", [0, 1])
    async def test_a_wrong_field_refuses_all(self, send: Sender, place: int) -> None:
        requests: list[Message] = [debit(5), debit(6)]
        requests.insert(place, debit(-1))
        results = await send(debit(1), *chain(*requests), debit(-2))
        wrong = refused(results[1 + place].error)
        assert (wrong.reason, wrong.metadata["fields"]) == ("INVALID_FIELD", "amount_micros")
        others = [results[1 + number] for number in range(3) if number != place]
        assert [refused(each.error).metadata["index"] for each in others] == [str(1 + place)] * 2
        assert reasons(results[4:]) == ["INVALID_FIELD"]
        assert (await send.balance()).available_micros == 999

    async def test_a_refund_by_a_capture_that_is_not_there_refuses_all(self, send: Sender) -> None:
        links = chain(reserve("job", 5), settle("job", 5), refund("back", "job"))
        assert reasons(await send(*links)) == ["CHAIN_REFUSED"] * 2 + ["ENTRY_NOT_FOUND"]
        links = chain(refund("back", "old"), debit(1100))
        assert reasons(await send(*links)) == ["", ""]

    @pytest.mark.parametrize("change", [pb.RevokeGrantRequest, pb.ReinstateGrantRequest])
    async def test_a_change_of_a_grant_names_its_account(
        self, send: Sender, change: type[pb.RevokeGrantRequest]
    ) -> None:
        first, second = await send(*chain(debit(1), change(grant_key="first")))
        assert refused(first.error).metadata["index"] == "1"
        assert [field for field, _ in refused(second.error).violations] == ["account"]
        named = change(grant_key="first", account="alice", unit="credits")
        assert reasons(await send(*chain(debit(1), named))) == ["", ""]

    async def test_an_index_is_the_place_in_the_message(self, send: Sender) -> None:
        operations = [alone(debit(-1)), *chain(debit(-1), debit(1)), *chain(debit(1), debit(5000))]
        results = await send(*operations)
        assert [refused(each.error).metadata.get("index") for each in results] == [
            None, None, "1", "4", None,
        ]  # fmt: skip

    async def test_chains_stand_apart(self, send: Sender) -> None:
        results = await send(
            *chain(debit(1), debit(2)), *chain(debit(5000), debit(3)), *chain(debit(4), debit(5))
        )
        assert reasons(results) == ["", "", "INSUFFICIENT_CREDITS", "CHAIN_REFUSED", "", ""]
        assert (await send.balance()).spent_micros == 100 + 1 + 2 + 4 + 5

    async def test_a_chain_is_one_transaction(self, send: Sender, database_url: str) -> None:
        await send(*chain(*(debit_once(f"{n}", 1, "alice") for n in range(CHAIN_OPERATIONS_MAX))))
        with psycopg.connect(database_url) as connection:
            row = connection.execute(
                "SELECT count(*), count(DISTINCT xmin::text) FROM entry WHERE kind = 'DEBIT'"
            ).fetchone()
        assert row == (CHAIN_OPERATIONS_MAX, 1)


def _wrong() -> Iterator[tuple[str, list[pb.BatchOperation], str]]:
    yield "none", [], "operations"
    yield "too_many", [alone(debit(1))] * (OPERATIONS_MAX + 1), "operations"
    yield "empty", [alone(debit(1)), pb.BatchOperation(), alone(debit(1))], "operations[1]"
    yield "last_linked", [alone(debit(1)), *chain(debit(1), debit(1))[:1]], "operations[1]"
    long = chain(*[debit(1)] * (CHAIN_OPERATIONS_MAX + 1))
    yield "long_chain", [alone(debit(1)), *long, alone(debit(1))], "operations[1]"


@pytest.mark.parametrize(
    ("operations", "field"), [pytest.param(*row, id=name) for name, *row in _wrong()]
)
async def test_a_message_that_is_no_batch_is_refused_whole(
    send: Sender, operations: list[pb.BatchOperation], field: str
) -> None:
    told = await send.refused(pb.BatchRequest(operations=operations))
    assert (told.code, told.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert told.fields == {field}
    assert told.applied == "NO"
    assert (await send.balance()).ledger_seq == 2


async def test_all_that_is_wrong_with_a_batch_is_told_as_far_as_it_fits(send: Sender) -> None:
    told = await send.refused(pb.BatchRequest(operations=[pb.BatchOperation()] * 1000))
    assert {"operations[0]", "operations[1]", "request"} <= told.fields


async def test_bytes_that_are_no_batch_or_too_many_are_refused(send: Sender) -> None:
    for data in (b"\xff\xff", b"\0" * (BATCH_BYTES_MAX + 1)):
        told = await send.refused(data)
        assert (told.code, told.fields) == ("INVALID_ARGUMENT", {"request"})


async def test_a_batch_may_be_larger_than_other_requests(send: Sender) -> None:
    large = debit(1)
    large.metadata.update({"text": "x" * 4000})
    assert reasons(await send(*[large] * 900)) == [""] * 900


FAILURES: Final[list[Failure]] = [
    failures.overloaded(4096, 2.5),
    failures.shutting_down(),
    failures.database_unavailable(),
    failures.outcome_unknown(),
    failures.deadline_passed(),
    failures.internal("5f0c5f0c5f0c5f0c"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.reason)
async def test_a_failure_is_that_of_the_call(failure: Failure) -> None:
    async with scripted(failure) as channel:
        told = await refusal(channel, METHODS["Reserve"], reserve("job", 5))
    refusing = Rejected(Reason.RESERVATION_NOT_FOUND, {"reservation_id": "job"})
    async with scripted(refusing, failure, failure) as channel:
        results = await Sender(channel)(settle("job", 5), debit(1), *chain(debit(1), debit(2)))
    assert reasons(results[:1]) == ["RESERVATION_NOT_FOUND"]
    assert [refused(each.error) for each in results[1:]] == [of_call(told)] * 3


@pytest.fixture
def sent_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes, the transport has sent it before."""
    monkeypatch.setattr(batch_servicer, "was_sent_before", lambda context: True)


@pytest.mark.usefixtures("sent_before")
async def test_a_debit_without_a_key_is_not_taken_on_again(send: Sender) -> None:
    """Nor is its chain: nobody can tell whether an earlier attempt was charged."""
    operations = [
        debit(1), debit(1, request_id="a"), *chain(debit(1), debit_once("b", 1)), debit(-1),
    ]  # fmt: skip
    results = await send(*operations)
    assert reasons(results) == [
        "OUTCOME_UNKNOWN", "", "OUTCOME_UNKNOWN", "OUTCOME_UNKNOWN", "INVALID_FIELD",
    ]  # fmt: skip
    assert refused(results[0].error).metadata["applied"] == "UNKNOWN"
    assert (await send.balance()).spent_micros == 101


@pytest.mark.usefixtures("sent_before")
async def test_a_refusal_that_an_earlier_attempt_might_not_meet_is_not_definite(
    send: Sender,
) -> None:
    operations = [*chain(debit_once("a", 1), debit_once("b", 5000)), settle("old", 99)]
    results = await send(*operations)
    assert [refused(each.error).metadata["applied"] for each in results] == [
        "UNKNOWN", "UNKNOWN", "NO",
    ]  # fmt: skip


class TestWithoutADeadline:
    async def test_a_batch_is_answered(self, send: Sender) -> None:
        request = pb.BatchRequest(operations=[alone(refund("back", "old")), alone(debit(1))])
        assert reasons(await _in_its_own_time(send.channel, request)) == ["", ""]

    async def test_what_takes_too_long_is_not_known(
        self, send: Sender, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(batch_servicer, "CALL_SECONDS_MAX", 0.05)
        observer = Observer(database_url)
        observer.lock(AccountKey("default", "alice", "credits"))
        request = pb.BatchRequest(operations=[alone(debit(1)), alone(refund("back", "old"))])
        results = await _in_its_own_time(send.channel, request)
        observer.let_go()
        observer.close()
        assert reasons(results) == ["OUTCOME_UNKNOWN"] * 2


async def _in_its_own_time(
    channel: grpc.aio.Channel, request: pb.BatchRequest
) -> Sequence[pb.BatchResult]:
    ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
        "/meterhold.v1.MeteringService/Batch"
    )
    return pb.BatchResponse.FromString(await ask(request.SerializeToString())).results
