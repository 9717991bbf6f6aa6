"""The socket under an exchange: every wait has an end, and whoever sends too slowly is told from who sends.

Large reads, no delayed acknowledgements, no Nagle: as under DIMSE (``upper_layer/wire.py``), and for the same reasons.
"""

from __future__ import annotations

import contextlib
import socket
import time

QUICKACK = getattr(socket, "TCP_QUICKACK", None)
HEAD_BYTES = 16 << 10
UNJUDGED_S = 0.25
LINGER_S = 2.0
LINGER_BYTES = 64 << 20


class TooSlow(Exception):
    """The other side let a deadline pass, or sends less than it must."""


class Wire:
    """One connected socket, for the thread that serves it. Others may ask for its ``pace`` and may ``hang_up``.

    ``stall_s`` bounds each single wait in a body. Beyond that much waiting in sum, a body must have come at
    ``least_bytes_s`` on average.
    """

    def __init__(self, connected: socket.socket, stall_s: float, least_bytes_s: float) -> None:
        self._socket = connected
        self._stall_s, self._least_bytes_s = stall_s, least_bytes_s
        self._held = b""
        self._received, self._waited_s = 0, 0.0
        self.since = time.monotonic()  # when it began to wait for a head
        self.in_body = False
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def plug(self) -> socket.socket:
        """The socket itself: for the handshake of TLS, and to ask who is at the other end."""
        return self._socket

    def wrapped(self, secured: socket.socket) -> None:
        """From now on speak through ``secured``."""
        self._socket = secured

    def receive(self, deadline: float) -> bytes:
        """What has come of a head; empty at the end. Raises TooSlow when nothing came by ``deadline`` (monotonic)."""
        if self._held:
            held, self._held = self._held, b""
            return held
        left = deadline - time.monotonic()
        if left <= 0:
            raise TooSlow
        self._socket.settimeout(left)
        try:
            came = self._socket.recv(HEAD_BYTES)
        except TimeoutError:
            raise TooSlow from None
        except OSError:
            return b""
        self._acknowledge()
        return came

    def hold(self, rest: bytes) -> None:
        """These bytes were read too early: they come again at the next read."""
        self._held = rest + self._held

    def begin_head(self) -> None:
        """What is read from now on is a head, or the wait for one."""
        self.in_body, self.since = False, time.monotonic()

    def begin_body(self) -> None:
        """What is read from now on is a body."""
        self._received, self._waited_s, self.since = 0, 0.0, time.monotonic()
        self.in_body = True
        self._socket.settimeout(self._stall_s)

    def receive_into(self, room: memoryview) -> int:
        """Read some of a body; how many bytes, 0 when the other side is gone. Raises TooSlow."""
        if self._held:
            count = min(len(room), len(self._held))
            room[:count] = self._held[:count]
            self._held = self._held[count:]
            return count
        before = time.monotonic()
        try:
            count = self._socket.recv_into(room)
        except TimeoutError:
            raise TooSlow from None
        except OSError:
            return 0
        self._waited_s += time.monotonic() - before
        self._received += count
        if self._waited_s > self._stall_s and self._received < self._least_bytes_s * self._waited_s:
            raise TooSlow
        self._acknowledge()
        return count

    def pace(self, now: float) -> float:
        """Bytes a second of the body since it began; infinite at first, when nobody can be judged."""
        seconds = now - self.since
        return self._received / seconds if seconds > UNJUDGED_S else float("inf")

    def send(self, content: bytes) -> bool:
        """Send all of it; False when the other side is gone, or does not take it in time."""
        try:
            self._socket.settimeout(self._stall_s)
            self._socket.sendall(content)
        except OSError:
            return False
        return True

    def hang_up(self) -> None:
        """End it for both sides, from any thread: a read in progress returns."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def linger(self) -> None:
        """Let the other side read the last answer: close while it still sends, and it may never see it (RFC 9112 9.6).

        Bounded in time and bytes.
        """
        end, left, room = time.monotonic() + LINGER_S, LINGER_BYTES, memoryview(bytearray(1 << 16))
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while left > 0 and (wait := end - time.monotonic()) > 0:
                self._socket.settimeout(wait)
                if not (count := self._socket.recv_into(room)):
                    break
                left -= count

    def close(self) -> None:
        """Give the descriptor back."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _acknowledge(self) -> None:
        if QUICKACK is not None:  # the kernel forgets it: to be said after each read
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
