"""The summarizer: sums up full blocks of charges, so that reports need not read each charge.

Any number may run, in any process. It has no rules of its own, writes to no table that a call
writes to, and takes no locks on accounts; reports are right with and without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import structlog

from meterhold_server.batching.failures import Failure
from meterhold_server.batching.reader import Reader
from meterhold_server.core.charge_blocks import BLOCK_ENTRIES, BlockKey
from meterhold_server.storage.charge_blocks import accounts_with_due_blocks, due_blocks, make_block
from meterhold_server.workers.worker import Worker

_log = structlog.get_logger(__name__)


class Summarized(NamedTuple):
    """What one walk over the accounts did.

    `blocks_skipped` lack an entry, or another was faster; `blocks_failed` are in the log.
    """

    accounts: int = 0
    blocks_made: int = 0
    blocks_skipped: int = 0
    blocks_failed: int = 0

    def plus(self, other: Summarized) -> Summarized:
        return Summarized(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class Summarizer(Worker):
    """Walks over all accounts every `interval_seconds`, block by block and in small transactions.

    `connections` must be able to write. `entry_counts` are the sizes of blocks to make.
    """

    failed_event = "summary_failed"

    def __init__(
        self,
        connections: Reader,
        *,
        interval_seconds: float = 300.0,
        chunk_accounts: int = 10_000,
        entry_counts: Sequence[int] = BLOCK_ENTRIES,
    ) -> None:
        super().__init__(interval_seconds)
        self._connections = connections
        self._chunk_accounts = chunk_accounts
        self._entry_counts = entry_counts

    async def work(self) -> None:
        done = await self.run_once()
        if done.blocks_made:
            _log.info("summarized", **done._asdict())

    async def run_once(self) -> Summarized:
        """Walk over all accounts once, past blocks that cannot be made.

        Raises Failure if the database is away.
        """
        total = Summarized()
        after = None
        while True:
            due, after = await self._connections.run(
                accounts_with_due_blocks, after, self._chunk_accounts, self._entry_counts
            )
            for account_id, seq in due:
                total = total.plus(await self._account(account_id, seq))
            if after is None:
                return total

    async def _account(self, account_id: str, seq: int) -> Summarized:
        keys = await self._connections.run(due_blocks, account_id, seq, self._entry_counts)
        total = Summarized(accounts=1)
        for key in keys:
            total = total.plus(await self._block(key))
        return total

    async def _block(self, key: BlockKey) -> Summarized:
        try:
            made = await self._connections.run(make_block, key)
        except Failure:
            raise
        except Exception:
            # One damaged block must not keep the others from being made.
            _log.exception("summary_failed", **key._asdict())
            return Summarized(blocks_failed=1)
        return Summarized(blocks_made=1) if made else Summarized(blocks_skipped=1)
