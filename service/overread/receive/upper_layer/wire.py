"""The socket under an association: one buffer, large reads, no delayed acknowledgements.

A stock pynetdicom socket reads at most 4,096 bytes a call, leaves Nagle's algorithm on, delays acknowledgements so that
a sender with Nagle on (DCMTK's default, many scanners) waits 40 ms for each response, waits for ever for the rest of a
PDU, and believes any length that a PDU announces.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from pynetdicom.transport import AssociationSocket

from overread.receive.upper_layer.pdata import HEADER_BYTES, P_DATA_TF

QUICKACK = getattr(socket, "TCP_QUICKACK", None)
BUFFER_BYTES = 1 << 18
LONGEST_OTHER_PDU_BYTES = 1 << 18


class WireSocket(AssociationSocket):  # type: ignore[misc]
    """Holds what has come and was not taken yet; never reads a PDU longer than it may be.

    ``streaming`` says that P-DATA is taken in parts, ``inside`` that the next bytes belong to it. Anything else is
    ``ready`` only as a whole PDU, so that nobody who stops in mid-sentence blocks the thread that keeps the timers.
    """

    streaming: bool
    inside: bool
    longest_pdu_bytes: int
    _buffer: bytearray
    _start: int
    _end: int
    over: bool  # the peer sends no more

    def equip(self, longest_pdu_bytes: int, stall_s: float, *, streaming: bool) -> None:
        """Make a stock socket one of these, before any thread uses it; ``stall_s`` bounds each wait in a call."""
        self.longest_pdu_bytes, self.streaming, self.inside = longest_pdu_bytes, streaming, False
        self._buffer, self._start, self._end, self.over = bytearray(BUFFER_BYTES), 0, 0, False
        patience = struct.pack("ll", int(stall_s), int(stall_s % 1 * 1e6))
        self.socket.setblocking(True)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)

    def put_back(self, read: bytes) -> None:
        """What was read from the socket before it was one of these."""
        self._buffer[: len(read)] = read
        self._end = len(read)

    @property
    def holds_back(self) -> bool:
        """Whether something has come that nothing on the descriptor tells of."""
        return False

    @property
    def ready(self) -> bool:
        """Whether a PDU, a part of P-DATA, or the end of the connection can be read without waiting."""
        if self.socket is None or not self._is_connected:
            return False
        if not self._complete():
            self.fill(wait=False)
        return self._complete()

    def view(self) -> memoryview:
        """What has come and was not taken yet; valid until the next ``fill``."""
        return memoryview(self._buffer)[self._start : self._end]

    def take(self, count: int) -> None:
        """The first ``count`` bytes of ``view`` are done with."""
        self._start += count
        if self._start == self._end:
            self._start = self._end = 0

    def fill(self, *, wait: bool) -> None:
        """Read once, as much as has come and there is room for."""
        if self._end == len(self._buffer):
            self._make_room()
        try:
            count = self._read_once(memoryview(self._buffer)[self._end :], wait)
        except BlockingIOError:
            self.over |= wait  # a stall past the socket's time-out ends like a broken connection
            return
        except OSError:
            count = 0
        self.over |= count == 0
        self._end += count
        if QUICKACK is not None:  # the kernel forgets it: to be said after each read
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)

    def _read_once(self, room: memoryview, wait: bool) -> int:
        return int(self.socket.recv_into(room, 0, 0 if wait else socket.MSG_DONTWAIT))

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly ``nr_bytes``; fewer when the peer went away, stalled past the time-out, or announced too much."""
        taken = bytearray()
        if nr_bytes > LONGEST_OTHER_PDU_BYTES:
            return taken
        while len(taken) < nr_bytes and self.socket is not None:
            if self._start == self._end:
                if self.over:
                    break
                self.fill(wait=True)
            piece = self.view()[: nr_bytes - len(taken)]
            taken += piece
            self.take(len(piece))
        return taken

    def _shutdown_socket(self) -> None:
        # pynetdicom leaves the descriptor open when the peer has closed first.
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def _complete(self) -> bool:
        waiting = self._end - self._start
        if self.over or (waiting and self.inside):
            return True
        if waiting and self.streaming and self._buffer[self._start] == P_DATA_TF:
            return True
        if waiting < HEADER_BYTES:
            return False
        kind, length = struct.unpack_from(">BxL", self._buffer, self._start)
        most = self.longest_pdu_bytes if kind == P_DATA_TF else LONGEST_OTHER_PDU_BYTES
        return bool(waiting >= HEADER_BYTES + length or length > most)

    def _make_room(self) -> None:
        waiting = self._end - self._start
        if waiting == len(self._buffer):
            self._buffer = self._buffer + bytearray(len(self._buffer))
        else:
            self._buffer[:waiting] = self._buffer[self._start : self._end]
        self._start, self._end = 0, waiting
