"""The naive server: Debit, Reserve, Settle and GrantOnce as a team would write them at first.

The usual parts, used as their manuals say: gRPC's thread pool, SQLAlchemy's ORM, a session and a
transaction for each call, SELECT FOR UPDATE on the account, a ledger row, commit. It is not made
slow: a thread and a pooled connection for each of 64 callers, an index for every look-up, psycopg
preparing what it repeats, as it does by default. It is correct for what it does: nothing is
overspent, and unique keys make retries safe. It knows no lots, expiry or comparison of requests.

As a module it takes a libpq URL as its argument, makes its tables there, and prints its port.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Identity,
    Index,
    Text,
    create_engine,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from meterhold.v1 import metering_service_pb2 as pb
from meterhold.v1 import types_pb2
from meterhold.v1.metering_service_pb2_grpc import (
    MeteringServiceServicer,
    add_MeteringServiceServicer_to_server,
)

THREADS: Final = 64
"""Handlers and connections; PostgreSQL takes 100 connections by default."""

_TTL_DEFAULT: Final = timedelta(minutes=15)


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, str: Text}  # noqa: RUF012


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    balance_micros: Mapped[int]
    held_micros: Mapped[int]


class Hold(Base):
    __tablename__ = "hold"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    reservation_id: Mapped[str]
    state: Mapped[str]
    amount_micros: Mapped[int]
    charged_micros: Mapped[int]
    expire_time: Mapped[datetime]
    __table_args__ = (
        Index("ix_hold_reservation", "account_id", "reservation_id", unique=True),
        Index("ix_hold_expiry", "expire_time", postgresql_where=text("state = 'ACTIVE'")),
    )


class Entry(Base):
    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"), index=True)
    kind: Mapped[str]
    amount_micros: Mapped[int]
    balance_after_micros: Mapped[int]
    idempotency_key: Mapped[str | None] = mapped_column(unique=True)
    create_time: Mapped[datetime]


class NaiveServicer(MeteringServiceServicer):
    """Each method is one transaction on the account that it names."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions

    @contextmanager
    def _transaction(self, context: Any) -> Iterator[Session]:
        try:
            with self._sessions.begin() as session:
                yield session
        except IntegrityError:
            # A repeated key, or an account that another call made meanwhile.
            context.abort(grpc.StatusCode.ABORTED, "done at the same time by another call: retry")

    def GrantOnce(self, request: pb.GrantOnceRequest, context: Any) -> pb.GrantOnceResponse:  # noqa: N802
        with self._transaction(context) as session:
            account = session.scalar(_locked(request.account))
            if account is None:
                account = Account(name=request.account, balance_micros=0, held_micros=0)
                session.add(account)
                session.flush()
            done = _entry_by_key(session, request.idempotency_key)
            if done is None:
                account.balance_micros += request.amount_micros
                done = _entry(account, "GRANT", request.amount_micros, request.idempotency_key)
                session.add(done)
                session.flush()
            return pb.GrantOnceResponse(balance=_balance(account), entry=_message(done))

    def Debit(self, request: pb.DebitRequest, context: Any) -> pb.DebitResponse:  # noqa: N802
        with self._transaction(context) as session:
            account = _account(session, request.account, context)
            if request.request_id and (done := _entry_by_key(session, request.request_id)):
                status = pb.DEBIT_STATUS_REPLAYED
                return pb.DebitResponse(
                    balance=_balance(account), status=status, entry=_message(done), replayed=True
                )
            if account.balance_micros - account.held_micros < request.amount_micros:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "insufficient credits")
            account.balance_micros -= request.amount_micros
            entry = _entry(account, "DEBIT", -request.amount_micros, request.request_id or None)
            session.add(entry)
            session.flush()
            status = pb.DEBIT_STATUS_DEBITED
            return pb.DebitResponse(balance=_balance(account), status=status, entry=_message(entry))

    def Reserve(self, request: pb.ReserveRequest, context: Any) -> pb.ReserveResponse:  # noqa: N802
        with self._transaction(context) as session:
            account = _account(session, request.account, context)
            hold = _hold(session, account, request.reservation_id)
            created = hold is None
            if hold is None:
                if account.balance_micros - account.held_micros < request.amount_micros:
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "insufficient credits")
                account.held_micros += request.amount_micros
                hold = Hold(
                    account_id=account.id,
                    reservation_id=request.reservation_id,
                    state="ACTIVE",
                    amount_micros=request.amount_micros,
                    charged_micros=0,
                    expire_time=_now() + (request.ttl.ToTimedelta() or _TTL_DEFAULT),
                )
                session.add(hold)
                session.flush()
            answer = pb.ReserveResponse(
                balance=_balance(account),
                held_micros=hold.amount_micros,
                created=created,
                replayed=not created,
            )
            answer.expire_time.FromDatetime(hold.expire_time)
            return answer

    def Settle(self, request: pb.SettleRequest, context: Any) -> pb.SettleResponse:  # noqa: N802
        with self._transaction(context) as session:
            account = _account(session, request.account, context)
            hold = _hold(session, account, request.reservation_id)
            if hold is None:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such reservation")
            replayed = hold.state == "SETTLED"
            if not replayed:
                hold.state = "SETTLED"
                hold.charged_micros = min(request.amount_micros, hold.amount_micros)
                account.held_micros -= hold.amount_micros
                account.balance_micros -= hold.charged_micros
                session.add(_entry(account, "CAPTURE", -hold.charged_micros, None))
                session.flush()
            return pb.SettleResponse(
                balance=_balance(account),
                charged_micros=hold.charged_micros,
                from_hold_micros=hold.charged_micros,
                released_micros=hold.amount_micros - hold.charged_micros,
                replayed=replayed,
            )


def _locked(name: str) -> Any:
    return select(Account).where(Account.name == name).with_for_update()


def _account(session: Session, name: str, context: Any) -> Account:
    account: Account | None = session.scalar(_locked(name))
    if account is None:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "insufficient credits")
        raise AssertionError("abort raises")
    return account


def _hold(session: Session, account: Account, reservation_id: str) -> Any:
    return session.scalar(
        select(Hold).where(Hold.account_id == account.id, Hold.reservation_id == reservation_id)
    )


def _entry_by_key(session: Session, key: str) -> Entry | None:
    return session.scalar(select(Entry).where(Entry.idempotency_key == key))


def _entry(account: Account, kind: str, amount_micros: int, key: str | None) -> Entry:
    return Entry(
        account_id=account.id,
        kind=kind,
        amount_micros=amount_micros,
        balance_after_micros=account.balance_micros,
        idempotency_key=key,
        create_time=_now(),
    )


def _balance(account: Account) -> types_pb2.Balance:
    return types_pb2.Balance(
        available_micros=account.balance_micros - account.held_micros,
        held_micros=account.held_micros,
        remaining_micros=account.balance_micros,
    )


def _message(entry: Entry) -> types_pb2.Entry:
    message = types_pb2.Entry(
        seq=entry.id,
        amount_micros=entry.amount_micros,
        remaining_after_micros=entry.balance_after_micros,
        key=entry.idempotency_key or "",
    )
    message.create_time.FromDatetime(entry.create_time)
    return message


def _now() -> datetime:
    return datetime.now(UTC)


def serve(url: str) -> None:
    address = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_engine(address, pool_size=THREADS, max_overflow=0)
    Base.metadata.create_all(engine)
    # The calls that it has not are answered with UNIMPLEMENTED.
    servicer = NaiveServicer(sessionmaker(engine))  # type: ignore[abstract]
    server = grpc.server(futures.ThreadPoolExecutor(THREADS))
    add_MeteringServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    print(port, flush=True)
    stopping.wait()
    server.stop(1).wait()
    engine.dispose()


if __name__ == "__main__":
    serve(sys.argv[1])
