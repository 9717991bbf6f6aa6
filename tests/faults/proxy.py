"""A small TCP proxy between a sender and its peer, on whose wire things go wrong."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass

PIECE = 1 << 14


@dataclass(frozen=True)
class Wire:
    """What happens on the first ``times`` connections; all later ones are well.

    ``cut_up`` / ``cut_down``: reset after so many bytes towards the peer, or back. ``stall_up`` / ``stall_down``: after
    so many bytes nothing gets through any more, and nobody is told. ``flip_up``: the byte of this number is changed.
    ``turned_away``: reset as soon as it is accepted. ``piece`` bytes at a time, with ``pause_s`` between them.
    """

    times: int = 1
    turned_away: bool = False
    cut_up: int = 0
    cut_down: int = 0
    stall_up: int = 0
    stall_down: int = 0
    flip_up: int = 0
    piece: int = PIECE
    pause_s: float = 0.0


class Proxy:
    """Listens on ``port`` of loopback while the block lasts, and forwards to ``target``."""

    def __init__(self, target: int, wire: Wire) -> None:
        self._target, self._wire = target, wire
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                self._open.append(near)
                wire = self._wire if self.connections <= self._wire.times else Wire()
                self._connect(near, wire)

    def _connect(self, near: socket.socket, wire: Wire) -> None:
        if wire.turned_away:
            _reset(near)
            return
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            _reset(near)
            return
        far.settimeout(None)
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.append(far)
        up = (near, far, wire, (wire.cut_up, wire.stall_up, wire.flip_up))
        down = (far, near, wire, (wire.cut_down, wire.stall_down, 0))
        for arguments in (up, down):
            threading.Thread(target=_pump, args=arguments, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, wire: Wire, marks: tuple[int, int, int]) -> None:
    """Forward what comes; ``marks`` are the bytes at which this way is cut, stalls, or has one changed (0: never)."""
    passed, (cut, stall, flip) = 0, marks
    try:
        while piece := source.recv(wire.piece):
            if flip and passed <= flip < passed + len(piece):
                at = flip - passed
                piece = piece[:at] + bytes([piece[at] ^ 0x01]) + piece[at + 1 :]
            passed += len(piece)
            if cut and passed >= cut:
                target.sendall(piece[: len(piece) - (passed - cut)])
                _reset(source)
                _reset(target)
                return
            if stall and passed >= stall:
                while source.recv(PIECE):  # swallowed, and nobody hears of it
                    continue
                return
            target.sendall(piece)
            if wire.pause_s:
                time.sleep(wire.pause_s)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _reset(one: socket.socket) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RDWR)
    one.close()
