"""Callers that share accounts and holds, give up waiting, and ask again under the same key."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from meterhold_server.prove.history import Attempt, Call, Method, Told
from meterhold_server.prove.load import POISONED, Load
from simulation.asking import record
from simulation.network import Network
from simulation.plan import Plan
from simulation.process import Process
from simulation.scheduler import Scheduler, Step

ATTEMPTS_MAX: Final = 3
UNCERTAIN: Final = (Told.UNKNOWN, Told.NOT_DONE)

Talk = Generator[Any, None, None]
"""What a client does. It yields how many seconds it waits, or what it has sent and waits for."""


class Sent:
    """A message that is waited for, until its timeout."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.done = False
        self.resume: Callable[[], None] = lambda: None


class Clients:
    """All callers of a run, and the calls they have made."""

    def __init__(
        self,
        scheduler: Scheduler,
        network: Network,
        plan: Plan,
        choose_process: Callable[[], Process | None],
    ) -> None:
        self.calls: list[Call] = []
        self.working = plan.clients
        self.broken: list[Call] = []
        self._scheduler = scheduler
        self._network = network
        self._plan = plan
        self._choose_process = choose_process
        accounts = [f"account-{number}" for number in range(plan.accounts)]
        self._load = Load(
            scheduler.random, accounts, chains=plan.chains, refunds=plan.refunds, poison=True
        )

    def start(self) -> None:
        for number in range(self._plan.clients):
            self._go_on(self._client(number))

    def resolve(self) -> None:
        """Ask again for all that is not certain, one after the other."""
        self.working = 1
        self._go_on(self._resolver())

    def _go_on(self, talk: Talk) -> None:
        """Take the next step of a client."""
        try:
            waits = next(talk)
        except StopIteration:
            self.working -= 1
            return
        if isinstance(waits, Sent):
            alarm = self._scheduler.after(waits.seconds, lambda: self._wake(talk, waits, None))
            waits.resume = lambda: self._wake(talk, waits, alarm)
        else:
            self._scheduler.after(waits, lambda: self._go_on(talk))

    def _wake(self, talk: Talk, sent: Sent, alarm: Step | None) -> None:
        if not sent.done:
            sent.done = True
            if alarm is not None:
                alarm.cancel()
            self._go_on(talk)

    def _client(self, number: int) -> Talk:
        """Work until there are enough calls."""
        chance = self._scheduler.random
        while len(self.calls) < self._plan.operations:
            calls = self._load.next()
            self.calls += calls
            yield from self._make(calls)
            self._load.learn(calls)
            if chance.random() < 0.05 and all(call.key for call in calls):
                # Somebody does not know that it was done, and asks again.
                yield from self._ask(calls)
            if chance.random() < 0.3:
                yield chance.expovariate(1 / (4 * self._plan.latency_seconds))

    def _make(self, calls: Sequence[Call]) -> Talk:
        """Ask until there is an answer for each, a few times."""
        wanted = list(calls)
        for attempt in range(ATTEMPTS_MAX):
            yield from self._ask(wanted)
            left = [call for call in wanted if call.attempts[-1].told in UNCERTAIN]
            if not left or not _may_ask_again(left):
                return
            # A chain is asked for as a whole.
            wanted = wanted if wanted[0].chain else left
            yield self._scheduler.random.uniform(0, 0.02) * 2**attempt

    def _ask(self, calls: Sequence[Call]) -> Talk:
        scheduler = self._scheduler
        process = self._choose_process()
        attempts = [Attempt(scheduler.now) for _ in calls]
        for call, attempt in zip(calls, attempts, strict=True):
            call.attempts.append(attempt)
        if process is None:
            # Nobody listens.
            yield 0.05
            for attempt in attempts:
                attempt.told, attempt.return_time = Told.NOT_DONE, scheduler.now
            return
        sent = Sent(self._network.timeout_seconds)

        def reply(told: list[Any]) -> None:
            if sent.done:
                return
            for call, attempt, each in zip(calls, attempts, told, strict=True):
                record(attempt, call, scheduler.now, each)
                scheduler.note(call.name, attempt.told, attempt.answer, attempt.refusal)
            sent.resume()

        call_off = self._network.send(process, calls, reply)
        yield sent
        if any(attempt.return_time > scheduler.now for attempt in attempts):
            call_off()

    def _resolver(self) -> Talk:
        """With nothing in its way, ask until each call has a certain answer."""
        for calls in self._uncertain():
            for _ in range(20):
                yield from self._ask(calls)
                if all(call.attempts[-1].told not in UNCERTAIN for call in calls):
                    break
                yield 0.2
            else:
                self.broken += calls

    def _uncertain(self) -> list[list[Call]]:
        """What may or may not have been done, chains as a whole."""
        found: dict[str, list[Call]] = {}
        for call in self.calls:
            if not is_certain(call) and _may_ask_again([call]):
                found.setdefault(call.chain or call.name, []).append(call)
        chains = {call.chain for calls in found.values() for call in calls if call.chain}
        for name in chains:
            found[name] = [call for call in self.calls if call.chain == name]
        return list(found.values())


def is_certain(call: Call) -> bool:
    """Whether it is known what became of a call: later attempts cannot land before earlier ones."""
    return call.done_time < float("inf") or call.certain_not_done


def _may_ask_again(calls: Sequence[Call]) -> bool:
    """Whether asking twice does it once. Poison is not asked for again: it never gets done."""
    return all(
        (call.key or call.method is not Method.DEBIT) and not call.name.startswith(POISONED)
        for call in calls
    )
