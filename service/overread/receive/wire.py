"""The socket under an association: large reads, no delayed acknowledgements, and nobody may stall in mid-sentence.

A stock pynetdicom socket reads at most 4,096 bytes a call, leaves Nagle's algorithm on, and waits for ever for the rest
of a PDU. Senders with Nagle on (DCMTK's default, many scanners) then wait 40 ms for each acknowledgement.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from pynetdicom.transport import AssociationSocket

QUICKACK = getattr(socket, "TCP_QUICKACK", None)
HEADER_BYTES = 6
SLACK_BYTES = 4096


class WireSocket(AssociationSocket):  # type: ignore[misc]
    """Reads whole PDUs into one buffer; refuses a PDU longer than was negotiated before reading it."""

    longest_pdu_bytes: int = 1 << 20

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``; fewer when the peer went away, stalled past the time-out, or announced too much."""
        if self.socket is None or nr_bytes > self.longest_pdu_bytes + SLACK_BYTES:
            return bytearray()
        buffer = bytearray(nr_bytes)
        view, read = memoryview(buffer), 0
        while read < nr_bytes:
            try:
                count = self.socket.recv_into(view[read:])
            except OSError:  # a stall past the socket's time-out ends like a broken connection
                count = 0
            if count == 0:
                break
            read += count
            if QUICKACK is not None:
                with contextlib.suppress(OSError):
                    self.socket.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        view.release()
        del buffer[read:]
        return buffer


def tune(wire: AssociationSocket, longest_pdu_bytes: int, stall_s: float) -> None:
    """Turn an accepted pynetdicom socket into a ``WireSocket``; ``stall_s`` bounds each wait inside a PDU.

    The class is exchanged in place: constructing a second one would announce the connection twice to the state machine.
    """
    wire.__class__ = WireSocket
    wire.longest_pdu_bytes = longest_pdu_bytes
    accepted: socket.socket = wire.socket
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    patience = struct.pack("ll", int(stall_s), int(stall_s % 1 * 1e6))
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
