"""The outbox: each destination has threads, a queue, patience and a circuit breaker of its own, and delays no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from overread.deliver.patience import Patience, next_try
from overread.deliver.round import AT_ONCE, Round, Terms
from overread.domain.errors import Rejected, Unreachable
from overread.domain.events import DestinationTurned, JobMoved, Trouble
from overread.domain.job import JobState
from overread.ledger import Ledger, deliveries, destinations
from overread.ledger.destinations import Stand
from overread.ports import Destination, Herald

IDLE_S = 0.5
STUCK_S = 900.0
STOP_S = 5.0
_log = logging.getLogger(__name__)

__all__ = ["Outbox", "Patience", "Terms", "settle"]


class Outbox:
    """One destination's queue, worked on by ``concurrency`` threads; what it holds lies in the ledger.

    ``terms.worker`` names this process; its threads claim under names that begin with it.
    """

    def __init__(
        self,
        ledger: Ledger,
        destination: Destination,
        terms: Terms,
        absolute: Callable[[str], Path],
        herald: Herald,
        *,
        concurrency: int = 1,
    ) -> None:
        self._ledger, self._destination, self._patience, self._herald = ledger, destination, terms.patience, herald
        self._rng = Random()
        self._worker = f"{terms.worker}#{destination.name}#"
        self._rounds = [
            Round(ledger, destination, replace(terms, worker=f"{self._worker}{n}"), absolute, herald)
            for n in range(concurrency)
        ]
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._beats: dict[str, float] = {}

    @property
    def name(self) -> str:
        return self._destination.name

    def start(self) -> None:
        """Give back what this process held before it was started again, then begin to work."""
        deliveries.release(self._ledger, self._worker)
        for number, one in enumerate(self._rounds):
            name = f"deliver {self.name} {number}"
            self._beats[name] = time.monotonic()
            thread = threading.Thread(target=self._run, args=(name, one), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Begin nothing more; what is under way is waited for a little, then left to whoever comes next."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(STOP_S)
        close = getattr(self._destination, "close", None)
        if close is not None and not any(t.is_alive() for t in self._threads):
            close()

    def stuck(self) -> list[str]:
        """Threads that have not come round for a quarter of an hour."""
        return [name for name, beat in self._beats.items() if time.monotonic() - beat > STUCK_S]

    def work(self) -> int:
        """One turn of one thread; returns how many deliveries were told of."""
        return self._turn(self._rounds[0])

    def _run(self, name: str, one: Round) -> None:
        while not self._stopping.is_set():
            self._beats[name] = time.monotonic()
            try:
                worked = self._turn(one)
            except Exception as error:
                # The edge of this thread: the ledger may be away for a while, and what is claimed comes back when its
                # lease ends; the next turn starts from what the ledger says.
                self._herald(Trouble("deliver", type(error).__name__))
                _log.exception("a turn of %s failed", name)
                worked = 0
            if not worked:
                self._rest()
                self._stopping.wait(IDLE_S)

    def _rest(self) -> None:
        rest = getattr(self._destination, "rest", None)
        if rest is not None:
            rest()

    def _turn(self, one: Round) -> int:
        stand = destinations.stand(self._ledger, self.name)
        if stand.is_open:
            return self._probe(stand)
        told = 0
        for work in (one.send, one.prove):
            if self._stopping.is_set():
                break
            try:
                # One that has just failed is offered a little, before it is offered much.
                done = work(1 if stand.failures else AT_ONCE)
            except Unreachable as error:
                self._failed(stand, str(error))
                return told
            told += done
            if done and stand.failures:
                destinations.answered(self._ledger, self.name, time.time(), took=True)
                stand = destinations.stand(self._ledger, self.name)
        return told

    def _probe(self, stand: Stand) -> int:
        now, hold_s = time.time(), 2 * self._patience.first_s
        if stand.probe_at > now or not destinations.take_probe(self._ledger, self.name, now, hold_s):
            return 0
        try:
            self._destination.check()
        except Unreachable as error:
            self._failed(stand, str(error))
            before = time.time() - self._patience.give_up_after_s
            days = self._patience.give_up_after_s / 86400
            destinations.expire(self._ledger, self.name, before, f"given up after {days:.3g} days: {error}")
            return 0
        except Rejected:
            _log.debug("%s is there, though it does not verify", self.name)
        if destinations.answered(self._ledger, self.name, time.time(), took=False):
            self._herald(DestinationTurned(self.name, False, "it answers again"))
        return 1

    def _failed(self, stand: Stand, reason: str) -> None:
        beyond = stand.failures + 2 - self._patience.opens_after
        wait = next_try(max(1, beyond), self._patience.first_s, self._patience.longest_s, self._rng)
        now = time.time()
        after = self._patience.opens_after
        if destinations.failed(self._ledger, self.name, reason, now, opens_after=after, probe_at=now + wait):
            self._herald(DestinationTurned(self.name, True, reason))


def settle(ledger: Ledger, herald: Herald) -> None:
    """End the jobs whose deliveries have all ended."""
    for moved in deliveries.settle(ledger):
        why = "arrived at every destination" if moved.after is JobState.COMPLETED else "a destination refused"
        herald(JobMoved(moved.job.id, moved.job.model, moved.job.study_uid, moved.before, moved.after, why))
