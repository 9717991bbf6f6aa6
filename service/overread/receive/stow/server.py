"""Accepts connections, a thread for each, and sees to it that those who hang leave room for those who send."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Sequence

from overread.domain.events import RequestAnswered, Trouble
from overread.receive.stow.connection import Connection, Site
from overread.receive.stow.wire import Wire

BACKLOG = 256
JOIN_S = 5.0
MAKE_WAY_S = 0.5
# Who holds a place that another needs, and sends less than this many bytes a second, makes way.
PRESSED_BYTES_S = 64 << 10
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Server:
    """A STOW-RS origin server at an address, for a ``Site``.

    Where all places are taken, in all or for one address, the connection that has been waiting longest for a request to
    begin makes way for the next, or else the slowest body; when there is neither, the newcomer is answered 503.
    So it is with requests where the gate has no place for one more.
    """

    def __init__(self, host: str, port: int, site: Site) -> None:
        self._address, self._site = (host, port), site
        self._lock = threading.Lock()
        self._open: dict[Connection, threading.Thread] = {}
        self._listening: socket.socket | None = None
        self._stopping = False
        self._tell = site.intake.tell

    def start(self) -> None:
        """Bind and serve in the background; raises OSError when the port is taken."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._listening = socket.create_server(self._address, family=family, backlog=BACKLOG)
        threading.Thread(target=self._accept_all, args=(self._listening,), name="stow-accept", daemon=True).start()

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        assert self._listening is not None
        return int(self._listening.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many are open."""
        with self._lock:
            return len(self._open)

    def stop(self) -> None:
        """Stop accepting and hang up; what is not acknowledged by then will be sent again."""
        self._stopping = True
        listening = self._listening
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes up the thread that accepts
            listening.close()
        with self._lock:
            still = list(self._open.items())
        for connection, _ in still:
            connection.wire.hang_up()
        until = time.monotonic() + JOIN_S
        for _, thread in still:
            if thread.ident is not None:  # one that has not begun yet finds its wire hung up
                thread.join(max(0.0, until - time.monotonic()))
        self._site.finishing.stop()

    def _accept_all(self, listening: socket.socket) -> None:
        while not self._stopping:
            try:
                connected, address = listening.accept()
            except OSError:  # no descriptor is left, say: no reason to ask again at once for ever
                time.sleep(0.05)
                continue
            try:
                self._welcome(connected, str(address[0]))
            except Exception as error:
                # The edge of this thread: one connection that cannot be served (no thread left) must not end all.
                connected.close()
                self._tell(Trouble("receive", type(error).__name__))

    def _welcome(self, connected: socket.socket, address: str) -> None:
        limits = self._site.limits
        wire = Wire(connected, limits.stall_s, limits.least_bytes_s)
        connection = Connection(wire, address, self._site, self._make_way)
        thread = threading.Thread(target=self._serve, args=(connection,), name="stow", daemon=True)
        with self._lock:
            has_place = self._make_place(address)
            if has_place:
                self._open[connection] = thread
        if not has_place:
            self._turn_away(connected, address)
            return
        try:
            thread.start()
        except RuntimeError:
            self._forget(connection)
            raise

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            self._open.pop(connection, None)

    def _make_place(self, address: str) -> bool:
        limits = self._site.limits
        here = [connection for connection in self._open if connection.address == address]
        if len(here) >= limits.connections_per_address:
            return self._send_away(here)
        return len(self._open) < limits.connections or self._send_away(list(self._open))

    def _send_away(self, candidates: Sequence[Connection]) -> bool:
        """Hang up on whoever can best be spared; False when all of them send."""
        now = time.monotonic()
        waiting = [c for c in candidates if not c.wire.in_body]
        spared = min(waiting, key=lambda c: c.wire.since) if waiting else _slowest(candidates, now)
        if spared is None:
            return False
        self._open.pop(spared, None)  # its place is free at once, also while its thread still ends
        spared.wire.hang_up()
        return True

    def _make_way(self, newcomer: Connection) -> bool:
        """Hang up on the slowest body from the newcomer's address, and wait until the gate knows of it."""
        with self._lock:
            here = [c for c in self._open if c.address == newcomer.address and c is not newcomer]
            spared = _slowest(here, time.monotonic())
            if spared is None:
                return False
            thread = self._open.pop(spared)
        spared.wire.hang_up()
        thread.join(MAKE_WAY_S)
        return True

    def _turn_away(self, connected: socket.socket, address: str) -> None:
        with contextlib.suppress(OSError):
            if self._site.secure is None:
                connected.setblocking(False)
                connected.send(FULL)
                connected.shutdown(socket.SHUT_WR)
        connected.close()
        self._tell(RequestAnswered("", address, 503, 0, 0, 0.0, "as many connections as allowed are open, all sending"))


def _slowest(candidates: Sequence[Connection], now: float) -> Connection | None:
    slow = [c for c in candidates if c.wire.in_body and c.wire.pace(now) < PRESSED_BYTES_S]
    return min(slow, key=lambda c: c.wire.pace(now), default=None)
