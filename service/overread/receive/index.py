"""From the spool to the ledger: batches while instances come, and a comparison of both whenever some may be missing."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from overread.domain.events import Trouble
from overread.ledger import Ledger
from overread.ledger.arrivals import Arrival
from overread.ports import Herald
from overread.receive.entries import enter
from overread.receive.survey import Survey, compare, reconcile
from overread.spool import Spool

T = TypeVar("T")

BATCH = 500
ENOUGH = 100
LINGER_S = 0.02
MOST_WAITING = 20_000
RETRY_S = 2.0
STUCK_S = 600.0

COMPARING = "the spool is being compared with the ledger, or the ledger is away"
BEHIND = "more came than could wait for the ledger; the spool is compared with it again when it answers"


class Lobby:
    """Arrivals that wait to be written, at most ``MOST_WAITING``. What comes beyond that is forgotten, for it lies in
    the spool, and ``surplus`` says so."""

    def __init__(self) -> None:
        self._waiting: deque[Arrival] = deque()
        self._turn = threading.Condition()
        self._closed = False
        self.surplus = False

    def add(self, arrival: Arrival) -> None:
        """Wait here; never blocks."""
        with self._turn:
            if len(self._waiting) >= MOST_WAITING:
                self.surplus = True
                return
            self._waiting.append(arrival)
            # Whoever takes is woken by the first, and by enough of them: not by each.
            if len(self._waiting) in (1, ENOUGH):
                self._turn.notify()

    def close(self) -> None:
        """Nobody waits for company any more."""
        with self._turn:
            self._closed = True
            self._turn.notify()

    def take(self, patience_s: float) -> list[Arrival]:
        """The next batch, oldest first; empty when nothing has come for so many seconds, or never will.

        The first of a batch waits a moment for others, so that under load commits are few and large.
        """
        with self._turn:
            if self._turn.wait_for(lambda: self._waiting or self._closed or self.surplus, patience_s):
                self._turn.wait_for(lambda: len(self._waiting) >= ENOUGH or self._closed, LINGER_S)
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def put_back(self, batch: list[Arrival]) -> None:
        """Wait again, before the others: these could not be written."""
        with self._turn:
            self._waiting.extendleft(reversed(batch))

    def miss(self) -> None:
        """Something did not come as far as here; it lies in the spool."""
        with self._turn:
            self.surplus = True
            self._turn.notify()

    def forget_surplus(self) -> None:
        """From now on ``surplus`` speaks of what comes later."""
        with self._turn:
            self.surplus = False

    def paths(self) -> set[str]:
        """Where the bytes of those that wait lie."""
        with self._turn:
            return {arrival.instance.path for arrival in self._waiting}


class _Stopping(Exception):
    """The service ends in the middle of a comparison."""


class Indexer:
    """Writes arrivals to the ledger in the background, one transaction for all that came meanwhile.

    What is not written when the process dies, or could not wait while the database was away, is found again in the
    spool, so that the ledger never holds up an acknowledgement.
    """

    def __init__(self, spool: Spool, open_ledger: Callable[[], Ledger], herald: Herald) -> None:
        self._spool = spool
        self._open = open_ledger
        self._herald = herald
        self._lobby = Lobby()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
        self._stopping = threading.Event()
        self.ready = threading.Event()
        self.beat = time.monotonic()

    def start(self) -> None:
        """Begin with the comparison, then follow what comes."""
        self._thread.start()

    def add(self, arrival: Arrival) -> None:
        """An instance is durable and acknowledged; never blocks."""
        self._lobby.add(arrival)

    def compare(self) -> None:
        """Somebody knows of arrivals that did not come: compare spool and ledger again."""
        self._lobby.miss()

    def stop(self) -> None:
        """Write what is left and end; what a ledger that is away does not take now is found at the next start."""
        self._stopping.set()
        self._lobby.close()
        self._thread.join(30)

    def check(self) -> str | None:
        """A readiness check: does the ledger know all that lies in the spool, but for what is being written?"""
        if self._lobby.surplus:
            return BEHIND
        return None if self.ready.is_set() else COMPARING

    def stuck(self) -> list[str]:
        """A liveness check: names this thread when it has not turned for ten minutes."""
        return ["indexer"] if time.monotonic() - self.beat > STUCK_S or not self._thread.is_alive() else []

    def _run(self) -> None:
        ledger = self._patiently(self._open)
        if ledger is None:
            return
        if self._patiently(lambda: self._catch_up(ledger)):
            self._follow(ledger)
        ledger.close()

    def _follow(self, ledger: Ledger) -> None:
        while True:
            self.beat = time.monotonic()
            batch = self._lobby.take(patience_s=5)
            if not batch and self._stopping.is_set():
                return
            if batch and not self._patiently(lambda batch=batch: self._enter(ledger, batch)):  # type: ignore[misc]
                return
            # While the service ends there is no time for a comparison: the next start makes one anyway.
            behind = self._lobby.surplus and not self._stopping.is_set()
            if behind and not self._patiently(lambda: self._catch_up(ledger)):
                return

    def _enter(self, ledger: Ledger, batch: list[Arrival]) -> bool:
        enter(ledger, batch, self._herald)
        return True

    def _catch_up(self, ledger: Ledger) -> bool:
        """Compare spool and ledger. Always True; ``ready`` stays unset when the service ends in the middle of it."""
        self.ready.clear()
        self._lobby.forget_surplus()  # before the spool is listed: what is forgotten from now on may not be in the list
        try:
            reconcile(self._spool, ledger, self._herald, lambda: self._breathe(ledger))
            self.ready.set()
        except _Stopping:
            pass  # what waits is still to be written
        return True

    def _breathe(self, ledger: Ledger) -> set[str]:
        """During a comparison: what comes is written all the same, or it would be forgotten again."""
        self.beat = time.monotonic()
        if self._stopping.is_set():
            raise _Stopping
        batch = self._lobby.take(patience_s=0)
        while batch:
            try:
                enter(ledger, batch, self._herald)
            except Exception:
                self._lobby.put_back(batch)
                raise
            batch = self._lobby.take(patience_s=0) if len(batch) == BATCH else []
        return self._lobby.paths()

    def _patiently(self, work: Callable[[], T]) -> T | None:
        while True:
            try:
                return work()
            except Exception as error:
                # The edge of this thread: whatever the database throws, arrivals wait here and acknowledged bytes are
                # safe in the spool; giving up would leave them unseen until the next start.
                self._herald(Trouble("receive", type(error).__name__))
                self.beat = time.monotonic()
                if self._stopping.wait(RETRY_S):
                    return None


__all__ = ["Indexer", "Survey", "compare", "reconcile"]
