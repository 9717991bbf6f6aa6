"""From the spool to the ledger: batches while instances come, and a comparison of both at start."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from overread.domain.errors import Refused
from overread.domain.events import Trouble
from overread.ledger import Ledger, arrivals
from overread.ledger.arrivals import Arrival
from overread.ports import Herald
from overread.spool import Spool
from overread.spool.files import dataset_digest
from overread.spool.header import read_file

T = TypeVar("T")

BATCH = 500
RETRY_S = 2.0
STUCK_S = 600.0


class Indexer:
    """Writes arrivals to the ledger in the background, one transaction for all that came meanwhile.

    What is not written when the process dies is found again in the spool at the next start, so that the ledger never
    holds up an acknowledgement.
    """

    def __init__(self, spool: Spool, open_ledger: Callable[[], Ledger], herald: Herald) -> None:
        self._spool = spool
        self._open = open_ledger
        self._herald = herald
        self._queue: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)
        self._stopping = threading.Event()
        self.ready = threading.Event()
        self.beat = time.monotonic()

    def start(self) -> None:
        """Begin with the comparison, then follow what comes."""
        self._thread.start()

    def add(self, arrival: Arrival) -> None:
        """An instance is durable and acknowledged; never blocks."""
        self._queue.put(arrival)

    def stop(self) -> None:
        """Write what is left and end; what a ledger that is away does not take now is found at the next start."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join(30)

    def check(self) -> str | None:
        """A readiness check: has the comparison of spool and ledger been made?"""
        return None if self.ready.is_set() else "the spool is being compared with the ledger, or the ledger is away"

    def stuck(self) -> list[str]:
        """A liveness check: names this thread when it has not turned for ten minutes."""
        return ["indexer"] if time.monotonic() - self.beat > STUCK_S or not self._thread.is_alive() else []

    def _run(self) -> None:
        ledger = self._patiently(self._open)
        if ledger is None:
            return
        if self._patiently(lambda: reconcile(self._spool, ledger, self._herald)) is not None:
            self.ready.set()
            while batch := self._next_batch():
                self._patiently(lambda batch=batch: _record(ledger, batch, self._herald))  # type: ignore[misc]
        ledger.close()

    def _next_batch(self) -> list[Arrival]:
        batch: list[Arrival] = []
        while not batch:
            self.beat = time.monotonic()
            try:
                first = self._queue.get(timeout=5)
            except queue.Empty:
                continue
            if first is None:
                return []
            batch.append(first)
        while len(batch) < BATCH and not self._queue.empty():
            following = self._queue.get()
            if following is None:
                self._queue.put(None)
                break
            batch.append(following)
        return batch

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


def _record(ledger: Ledger, batch: Sequence[Arrival], herald: Herald) -> int:
    try:
        return arrivals.record(ledger, batch)
    except Refused as error:
        # A value that the database does not take must not hold up what came with it, nor what comes after.
        if len(batch) > 1:
            return sum(_record(ledger, [arrival], herald) for arrival in batch)
        herald(Trouble("receive", type(error).__name__))
        return 0


def reconcile(spool: Spool, ledger: Ledger, herald: Herald) -> int:
    """Tell the ledger of files that it does not know; returns how many there were."""
    known = arrivals.known_paths(ledger)
    found = 0
    batch: list[Arrival] = []
    for path in spool.instance_paths():
        if path in known:
            continue
        arrival = _arrival(spool, path, herald)
        if arrival is not None:
            batch.append(arrival)
            found += 1
        if len(batch) >= BATCH:
            _record(ledger, batch, herald)
            batch = []
    if batch:
        _record(ledger, batch, herald)
    return found


def _arrival(spool: Spool, path: str, herald: Herald) -> Arrival | None:
    file = spool.absolute(path)
    try:
        instance = replace(read_file(file), path=path, digest=dataset_digest(file))
        stat = file.stat()
    except (Refused, OSError) as error:
        herald(Trouble("receive", type(error).__name__))
        return None
    # When it came, not when it was found: of two contents under one UID the later one stays the current one.
    return Arrival(instance, stat.st_size, stat.st_mtime, found=True)
