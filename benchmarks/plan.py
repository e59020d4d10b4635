"""What is measured: which load on which server, and in which order."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

SERVERS: Final = {
    "noop": "no-op server",
    "product": "Meterhold",
    "compiled": "Meterhold, compiled",
    "naive": "naive server",
    "ceiling": "bare SQL",
}

CONCURRENCIES: Final = (1, 4, 16, 64, 256)
"""Callers of the sweep."""

OFFERED_PARTS: Final = (0.2, 0.4, 0.6, 0.8, 0.9)
"""Arrivals of the open loop, as parts of what the same server did in the closed one."""

BATCH_CALLERS: Final = 4
PAIR_BATCH: Final = 100
DEBIT_BATCH: Final = 1000

_LABELS: Final = {
    "debit": "Debit, {accounts:,} accounts",
    "debit hot": "Debit, one hot account",
    "pair": "Reserve + Settle, {accounts:,} accounts",
    "pair hot": "Reserve + Settle, one hot account",
    "batch debit": "Debit, {batch:,} a Batch",
    "batch pair": "Reserve + Settle, {batch:,} a Batch",
    "client pair": "Reserve + Settle, AsyncClient, {callers} callers",
    "commit": "commit of one row",
}


class Load(NamedTuple):
    """`name` and `server` tell loads apart. `offered` 0 is the closed loop.

    `extra` loads are for the plot, and may be measured in fewer rounds.
    """

    server: str
    name: str
    workload: str
    accounts: int
    callers: int
    batch: int = 1
    offered: float = 0.0
    extra: bool = False

    @property
    def label(self) -> str:
        what = _LABELS.get(self.name) or f"{_LABELS['debit']}, {{callers}} caller(s)"
        if self.offered:
            what = f"{_LABELS['debit']}, {{offered:.0%}} of its most offered"
        return f"{SERVERS[self.server]}: {what.format(**self._asdict())}"


def plan(accounts: int, callers: int, *, compiled: bool) -> list[Load]:
    """All loads of a run; with `compiled`, some of them on the compiled build as well."""

    def debit(server: str, name: str = "debit", **other: Any) -> Load:
        return Load(server, name, "debit", accounts, callers)._replace(**other)

    def pair(server: str, name: str = "pair", **other: Any) -> Load:
        return Load(server, name, "pair", accounts, callers)._replace(**other)

    def builds(load: Load) -> list[Load]:
        return [load, load._replace(server="compiled")] if compiled else [load]

    batch_callers = min(BATCH_CALLERS, callers)
    # Loads that are compared with each other come soon after each other.
    found = [
        *builds(Load("product", "client pair", "client_pair", accounts, callers * 4)),
        debit("noop"),
        *builds(debit("product")),
        debit("naive"),
        debit("product", "debit hot", accounts=1),
        debit("naive", "debit hot", accounts=1),
        pair("naive"),
        pair("product"),
        pair("product", "pair hot", accounts=1),
        pair("naive", "pair hot", accounts=1),
        debit("noop", "debit of 1", callers=1),
        debit("product", "debit of 1", callers=1),
        Load("ceiling", "commit", "commit", 1, 1),
        *builds(Load("product", "batch pair", "batch_pair", accounts, batch_callers, PAIR_BATCH)),
        Load("ceiling", "batch pair", "pair", accounts, 1, PAIR_BATCH),
        *builds(
            Load("product", "batch debit", "batch_debit", accounts, batch_callers, DEBIT_BATCH)
        ),
        Load("ceiling", "batch debit", "debit", accounts, 1, DEBIT_BATCH),
    ]
    known = {(load.server, load.callers) for load in found if load.name.startswith("debit")}
    found += [
        debit(server, f"debit of {count}", callers=count, extra=True)
        for count in CONCURRENCIES
        for server in ("noop", "product", "naive")
        if (server, count) not in known
    ]
    found += [
        debit(server, f"debit at {part}", offered=part, extra=True)
        for part in OFFERED_PARTS
        for server in ("noop", "product", "naive")
    ]
    return found
