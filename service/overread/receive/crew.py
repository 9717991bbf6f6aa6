"""The porters, from the listener's side: connections are given to the one that has the fewest."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from overread.domain.events import Trouble
from overread.ports import Herald
from overread.receive.admission import Admission, Refusal
from overread.receive.clerk import Clerk
from overread.receive.porter import Batch, Question

_log = logging.getLogger(__name__)
STUCK_S = 120.0
STOP_S = 10.0
RESTART_S = 0.5

# Given the porter's end of the pipe and of the line that connections come on; runs ``porter.serve`` in the new process.
Body = Callable[..., None]


Judge = Callable[["_Porter", str, str, str, int], Refusal | None]


class Crew:
    """So many porters. ``body(connection, sockets, *arguments)`` is what each runs, and must be importable there."""

    def __init__(
        self, size: int, body: Body, arguments: tuple[Any, ...], *, admission: Admission, clerk: Clerk, herald: Herald
    ) -> None:
        self._admission = admission
        self._deciding = threading.Lock()
        self._porters = [
            _Porter(f"porter {n}", body, arguments, judge=self._judge, clerk=clerk, herald=herald) for n in range(size)
        ]
        self._turn = 0

    def start(self) -> None:
        """Start the processes, and keep them running."""
        for porter in self._porters:
            porter.start()

    def take(self, connection: socket.socket) -> None:
        """Give a connection away; it is closed here. Raises OSError when no porter can be reached."""
        with connection:
            self._turn += 1
            # Those that are as busy take turns.
            places = range(len(self._porters))
            order = sorted(places, key=lambda n: (self._porters[n].load, (n - self._turn) % len(places)))
            for place in order[:-1]:
                with contextlib.suppress(OSError):
                    return self._porters[place].give(connection)
            self._porters[order[-1]].give(connection)

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
        missing = sum(porter.process_id is None for porter in self._porters)
        return f"{missing} of {len(self._porters)} processes that serve associations are starting" if missing else None

    def stuck(self) -> list[str]:
        """A liveness check: names the porters that have been silent for two minutes."""
        return [porter.name for porter in self._porters if porter.stuck()]

    def _judge(self, asking: _Porter, calling_ae: str, called_ae: str, address: str, here: int) -> Refusal | None:
        with self._deciding:
            asking.associations = here
            everywhere = sum(porter.associations for porter in self._porters)
            refusal = self._admission.judge(calling_ae, called_ae, address, everywhere)
            asking.associations += refusal is None
            asking.silent = max(0, asking.silent - 1)
            return refusal


class _Porter:
    """One process, started again when it ends, and what is known of it."""

    def __init__(
        self, name: str, body: Body, arguments: tuple[Any, ...], *, judge: Judge, clerk: Clerk, herald: Herald
    ) -> None:
        self.name = name
        self.associations = 0
        self.silent = 0  # connections that have not asked to associate, as far as is known
        self._body, self._arguments = body, arguments
        self._judge, self._clerk, self._herald = judge, clerk, herald
        self._stopping = threading.Event()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._sockets: socket.socket | None = None
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._keep, name=self.name, daemon=True)

    def start(self) -> None:
        self._spawn()
        self._thread.start()

    @property
    def load(self) -> int:
        """How much it has to do."""
        return self.associations + self.silent

    def give(self, connection: socket.socket) -> None:
        """Hand a connection over; raises OSError when the porter is gone or takes none."""
        if self._sockets is None:
            raise ConnectionError
        socket.send_fds(self._sockets, [b"c"], [connection.fileno()])
        self.silent += 1

    def dismiss(self) -> None:
        """Ask it to end."""
        self._stopping.set()
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                self._pipe.send(None)

    def join(self) -> None:
        self._thread.join(2 * STOP_S)

    @property
    def process_id(self) -> int | None:
        """None between two."""
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def stuck(self) -> bool:
        return time.monotonic() - self._beat > STUCK_S or not self._thread.is_alive()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._sockets, porters = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        arguments = (theirs, porters, *self._arguments)
        self._process = context.Process(target=self._body, args=arguments, name=self.name, daemon=True)
        self._process.start()
        theirs.close()
        porters.close()

    def _keep(self) -> None:
        while True:
            try:
                self._listen()
            except Exception as error:
                # The edge of this thread: whatever ends a porter, the next one takes its place.
                self._herald(Trouble("receive", type(error).__name__))
            self._bury()
            if self._stopping.wait(RESTART_S):
                return
            self._spawn()

    def _listen(self) -> None:
        pipe = self._pipe
        assert pipe is not None
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                said = pipe.recv()
                self._beat = time.monotonic()
                if isinstance(said, Question):
                    pipe.send((said.number, self._judge(self, *said.details)))
                else:
                    self._told(said)

    def _told(self, said: Batch) -> None:
        self.associations, self.silent = said.associations, 0
        if said.receipts:
            self._clerk.forward(said.receipts)
        for event in said.events:
            self._herald(event)

    def _bury(self) -> None:
        """See it end, and forget it: what it had open has gone with it."""
        process, sockets, pipe = self._process, self._sockets, self._pipe
        self._process = self._sockets = self._pipe = None
        assert process is not None
        assert sockets is not None
        assert pipe is not None
        sockets.close()
        process.join(STOP_S if self._stopping.is_set() else 1.0)
        process.kill()
        process.join()
        pipe.close()
        self.associations = self.silent = 0
        if not self._stopping.is_set():
            _log.warning("%s ended with exit code %s; another takes its place", self.name, process.exitcode)
