"""The lean sender: one association, every byte prepared before the clock starts, so that the receiver is the bound.

    python -m ingest_parts.blast HOST PORT CALLED_AE FOLDER

It says "ready" once it is associated, waits for a line on standard input, sends the files of FOLDER one after the
other, each when the one before was answered, and prints what it saw as one line of JSON. It needs no DICOM library.
"""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ingest_parts.part10 import Head, read_head

MOST_PDU_BYTES = 131072
PATIENCE_S = 60.0
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
IMPLEMENTATION = b"2.25.302043797561209"
ASSOCIATE_AC, P_DATA = 2, 4
RELEASE_RQ = b"\5\0\0\0\0\4\0\0\0\0"


class Peer:
    """One association: the socket, what comes from it, and what was agreed."""

    def __init__(self, host: str, port: int, called: str, contexts: list[tuple[str, str]]) -> None:
        self.socket = socket.create_connection((host, port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers: BinaryIO = self.socket.makefile("rb")
        self.socket.sendall(_associate_request(called, contexts))
        kind, body = self._read_pdu()
        if kind != ASSOCIATE_AC:
            raise ConnectionError(f"no association: PDU type {kind}, {body[:4].hex()}")
        self.contexts: dict[tuple[str, str], int] = {}
        self.pdu_bytes = MOST_PDU_BYTES
        self._agree(body, contexts)

    def _agree(self, body: bytes, contexts: list[tuple[str, str]]) -> None:
        for kind, content in _items(body[68:]):
            if kind == 0x21 and content[2] == 0:
                self.contexts[contexts[content[0] // 2]] = content[0]
            elif kind == 0x50:
                most = next((value for part, value in _items(content) if part == 0x51), b"\0\0\0\0")
                self.pdu_bytes = min(MOST_PDU_BYTES, struct.unpack(">L", most)[0] or MOST_PDU_BYTES)

    def status(self) -> int:
        """The status in the answer to a C-STORE, which is one PDU with one fragment."""
        kind, body = self._read_pdu()
        position = 6
        while kind == P_DATA and position < len(body):
            group, element, length = struct.unpack_from("<HHL", body, position)
            if (group, element) == (0, 0x0900):
                return int(struct.unpack_from("<H", body, position + 8)[0])
            position += 8 + length
        raise ConnectionError(f"no answer to C-STORE: PDU type {kind}, {body[:4].hex()}")

    def release(self) -> None:
        """End the association as one should; all is answered, so what goes wrong now does not matter."""
        with contextlib.suppress(OSError):
            self.socket.sendall(RELEASE_RQ)
            self._read_pdu()
        self.socket.close()

    def _read_pdu(self) -> tuple[int, bytes]:
        head = self._answers.read(6)
        if len(head) < 6:
            raise ConnectionError("the receiver closed the connection")
        kind, length = struct.unpack(">BxL", head)
        return kind, self._answers.read(length)


def _item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(content)) + content


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(content):
        kind, length = struct.unpack_from(">BxH", content, position)
        yield kind, content[position + 4 : position + 4 + length]
        position += 4 + length


def _associate_request(called: str, contexts: list[tuple[str, str]]) -> bytes:
    proposed = b"".join(
        _item(0x20, struct.pack(">B3x", 2 * k + 1) + _item(0x30, abstract.encode()) + _item(0x40, transfer.encode()))
        for k, (abstract, transfer) in enumerate(contexts)
    )
    user = _item(0x51, struct.pack(">L", MOST_PDU_BYTES)) + _item(0x52, IMPLEMENTATION)
    titles = struct.pack(">H2x16s16s32x", 1, called.ljust(16).encode(), b"BLAST".ljust(16))
    body = titles + _item(0x10, APPLICATION_CONTEXT) + proposed + _item(0x50, user)
    return struct.pack(">BxL", 1, len(body)) + body


def store_request(head: Head, content: bytes, context: int, number: int, pdu_bytes: int) -> bytes:
    """A C-STORE request as it goes over the wire: the command in a PDU, the data set in as few as the peer takes."""
    wire = [_pdu(context, 3, _command(head, number))]
    step = pdu_bytes - 6
    for position in range(head.start, len(content), step):
        last = position + step >= len(content)
        wire.append(_pdu(context, 2 if last else 0, content[position : position + step]))
    return b"".join(wire)


def _pdu(context: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">BxLLBB", P_DATA, len(fragment) + 6, len(fragment) + 2, context, control) + fragment


def _command(head: Head, number: int) -> bytes:
    elements = b"".join(
        (
            _element(0x0002, _padded(head.sop_class)),
            _element(0x0100, struct.pack("<H", 0x0001)),
            _element(0x0110, struct.pack("<H", number)),
            _element(0x0700, struct.pack("<H", 0)),
            _element(0x0800, struct.pack("<H", 0x0102)),
            _element(0x1000, _padded(head.sop_instance)),
        )
    )
    return _element(0x0000, struct.pack("<L", len(elements))) + elements


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(value)) + value


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def main() -> None:
    """Prepare, wait for the word, send."""
    host, port, called, folder = sys.argv[1:]
    contents = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    heads = [_head(content) for content in contents]
    contexts = sorted({(head.sop_class, head.transfer_syntax) for head in heads})
    peer = Peer(host, int(port), called, contexts)
    requests = []
    for number, head in enumerate(heads):
        context = peer.contexts[head.sop_class, head.transfer_syntax]
        requests.append(store_request(head, contents[number], context, number % 65535 + 1, peer.pdu_bytes))
        contents[number] = b""
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(_send(peer, requests)), flush=True)
    peer.release()


def _head(content: bytes) -> Head:
    head = read_head(content)
    if head is None:
        raise ValueError("not a DICOM file")
    return head


def _send(peer: Peer, requests: list[bytes]) -> dict[str, object]:
    latencies_s, refused, start = [], [], time.monotonic()
    for request in requests:
        before = time.monotonic()
        peer.socket.sendall(request)
        status = peer.status()
        latencies_s.append(time.monotonic() - before)
        if status:
            refused.append(f"0x{status:04X}")
    return {"start": start, "end": time.monotonic(), "latencies_s": latencies_s, "refused": refused}


if __name__ == "__main__":
    main()
