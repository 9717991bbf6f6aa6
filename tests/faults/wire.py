"""A DICOM peer on a bare socket: PDUs and command sets by ``struct``, bytes sent as they are, thousands a second.

It knows what the faults need and no more: associate, C-ECHO, C-STORE, release, abort, and to vanish (PS3.7, PS3.8).
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
WORD_FRAMES = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DICOM_CONTEXT, IMPLEMENTATION = b"1.2.840.10008.3.1.1.1", b"2.25.140127364917236501298745"
STORE_RQ, ECHO_RQ, ANSWER, NO_DATA_SET = 0x0001, 0x0030, 0x8000, 0x0101
ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
PDV_HEADER_BYTES = 6

Context = tuple[str, str]  # SOP Class UID, Transfer Syntax UID
Fragment = tuple[int, bytes]  # message control header (1: command, 2: last), bytes


class Gone(ConnectionError):
    """The peer closed, aborted, or said something that nobody expects here."""


class Turned(Exception):
    """The association was rejected: result, source, reason (PS3.8 Table 9-21)."""

    def __init__(self, result: int, source: int, reason: int) -> None:
        super().__init__(f"A-ASSOCIATE-RJ {result}, {source}, {reason}")
        self.answer = (result, source, reason)


# --- messages into PDUs ----------------------------------------------------------------------------------------------


class Plain:
    """As common senders do: the command in a PDU of its own, then PDUs as large as the peer takes, one PDV in each."""

    def pdus(self, context: int, command: bytes, data: Iterable[bytes], longest: int) -> Iterator[bytes]:
        yield p_data(context, [(3, command)])
        for fragment in last_marked(data, longest - PDV_HEADER_BYTES):
            yield p_data(context, [fragment])


@dataclass
class Together(Plain):
    """Command and data set in fragments of ``fragment`` bytes, as many PDVs in one PDU as fit into it."""

    fragment: int = 1 << 30

    def sizes(self) -> Iterator[int]:
        while True:
            yield self.fragment

    def pdus(self, context: int, command: bytes, data: Iterable[bytes], longest: int) -> Iterator[bytes]:
        sizes = self.sizes()
        whole = b"".join(data)
        waiting: list[Fragment] = []
        room = longest
        for control, part in ((1, command), (0, whole)):
            offset = 0
            while offset < len(part) or not part:
                if room <= PDV_HEADER_BYTES or self.closes(waiting):
                    yield p_data(context, waiting)
                    waiting, room = [], longest
                size = max(1, min(next(sizes), room - PDV_HEADER_BYTES))
                piece = part[offset : offset + size]
                offset += size
                waiting.append((control | (2 if offset >= len(part) else 0), piece))
                room -= PDV_HEADER_BYTES + len(piece)
                if not part:
                    break
        yield p_data(context, waiting)

    def closes(self, waiting: Sequence[Fragment]) -> bool:
        """Whether the PDU ends here although there is room."""
        return False


@dataclass
class Scattered(Together):
    """Fragments and PDUs of random sizes, from 1 byte to all there is."""

    rng: random.Random = field(default_factory=random.Random)
    largest: int = 1 << 16

    def sizes(self) -> Iterator[int]:
        while True:
            yield int(2 ** self.rng.uniform(0, self.largest.bit_length() - 1))

    def closes(self, waiting: Sequence[Fragment]) -> bool:
        return bool(waiting) and self.rng.random() < 0.3


def p_data(context: int, fragments: Sequence[Fragment]) -> bytes:
    """One P-DATA-TF PDU (PS3.8 Section 9.3.5)."""
    values = b"".join(struct.pack(">LBB", len(b) + 2, context, control) + b for control, b in fragments)
    return struct.pack(">BBL", P_DATA, 0, len(values)) + values


def last_marked(chunks: Iterable[bytes], longest: int) -> Iterator[Fragment]:
    """Chunks of any size as fragments of a data set; the last one says so."""
    held: memoryview | None = None
    for chunk in chunks:
        view = memoryview(chunk)
        for offset in range(0, len(view), longest):
            if held is not None:
                yield 0, bytes(held)
            held = view[offset : offset + longest]
    yield 2, bytes(held or b"")


def command_set(field_: int, message: int, sop_class: str, uid: str = "") -> bytes:
    """The command set of a C-STORE-RQ or C-ECHO-RQ in Implicit VR Little Endian (PS3.7 Section 9.3)."""
    values = [(0x0002, padded(sop_class)), (0x0100, short(field_)), (0x0110, short(message))]
    values += [(0x0700, short(0))] if uid else []
    values += [(0x0800, short(0x0000 if uid else NO_DATA_SET))]
    values += [(0x1000, padded(uid))] if uid else []
    body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in values)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def command_values(command: bytes) -> dict[int, bytes]:
    """Element number → value of a command set."""
    found, offset = {}, 0
    while offset < len(command):
        _, element, length = struct.unpack_from("<HHL", command, offset)
        found[element] = command[offset + 8 : offset + 8 + length]
        offset += 8 + length
    return found


def short(value: int) -> bytes:
    return struct.pack("<H", value)


def padded(uid: str) -> bytes:
    """A UID as DICOM writes it, with an even length."""
    return uid.encode() + b"\0" * (len(uid) % 2)


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate_rq(calling: str, called: str, contexts: Sequence[Context], longest: int) -> bytes:
    """An A-ASSOCIATE-RQ PDU that proposes each context by itself, numbered 1, 3, 5 …"""
    body = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.encode().ljust(16))
    body += item(0x10, DICOM_CONTEXT)
    for number, (sop_class, syntax) in enumerate(contexts):
        names = item(0x30, sop_class.encode()) + item(0x40, syntax.encode())
        body += item(0x20, bytes((2 * number + 1, 0, 0, 0)) + names)
    body += item(0x50, item(0x51, struct.pack(">L", longest)) + item(0x52, IMPLEMENTATION))
    return struct.pack(">BBL", ASSOCIATE_RQ, 0, len(body)) + body


def items(body: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(body):
        kind, _, length = struct.unpack_from(">BBH", body, offset)
        yield kind, body[offset + 4 : offset + 4 + length]
        offset += 4 + length


# --- the association -------------------------------------------------------------------------------------------------


class Wire:
    """One TCP connection to a listener; ``accepted`` maps each accepted context to its number once it is associated."""

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.accepted: dict[Context, int] = {}
        self.longest = 16384
        self._messages = 0

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def associate(
        self,
        contexts: Sequence[Context] = ((VERIFICATION, IMPLICIT), (CT, EXPLICIT)),
        calling: str = "SCANNER",
        called: str = "OVERREAD",
    ) -> Wire:
        """Ask for an association. Raises Turned when it is rejected, Gone when nobody answers."""
        self.socket.sendall(associate_rq(calling, called, contexts, 131072))
        kind, body = self._pdu()
        if kind == ASSOCIATE_RJ:
            raise Turned(*body[1:4])
        if kind != ASSOCIATE_AC:
            raise Gone(f"PDU {kind} instead of A-ASSOCIATE-AC")
        for what, value in items(body, 68):
            if what == 0x21 and value[2] == 0:
                self.accepted[contexts[value[0] // 2]] = value[0]
            if what == 0x50:
                self._negotiate(value)
        return self

    def _negotiate(self, user_information: bytes) -> None:
        for what, value in items(user_information, 0):
            if what == 0x51:
                self.longest = min(struct.unpack(">L", value)[0] or 1 << 17, 1 << 17)

    def echo(self) -> int:
        """The status of a C-ECHO."""
        self._messages = self._messages % 0xFFFF + 1
        command = command_set(ECHO_RQ, self._messages, VERIFICATION)
        self.socket.sendall(p_data(self.accepted[VERIFICATION, IMPLICIT], [(3, command)]))
        return self.answer(ECHO_RQ)

    def store(
        self,
        uid: str,
        data: bytes | Iterable[bytes],
        context: Context = (CT, EXPLICIT),
        shape: Plain | None = None,
        cut: random.Random | None = None,
    ) -> int:
        """The status of a C-STORE of an encoded data set, given whole or in chunks; ``shape`` decides how it is split
        into PDVs and PDUs, and ``cut`` splits the stream of bytes once more."""
        command = self.request(context[0], uid)
        chunks = [data] if isinstance(data, bytes) else data
        for pdu in (shape or Plain()).pdus(self.accepted[context], command, chunks, self.longest):
            for piece in torn(pdu, cut):
                self.socket.sendall(piece)
        return self.answer()

    def request(self, sop_class: str, uid: str) -> bytes:
        """The command set of the next C-STORE, for those who put it on the wire themselves."""
        self._messages = self._messages % 0xFFFF + 1
        return command_set(STORE_RQ, self._messages, sop_class, uid)

    def answer(self, to: int = STORE_RQ) -> int:
        """Wait for the status of the message sent last."""
        return self._status(to | ANSWER, self._messages)

    def release(self) -> None:
        """End the association as one should, and the connection with it."""
        self.socket.sendall(struct.pack(">BBLL", RELEASE_RQ, 0, 4, 0))
        kind, _ = self._pdu()
        self.close()
        if kind != RELEASE_RP:
            raise Gone(f"PDU {kind} instead of A-RELEASE-RP")

    def abort(self) -> None:
        """A-ABORT, and gone."""
        self.socket.sendall(struct.pack(">BBLBBBB", ABORT, 0, 4, 0, 0, 0, 0))
        self.close()

    def close(self) -> None:
        """Gone without a word."""
        self.socket.close()

    def _status(self, expected: int, number: int) -> int:
        command, last = b"", False
        while not last:
            kind, body = self._pdu()
            if kind != P_DATA:
                raise Gone(f"PDU {kind} instead of an answer")
            offset = 0
            while offset < len(body):
                length, _, control = struct.unpack_from(">LBB", body, offset)
                command += body[offset + PDV_HEADER_BYTES : offset + 4 + length]
                offset, last = offset + 4 + length, bool(control & 2)
        said = command_values(command)
        if said[0x0100] != short(expected) or said[0x0120] != short(number):
            raise Gone(f"an answer to something else: {said}")
        return int.from_bytes(said[0x0900], "little")

    def _pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        read = b""
        while len(read) < count:
            more = self.socket.recv(count - len(read))
            if not more:
                raise Gone("the connection was closed")
            read += more
        return read


def torn(pdu: bytes, cut: random.Random | None) -> Iterator[bytes]:
    """A PDU in up to four pieces, for a socket each; whole without ``cut``."""
    edges = sorted(cut.randrange(len(pdu)) for _ in range(3)) if cut else []
    for start, end in zip([0, *edges], [*edges, len(pdu)], strict=True):
        if end > start:
            yield pdu[start:end]


@contextlib.contextmanager
def associated(port: int, contexts: Sequence[Context] | None = None, timeout_s: float = 30.0) -> Iterator[Wire]:
    """An association for Verification and CT, or ``contexts``; released when the block ended well, else dropped."""
    with Wire(port, timeout_s) as wire:
        wire.associate(*([contexts] if contexts else []))
        yield wire
        wire.release()
