"""The sweeper: brings due accounts to the engine, so that what nobody touches expires too.

Any number may run, in any process: expiring is decided under the account's lock, by the same code
as for every caller, and so happens once and never early.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import structlog

from meterhold_server.batching.engine import Engine
from meterhold_server.batching.reader import Reader
from meterhold_server.core.model import AccountKey
from meterhold_server.core.operations import Expire
from meterhold_server.core.outcomes import Expired, Outcome
from meterhold_server.storage.due import due_accounts
from meterhold_server.workers.worker import Worker

_log = structlog.get_logger(__name__)


class Sweep(NamedTuple):
    """What one run did. `lag_seconds` is how long the oldest due account had waited.

    `accounts_failed` of the `accounts` could not be swept; the log has the cause.
    """

    accounts: int = 0
    accounts_failed: int = 0
    holds_released: int = 0
    holds_charged: int = 0
    lots_expired: int = 0
    allowances_refilled: int = 0
    grants_landed: int = 0
    lag_seconds: float = 0.0

    def plus(self, other: Sweep) -> Sweep:
        return Sweep(
            self.accounts + other.accounts,
            self.accounts_failed + other.accounts_failed,
            self.holds_released + other.holds_released,
            self.holds_charged + other.holds_charged,
            self.lots_expired + other.lots_expired,
            self.allowances_refilled + other.allowances_refilled,
            self.grants_landed + other.grants_landed,
            max(self.lag_seconds, other.lag_seconds),
        )


class Sweeper(Worker):
    """Sweeps every `interval_seconds`, and at once again while there is more than one batch."""

    failed_event = "sweep_failed"

    def __init__(
        self,
        engine: Engine,
        reader: Reader,
        *,
        interval_seconds: float = 0.5,
        batch_accounts_max: int = 100,
    ) -> None:
        super().__init__(interval_seconds)
        self._engine = engine
        self._reader = reader
        self._batch_accounts_max = batch_accounts_max

    async def work(self) -> None:
        sweep = await self.run_once()
        if sweep.accounts:
            _log.info("swept", **sweep._asdict())

    async def run_once(self) -> Sweep:
        """Sweep all that is due now, batch by batch, past accounts that cannot be swept.

        Raises Failure if the database is away.
        """
        total = Sweep()
        while True:
            sweep = await self._run_batch()
            total = total.plus(sweep)
            if sweep.accounts < self._batch_accounts_max or sweep.accounts == sweep.accounts_failed:
                return total

    async def _run_batch(self) -> Sweep:
        due = await self._reader.run(due_accounts, self._batch_accounts_max)
        outcomes = await asyncio.gather(
            *(self._expire(account) for account, _ in due), return_exceptions=True
        )
        expired = [outcome for outcome in outcomes if isinstance(outcome, Expired)]
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failed:
            _log.warning("sweep_failed", accounts=len(failed), error=repr(failed[0]))
        return Sweep(
            len(due),
            len(failed),
            sum(outcome.holds_released for outcome in expired),
            sum(outcome.holds_charged for outcome in expired),
            sum(outcome.lots_expired for outcome in expired),
            sum(outcome.allowances_refilled for outcome in expired),
            sum(outcome.grants_landed for outcome in expired),
            max((d.lag_seconds for d in due), default=0.0),
        )

    async def _expire(self, account: AccountKey) -> Outcome:
        return await self._engine.submit(Expire(account))
