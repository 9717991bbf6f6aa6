"""A process that serves associations: connections come in at one end, what was stored goes out at the other.

The listener's interpreter can turn one state machine at a time, so associations are spread over several processes. Each
has the whole way from the wire to the disk. Who may come in is asked of the listener, which counts for all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import socket
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

from overread.domain.events import Event
from overread.receive.admission import CONGESTED, Refusal
from overread.receive.gathering import gather
from overread.receive.listener import Listener
from overread.receive.receipt import Receipt

ANSWER_S = 10.0


class Batch(NamedTuple):
    """What a porter says now and then: receipts, pickled for the clerk, the events of the meantime, what is open."""

    receipts: bytes
    events: list[Event]
    associations: int


class Question(NamedTuple):
    """May this one come in? The answer comes back under the number; ``details`` are those of ``Admission.judge``."""

    number: int
    details: tuple[Any, ...]


class Post:
    """The porter's side of the pipe: questions that wait for their answer, and all else in batches."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._outgoing: queue.SimpleQueue[Receipt | Event | None] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._waiting: dict[int, queue.SimpleQueue[Any]] = {}
        self._thread: threading.Thread | None = None

    def start(self, associations: Callable[[], int]) -> None:
        """Begin to send; ``associations`` says how many are open."""
        self._thread = threading.Thread(target=self._deliver, args=(associations,), name="post", daemon=True)
        self._thread.start()

    def put(self, said: Receipt | Event) -> None:
        """To be told soon; never blocks."""
        self._outgoing.put(said)

    def ask(self, *details: Any) -> Any:
        """The listener's answer; raises OSError or queue.Empty when it gives none."""
        question = Question(next(self._numbers), details)
        answer = self._waiting[question.number] = queue.SimpleQueue()
        try:
            self._send(question)
            return answer.get(timeout=ANSWER_S)
        finally:
            del self._waiting[question.number]

    def answered(self, number: int, answer: Any) -> None:
        """The listener has answered; nobody may wait for it any more."""
        waiting = self._waiting.get(number)
        if waiting is not None:
            waiting.put(answer)

    def close(self) -> None:
        """Send what is left."""
        self._outgoing.put(None)
        if self._thread is not None:
            self._thread.join(ANSWER_S)

    def _send(self, said: Question | Batch) -> None:
        with self._sending:
            self._connection.send(said)

    def _deliver(self, associations: Callable[[], int]) -> None:
        ended = False
        with contextlib.suppress(OSError):  # the listener has gone, and this process with it
            while not ended:
                said, ended = gather(self._outgoing)
                receipts = [s for s in said if isinstance(s, Receipt)]
                pickled = bytes(ForkingPickler.dumps(receipts)) if receipts else b""
                events = [s.event() if isinstance(s, Receipt) else s for s in said]
                self._send(Batch(pickled, events, associations()))


class AskingAdmission:
    """``Admission`` as a porter has it: the listener decides."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def judge(self, calling_ae: str, called_ae: str, address: str, associations: int) -> Refusal | None:
        """As ``Admission.judge``; congested when no answer comes. ``associations`` are those of this porter."""
        try:
            refusal: Refusal | None = self._post.ask(calling_ae, called_ae, address, associations)
        except (OSError, queue.Empty):
            return CONGESTED
        return refusal


def serve(connection: Connection, sockets: socket.socket, post: Post, listener: Listener) -> None:
    """The porter's main thread: until the process that listens says so or goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is told to end, when all is told
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    post.start(lambda: listener.associations)
    threading.Thread(target=_take_all, args=(sockets, listener), name="connections", daemon=True).start()
    try:
        while (said := connection.recv()) is not None:
            post.answered(*said)
    except (EOFError, OSError):
        os._exit(1)  # nobody counts any more, and whoever comes next clears incoming/
    listener.stop()
    post.close()


def _take_all(sockets: socket.socket, listener: Listener) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(sockets, 1, 1)
        if not message:
            return
        for descriptor in descriptors:
            connection = socket.socket(fileno=descriptor)
            try:
                listener.take(connection, connection.getpeername())
            except OSError:  # it has gone already
                connection.close()
