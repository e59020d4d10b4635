"""What a proof consists of: fuzzed requests and attacks on a server, with honest callers beside."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import grpc.aio
import psutil
from google.protobuf.descriptor import MethodDescriptor

from fuzz.answers import CALL_ENDED
from fuzz.deserializer import Parsed, parse_mutants
from fuzz.honest import Honest, honest_callers
from fuzz.hostile import ATTACKS, Damage, attack
from fuzz.methods import served
from fuzz.mutations import MUTATIONS
from fuzz.traffic import Metadata, Traffic, fuzz, no_metadata, odd_metadata, ours
from meterhold_server.core.credentials import ApiKey, Scope, api_key_of, credential_id_of
from meterhold_server.storage.verify import Verification, verify
from support.keys import bearer, make_key, revoke
from support.service import ServerProcess
from support.waiting import until

MEMORY_GROWTH_MIB_MAX: Final = 64
"""Of the server, over all fuzzed requests but the first fifth."""

_PARTS: Final = 5
_CALLS_TO_SEE: Final = 6

_ENOUGH_FOR_EACH: Final = 30_000
"""Of so many requests some must be accepted for each method, of fewer some must make sense."""

_MIB: Final = 2**20
_LET_OUT: Final = {"UNAUTHENTICATED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", CALL_ENDED}
"""What a stranger is told: that nobody knows it, that it tries too often, that it asks too much."""


class Plan(NamedTuple):
    """How much is done."""

    seed: int
    requests: int
    """Over the wire, to a server that asks for no credentials."""
    requests_of_strangers: int
    mutants: int
    """Parsed in this process."""
    calm_seconds: float
    attack_seconds: float
    """Of each attack by itself."""
    siege_seconds: float
    """Of all attacks together."""


@dataclass
class Report:
    """What was done, and what came of it."""

    parsed: Parsed
    traffic: Traffic
    strangers: Traffic
    damage: dict[str, Damage] = field(default_factory=dict)
    memory_mib: dict[str, int] = field(default_factory=dict)
    """Of the server, at certain times."""
    p99_milliseconds: dict[str, float] = field(default_factory=dict)
    """Of honest callers, by what went on beside them."""
    honest_calls: int = 0
    restarts: int = 0
    """Of server processes."""
    transport_restarts: int = 0
    """Within a process, as gRPC had ended by itself."""
    verified: list[Verification] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def indefinite(self) -> int:
        """How many answers were INTERNAL or UNKNOWN."""
        both = (self.traffic, self.strangers)
        return sum(each.codes[code] for each in both for code in ("INTERNAL", "UNKNOWN"))


async def prove(plan: Plan, open_url: str, closed_url: str) -> Report:
    """Carry it out, on one database for a server that is open to all, and one that asks for keys.

    Both are migrated and empty, and are verified in the end.
    """
    with ServerProcess(open_url) as server:
        report = await _fuzz_and_attack(plan, server)
    with ServerProcess(closed_url, auth="keys") as server:
        await _fuzz_as_strangers(plan, server, closed_url, report)
    for url in (open_url, closed_url):
        report.verified.append(verify(url))
        report.problems += report.verified[-1].violations[:10]
    report.problems += _vacuous(report)
    return report


async def _fuzz_and_attack(plan: Plan, server: ServerProcess) -> Report:
    async with grpc.aio.insecure_channel(server.address) as channel:
        methods = await served(channel)
    report = Report(parse_mutants(methods, plan.mutants, plan.seed), Traffic(0), Traffic(0))
    report.problems += report.parsed.problems
    process = psutil.Process(server.process_id)
    async with _beside(server, report, "open") as honest:
        await asyncio.sleep(plan.calm_seconds)
        report.p99_milliseconds["nothing else"] = honest.p99_milliseconds()

        for part in range(1, _PARTS + 1):
            sent = await fuzz(
                server.address, methods, plan.requests // _PARTS, f"{plan.seed} {part}"
            )
            report.traffic.plus(sent)
            report.memory_mib[f"after {report.traffic.sent:,} requests"] = _memory_mib(process)
        report.p99_milliseconds["fuzzed requests"] = honest.p99_milliseconds()
        report.problems += _of_traffic(report.traffic, methods)
        report.problems += _told_by(server, honest)
        report.problems += _resent(honest)

        await _attack(plan, server, honest, report)
        report.memory_mib["after all attacks"] = _memory_mib(process)
    return report


async def _attack(plan: Plan, server: ServerProcess, honest: Honest, report: Report) -> None:
    """Each attack by itself, and then all at once."""
    loop = asyncio.get_running_loop()
    waves = [([name], plan.attack_seconds) for name in ATTACKS]
    waves.append((list(ATTACKS), plan.siege_seconds))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as attackers:
        for names, seconds in waves:
            done = await loop.run_in_executor(
                attackers, attack, names, server.address, seconds, plan.seed
            )
            # Of calls that were under way, too: some attacks are over before the first is answered.
            await _more_calls(honest)
            what = names[0] if len(names) == 1 else "all attacks at once"
            report.p99_milliseconds[what] = honest.p99_milliseconds()
            for name, damage in done.items():
                before = report.damage.get(name, Damage(0, 0))
                report.damage[name] = Damage(*map(sum, zip(before, damage, strict=True)))


def _resent(honest: Honest) -> list[str]:
    """Only attacks may break off the connections of others."""
    return [f"{honest.resent} charges had to be sent again"] if honest.resent else []


async def _more_calls(honest: Honest) -> None:
    """Wait until each honest caller may have had an answer."""
    wanted = honest.calls + _CALLS_TO_SEE
    await until(lambda: honest.calls >= wanted or honest.problems, seconds=30)


async def _fuzz_as_strangers(plan: Plan, server: ServerProcess, url: str, report: Report) -> None:
    """Nobody who proves no credential gets any further, whatever is sent."""
    key = make_key(url)
    revoked = make_key(url)
    revoke(url, revoked.credential_id)
    async with grpc.aio.insecure_channel(server.address) as channel:
        methods = ours(await served(channel))
    async with _beside(server, report, "closed", key.text) as honest:
        of_strangers = _Strangers(revoked)
        report.strangers = await fuzz(
            server.address, methods, plan.requests_of_strangers, f"{plan.seed} out", of_strangers
        )
        reader = bearer(make_key(url, "default", Scope.READ))
        of_reader = await fuzz(
            server.address,
            methods,
            plan.requests_of_strangers // 4,
            f"{plan.seed} reader",
            lambda chance: reader,
        )
        report.p99_milliseconds["strangers"] = honest.p99_milliseconds()
        report.problems += _resent(honest)
    report.problems += [*report.strangers.problems, *of_reader.problems]
    further = {code: n for code, n in report.strangers.codes.items() if code not in _LET_OUT}
    if further:
        report.problems.append(f"strangers were answered {further}")
    if not of_reader.codes["PERMISSION_DENIED"] or not of_reader.codes["OK"]:
        report.problems.append(f"one who may only read was answered {of_reader.codes}")
    accounts = verify(url).accounts
    if accounts != len(honest.accounts):
        report.problems.append(f"{accounts} accounts, {len(honest.accounts)} of honest callers")
    report.strangers.plus(of_reader)


class _Strangers:
    """What strangers send for a credential: nothing, nonsense, or keys that are not valid."""

    def __init__(self, revoked: ApiKey) -> None:
        unknown = api_key_of(credential_id_of(b"nobody has"), b"this secret, of 32 bytes in all!")
        cut = revoked.text[:-1]
        texts = ("", "Bearer", "Bearer mh_", "Basic eA==", f"Bearer {cut}", "\x7e" * 200)
        self._known: list[Metadata] = [(("authorization", text),) for text in texts]
        self._known += [bearer(unknown), bearer(revoked), no_metadata(random.Random(0))]

    def __call__(self, chance: random.Random) -> Metadata:
        if chance.random() < 0.1:
            return tuple(pair for pair in odd_metadata(chance) if pair[0] != "authorization")
        return chance.choice(self._known)


@asynccontextmanager
async def _beside(
    server: ServerProcess, report: Report, name: str, api_key: str | None = None
) -> AsyncIterator[Honest]:
    """Honest callers, and in the end what they and the log have to say."""
    process_id = server.process_id
    honest: Honest
    async with honest_callers(server.address, name, api_key) as honest:
        await until(lambda: honest.calls >= len(honest.accounts) or honest.problems)
        yield honest
    report.honest_calls += honest.calls
    report.problems += honest.problems
    alive = psutil.pid_exists(process_id) and server.process_id == process_id
    report.restarts += not alive or not server.is_running
    report.transport_restarts += _count(server, "transport_ended")
    report.problems += [f"a bug: {event}" for event in server.events if _is_bug(event)]


def _of_traffic(traffic: Traffic, methods: Sequence[MethodDescriptor]) -> Iterator[str]:
    yield from traffic.problems
    found = traffic.accepted if traffic.wanted >= _ENOUGH_FOR_EACH else traffic.understood
    if missing := [str(m.full_name) for m in methods if not found[m.full_name]]:
        yield f"not a message got through to {', '.join(missing)}"


def _told_by(server: ServerProcess, honest: Honest) -> Iterator[str]:
    """What must not be in the log after nothing but calls in good order."""
    for event in server.events:
        if event.get("level") == "error" or event["event"] in ("transport_ended", "text"):
            yield f"in the log: {event}"
    yield from honest.problems


def _is_bug(event: dict[str, Any]) -> bool:
    return bool(event["event"] == "call_failed")


def _count(server: ServerProcess, event: str) -> int:
    return sum(each["event"] == event for each in server.events)


def _memory_mib(process: psutil.Process) -> int:
    return int(process.memory_info().rss // _MIB)


def _vacuous(report: Report) -> Iterator[str]:
    """Why it would prove little: too little was tried, or too much was in vain."""
    first, *_, last = [mib for when, mib in report.memory_mib.items() if "requests" in when]
    growth = last - first
    if growth > MEMORY_GROWTH_MIB_MAX:
        yield f"the server has grown by {growth} MiB"
    if report.restarts:
        yield f"{report.restarts} server processes ended"
    if report.traffic.mutants_accepted * 50 < report.traffic.sent:
        yield f"only {report.traffic.mutants_accepted} mutants were accepted"
    if not report.parsed.messages or not report.parsed.refused:
        yield "all mutants could be parsed, or none"
    yield from (f"never {name}" for name in MUTATIONS if not report.traffic.mutations[name])
    yield from (f"no damage by {n}" for n in ATTACKS if not report.damage[n].strokes)
    yield from ("an empty ledger" for each in report.verified if not each.entries)
    if not report.transport_restarts:
        yield "nobody brought gRPC to its end: is it right by itself now?"
