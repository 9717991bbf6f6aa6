"""The ledger is written by a process of its own, so that no bookkeeping holds the interpreter that serves the network.

    listener ── batches of receipts ──▶ clerk: spool ↔ ledger
             ◀── events, how it stands ──

What does not reach the clerk is durable in the spool, and a clerk compares the two when it starts.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from overread.domain.events import Event, Trouble
from overread.ports import Herald
from overread.receive.gathering import BEAT_S, gather
from overread.receive.receipt import Receipt

MOST_WAITING = 20_000
STUCK_S = 600.0
RESTART_S = 2.0
STOP_S = 30.0
NICE = 5  # who acknowledges comes first: what is not in the ledger yet is safe in the spool
COMPARING = "the spool is being compared with the ledger, or the ledger is away"

# Given the end of a pipe; runs ``serve`` in the new process.
Body = Callable[..., None]


class Clerk:
    """The listener's side. ``body(connection, *arguments)`` is what the process runs, and must be importable there."""

    def __init__(self, body: Body, arguments: tuple[Any, ...], herald: Herald) -> None:
        self._body, self._arguments, self._herald = body, arguments, herald
        self._waiting: queue.SimpleQueue[Receipt | bytes | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._process: BaseProcess | None = None
        self._reason: str | None = COMPARING
        self._beat = time.monotonic()
        self._lost = False
        self._thread = threading.Thread(target=self._keep, name="clerk", daemon=True)

    def start(self) -> None:
        """Start the process, and keep it running."""
        self._thread.start()

    def add(self, receipt: Receipt) -> None:
        """An instance is durable and acknowledged; never blocks. What cannot wait is found in the spool again."""
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(receipt)
        else:
            self._lost = True
            self._herald(receipt.event())

    def forward(self, receipts: bytes) -> None:
        """As ``add``, for a pickled list of them, of which everybody else has been told."""
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(receipts)
        else:
            self._lost = True

    def stop(self) -> None:
        """Let it write what is left, and end."""
        self._stopping.set()
        self._waiting.put(None)
        self._thread.join(STOP_S + 5)

    @property
    def process_id(self) -> int | None:
        """Of the process that keeps the ledger at the moment; None between two."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def check(self) -> str | None:
        """A readiness check: does the ledger know all that lies in the spool, but for what is being written?"""
        return self._reason

    def stuck(self) -> list[str]:
        """A liveness check: names this thread, or the process when it has been silent for ten minutes."""
        silent = time.monotonic() - self._beat > STUCK_S
        return ["clerk"] if silent or not self._thread.is_alive() else []

    def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                self._serve_one()
            except Exception as error:
                # The edge of this thread: whatever ends a clerk, the next one starts with a comparison.
                self._herald(Trouble("receive", type(error).__name__))
            self._reason = COMPARING
            self._stopping.wait(RESTART_S)

    def _serve_one(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=self._body, args=(theirs, *self._arguments), name="clerk", daemon=True)
        process.start()
        self._process = process
        theirs.close()
        listening = threading.Thread(target=self._listen, args=(ours,), name="clerk-listener", daemon=True)
        listening.start()
        try:
            self._feed(ours, process)
        finally:
            with contextlib.suppress(OSError):
                ours.send(None)
            process.join(STOP_S if self._stopping.is_set() else 1.0)
            process.kill()
            process.join()
            listening.join()
            ours.close()

    def _feed(self, connection: Connection, process: Any) -> None:
        while process.is_alive():
            batch, ended = gather(self._waiting)
            receipts = [one for one in batch if isinstance(one, Receipt)]
            for receipt in receipts:  # told here, where no sender waits for it
                self._herald(receipt.event())
            for pickled in [one for one in batch if isinstance(one, bytes)]:
                connection.send_bytes(pickled)
            if receipts:
                connection.send(receipts)
            if self._lost and self._waiting.empty():
                self._lost = False
                connection.send("compare")
            if ended:
                return

    def _listen(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                said = connection.recv()
                self._beat = time.monotonic()
                if isinstance(said, Event):
                    self._herald(said)
                else:
                    self._reason = said


class Line:
    """The clerk's side of the pipe, for several threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, said: Event | str | None) -> None:
        """Tell the listener an event, or how it stands; nothing when it has gone."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.send(said)

    def hear(self) -> Any:
        """The next that the listener says; None at the end."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            return None


def serve(line: Line, indexer: Any) -> None:
    """The clerk's side: until the listener says so or goes away. ``indexer`` is given what comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the listener ends it, when all is written
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICE)
    ended = threading.Event()
    reporting = threading.Thread(target=_report, args=(line, indexer, ended), name="report", daemon=True)
    indexer.start()
    reporting.start()
    while (said := line.hear()) is not None:
        if said == "compare":
            indexer.compare()
        else:
            for receipt in said:
                indexer.add(receipt.arrival())
    indexer.stop()
    ended.set()
    reporting.join()


def _report(line: Line, indexer: Any, ended: threading.Event) -> None:
    reason: str | None = COMPARING
    while not ended.wait(0.05 if reason else BEAT_S):
        if not indexer.stuck():  # silence is how the listener learns of it
            reason = indexer.check()
            line.say(reason)
