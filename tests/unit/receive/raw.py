"""DICOM upper layer PDUs by hand, so that tests can say and split them as no library would."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
VERIFICATION = "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
RELEASE = struct.pack(">BxLL", 5, 4, 0)
ABORT = struct.pack(">BxLL", 7, 4, 0)


def request(contexts: Sequence[tuple[int, str, str]], *, calling: str = "CT1", longest: int = 16384) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 Section 9.3.2) for contexts of (id, abstract syntax, transfer syntax)."""

    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BxH", kind, len(value)) + value

    proposed = b"".join(
        item(0x20, struct.pack(">Bxxx", n) + item(0x30, a.encode()) + item(0x40, t.encode())) for n, a, t in contexts
    )
    user = item(0x50, item(0x51, struct.pack(">L", longest)) + item(0x52, b"1.2.3"))
    titles = b"OVERREAD".ljust(16) + calling.encode().ljust(16)
    body = struct.pack(">Hxx", 1) + titles + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1") + proposed + user
    return struct.pack(">BxL", 1, len(body)) + body


def command(**values: int | str) -> bytes:
    """A command set; keys are ``e`` and the element in hexadecimal, such as ``e0100``."""
    body = b""
    for key, value in sorted(values.items()):
        coded = struct.pack("<H", value) if isinstance(value, int) else value.encode() + b"\0" * (len(value) % 2)
        body += struct.pack("<HHL", 0, int(key[1:], 16), len(coded)) + coded
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store_command(uid: str, message_id: int = 1, sop_class: str = CT) -> bytes:
    return command(e0002=sop_class, e0100=1, e0110=message_id, e0700=0, e0800=1, e1000=uid)


def echo_command(message_id: int = 1) -> bytes:
    return command(e0002=VERIFICATION, e0100=0x30, e0110=message_id, e0800=0x0101)


def value(context_id: int, control: int, data: bytes) -> bytes:
    """One presentation data value item."""
    return struct.pack(">LBB", len(data) + 2, context_id, control) + data


def pdata(*values: bytes) -> bytes:
    """One P-DATA-TF PDU."""
    body = b"".join(values)
    return struct.pack(">BxL", 4, len(body)) + body


def store_pdus(context_id: int, uid: str, data: bytes, *, step: int = 8192, message_id: int = 1) -> bytes:
    """A C-STORE-RQ as most senders send it: the command in a PDU of its own, then the data set in pieces."""
    pdus = [pdata(value(context_id, 3, store_command(uid, message_id)))]
    for at in range(0, max(1, len(data)), step):
        pdus.append(pdata(value(context_id, 2 if at + step >= len(data) else 0, data[at : at + step])))
    return b"".join(pdus)


class Wire:
    """A connection that reads whole PDUs."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, portions: bytes | Iterable[bytes]) -> None:
        for portion in [portions] if isinstance(portions, bytes) else portions:
            self.socket.sendall(portion)

    def pdu(self) -> bytes:
        """The next PDU; empty when the peer has closed."""
        head = self._exactly(6)
        return head + self._exactly(int.from_bytes(head[2:], "big")) if len(head) == 6 else b""

    def rest(self) -> bytes:
        """All that comes until the peer closes."""
        heard = b""
        while piece := self.pdu():
            heard += piece
        return heard

    def close(self) -> None:
        self.socket.close()

    def _exactly(self, count: int) -> bytes:
        heard = b""
        while len(heard) < count:
            try:
                piece = self.socket.recv(count - len(heard))
            except ConnectionResetError:
                return b""
            if not piece:
                return b""
            heard += piece
        return heard
