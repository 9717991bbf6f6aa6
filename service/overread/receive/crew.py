"""The porters, from the listening process's side: connections are given to the one that has the fewest."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import queue
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import Any

from overread.domain.events import Trouble
from overread.ports import Herald
from overread.receive.admission import Admission, Knock, Pass
from overread.receive.clerk import Clerk
from overread.receive.porter import Allowance, Batch, Guest, Left, MakeWay, Spent

_log = logging.getLogger(__name__)
STUCK_S = 120.0
STOP_S = 10.0
RESTART_S = 0.5
ASK_S = 0.1

# Given the porter's end of the pipe; runs ``porter.serve`` in the new process.
Body = Callable[..., None]


class Crew:
    """So many porters. ``body(connection, *arguments)`` is what each runs, and must be importable there."""

    def __init__(
        self, size: int, body: Body, arguments: tuple[Any, ...], *, admission: Admission, clerk: Clerk, herald: Herald
    ) -> None:
        self._porters = [
            _Porter(f"porter {n}", body, arguments, admission=admission, clerk=clerk, herald=herald)
            for n in range(size)
        ]
        self._turn = 0
        self._asked = 0.0

    def __len__(self) -> int:
        """How many associations are open."""
        return sum(porter.load for porter in self._porters)

    def start(self) -> None:
        """Start the processes, and keep them running."""
        for porter in self._porters:
            porter.start()

    def welcome(self, wire: socket.socket, address: Any, request: bytes, admitted: Pass, knock: Knock) -> None:
        """Give a connection to a porter. Never raises, never blocks."""
        self._turn += 1
        size = len(self._porters)
        # Those that have as many take turns; one that is gone takes none while another runs.
        porters = [self._porters[(self._turn + n) % size] for n in range(size)]
        least = min(porters, key=lambda porter: (not porter.runs, porter.load))
        least.give(wire, Guest(address, request, admitted, knock))

    def make_way(self, peer: str) -> None:
        """Ask one porter after the other to end what is idle there, of ``peer`` if named; not too often."""
        now = time.monotonic()
        if now - self._asked < ASK_S:
            return
        self._asked, self._turn = now, self._turn + 1
        self._porters[self._turn % len(self._porters)].tell(MakeWay(peer))

    def stop(self) -> None:
        """Abort what is open, and let them tell the rest."""
        for porter in self._porters:
            porter.dismiss()
        for porter in self._porters:
            porter.join()

    @property
    def process_ids(self) -> list[int]:
        """Of the porters that run."""
        return [porter.process_id for porter in self._porters if porter.process_id is not None]

    def check(self) -> str | None:
        """A readiness check: does every porter run?"""
        missing = sum(not porter.runs for porter in self._porters)
        return f"{missing} of {len(self._porters)} processes that serve associations are starting" if missing else None

    def stuck(self) -> list[str]:
        """A liveness check: names the porters that have been silent for two minutes."""
        return [porter.name for porter in self._porters if porter.stuck()]


class _Porter:
    """One process, started again when it ends, and the passes of those that it serves."""

    def __init__(
        self, name: str, body: Body, arguments: tuple[Any, ...], *, admission: Admission, clerk: Clerk, herald: Herald
    ) -> None:
        self.name = name
        self._body, self._arguments = body, arguments
        self._admission, self._clerk, self._herald = admission, clerk, herald
        self._passes: set[int] = set()
        self._counting = threading.Lock()
        self._stopping = threading.Event()
        self._process: BaseProcess | None = None
        self._orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name=self.name, daemon=True)

    @property
    def load(self) -> int:
        """How many it serves, or will in a moment."""
        return len(self._passes)

    @property
    def process_id(self) -> int | None:
        """None between two."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    @property
    def runs(self) -> bool:
        return self.process_id is not None

    def start(self) -> None:
        self._thread.start()

    def give(self, wire: socket.socket, guest: Guest) -> None:
        with self._counting:
            self._passes.add(guest.admitted.id)
        self._orders.put((wire, guest))

    def tell(self, order: MakeWay | Allowance) -> None:
        self._orders.put(order)

    def dismiss(self) -> None:
        """Ask it to end."""
        self._stopping.set()
        self._orders.put(None)

    def join(self) -> None:
        self._thread.join(2 * STOP_S)

    def stuck(self) -> bool:
        return time.monotonic() - self._beat > STUCK_S or not self._thread.is_alive()

    def _keep(self) -> None:
        while True:
            try:
                self._serve_one()
            except Exception as error:
                # The edge of this thread: whatever ends a porter, the next one takes its place.
                self._herald(Trouble("receive", type(error).__name__))
            if self._stopping.wait(RESTART_S):
                return

    def _serve_one(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=self._body, args=(theirs, *self._arguments), name=self.name, daemon=True)
        process.start()
        self._process, self._beat = process, time.monotonic()
        theirs.close()
        ordering = threading.Thread(target=self._order, args=(ours, process), name=f"{self.name} orders", daemon=True)
        ordering.start()
        try:
            with contextlib.suppress(EOFError, ConnectionError):
                while True:
                    self._told(ours.recv())
        finally:
            process.join(STOP_S if self._stopping.is_set() else 1.0)
            process.kill()
            process.join()
            self._orders.put(None)
            ordering.join()
            ours.close()
            self._forget_all()
        if not self._stopping.is_set():
            _log.warning("%s ended with exit code %s; another takes its place", self.name, process.exitcode)

    def _order(self, pipe: Connection, process: BaseProcess) -> None:
        while (order := self._orders.get()) is not None:
            wire, said = order if isinstance(order[0], socket.socket) else (None, order)
            try:
                pipe.send(said)
                if wire is not None:
                    send_handle(pipe, wire.fileno(), process.pid)
            except OSError:  # it has gone: so have those that it served, and this one with them
                if wire is not None:
                    self._left(said.admitted.id)
            if wire is not None:
                wire.close()
        with contextlib.suppress(OSError):
            pipe.send(None)

    def _told(self, said: Batch) -> None:
        self._beat = time.monotonic()
        if said.receipts:
            self._clerk.forward(said.receipts)
        for one in said.happened:
            if isinstance(one, Left):
                self._left(one.pass_id)
            elif isinstance(one, Spent):
                self.tell(Allowance(one.pass_id, self._admission.spend(one.pass_id, one.size_bytes)))
            else:
                self._herald(one)

    def _left(self, pass_id: int) -> None:
        with self._counting:
            self._passes.discard(pass_id)
        self._admission.leave(pass_id)

    def _forget_all(self) -> None:
        """Those that it served have gone with it."""
        for pass_id in list(self._passes):
            self._left(pass_id)
