"""A process that serves associations: connections come in at one end, what was stored goes out at the other.

An interpreter can turn one state machine at a time, so associations are spread over several processes. Each has the
whole way from the wire to the disk. Who comes in was decided by the process that listens, which counts for all of them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler, recv_handle
from typing import Any, NamedTuple

from overread.domain.events import Event
from overread.receive.admission import Knock, Pass, Refusal
from overread.receive.associations import Associations
from overread.receive.gathering import gather
from overread.receive.receipt import Receipt

LAST_WORDS_S = 10.0


class Guest(NamedTuple):
    """A connection that was let in; its descriptor follows."""

    address: Any
    request: bytes
    admitted: Pass
    knock: Knock


class MakeWay(NamedTuple):
    """One that is idle should go, of ``peer`` if named."""

    peer: str


class Allowance(NamedTuple):
    """Whether the peer of a pass may store more today."""

    pass_id: int
    left: bool


class Left(NamedTuple):
    """An association has ended."""

    pass_id: int


class Spent(NamedTuple):
    """So many bytes came."""

    pass_id: int
    size_bytes: int


class Batch(NamedTuple):
    """What a porter says now and then: receipts, pickled for the clerk, and what happened meanwhile."""

    receipts: bytes
    happened: list[Event | Left | Spent]


class Post:
    """The porter's side of the pipe: all that it says goes out in batches. It is the porter's ``Gate``, too."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outgoing: queue.SimpleQueue[Receipt | Event | Left | Spent | None] = queue.SimpleQueue()
        self._exhausted: set[int] = set()
        self._thread: threading.Thread | None = None

    def start(self, tidy: Callable[[], None]) -> None:
        """Begin to send; ``tidy`` is called at least once a second."""
        self._thread = threading.Thread(target=self._deliver, args=(tidy,), name="post", daemon=True)
        self._thread.start()

    def put(self, said: Receipt | Event | Left | Spent) -> None:
        """To be told soon; never blocks."""
        self._outgoing.put(said)

    def enter(self, knock: Knock) -> Pass | Refusal:
        """Who comes in is decided before it comes here; raises RuntimeError."""
        raise RuntimeError(f"a porter lets nobody in, not {knock.calling_ae}")

    def leave(self, pass_id: int) -> None:
        """An association has ended."""
        self._exhausted.discard(pass_id)
        self.put(Left(pass_id))

    def spend(self, pass_id: int, size_bytes: int) -> bool:
        """Count bytes; False when the listening process has said that its peer has had all for today."""
        self.put(Spent(pass_id, size_bytes))
        return pass_id not in self._exhausted

    def allow(self, allowance: Allowance) -> None:
        """The listening process has counted."""
        (self._exhausted.discard if allowance.left else self._exhausted.add)(allowance.pass_id)

    def close(self) -> None:
        """Send what is left."""
        self._outgoing.put(None)
        if self._thread is not None:
            self._thread.join(LAST_WORDS_S)

    def _deliver(self, tidy: Callable[[], None]) -> None:
        ended = False
        with contextlib.suppress(OSError):  # the listening process has gone, and this one with it
            while not ended:
                said, ended = gather(self._outgoing)
                receipts = [s for s in said if isinstance(s, Receipt)]
                pickled = bytes(ForkingPickler.dumps(receipts)) if receipts else b""
                self._connection.send(Batch(pickled, [s.event() if isinstance(s, Receipt) else s for s in said]))
                tidy()


def serve(
    connection: Connection, post: Post, associations: Associations, last: Callable[[], None] | None = None
) -> None:
    """The porter's main thread: until the process that listens says so or goes away. ``last`` is called at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is told to end, when all is told
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    post.start(associations.sweep)
    try:
        while (said := connection.recv()) is not None:
            if isinstance(said, Guest):
                wire = socket.socket(fileno=recv_handle(connection))
                associations.welcome(wire, *said)
            elif isinstance(said, MakeWay):
                associations.make_way(said.peer)
            else:
                post.allow(said)
    except (EOFError, OSError):
        os._exit(1)  # nobody counts any more, and whoever comes next clears incoming/
    associations.stop()
    if last is not None:
        last()
    post.close()
