"""One association as a requestor: opened with exactly the contexts that are needed, never used after a silence.

It owns its socket and has no thread: every wait is bounded by the socket's time-out, and what the peer says is read
where it is needed. Data sets go out as their bytes, in PDUs as large as the peer takes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.uid import UID

from overread.deliver import pdu
from overread.deliver.pdu import Pair
from overread.domain.command_set import (
    CLASS,
    DATA_SET,
    FIELD,
    HAS_DATA_SET,
    MESSAGE_ID,
    NO_DATA_SET,
    STATUS,
    CommandSet,
    Value,
    decode,
    encode,
    number,
)
from overread.domain.errors import NoConnection, Rejected, Unreachable
from overread.domain.peer import Peer
from overread.spool.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

WINDOW_BYTES, MOST_PARTS = 1 << 20, 512
LONGEST_MESSAGE_BYTES = 1 << 30
LONGEST_PDU_BYTES = 8 * pdu.OUR_MAX_PDU_BYTES
VERIFICATION, IMPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2"
_RELEASE_S, _ABORT_S, _ABORT_READS = 5.0, 0.2, 64
_LAST_MESSAGE_ID = 0xFFFF
_REMEDIES = {
    (1, 3): "it does not know the calling AE title {own!r}: have it added there",
    (1, 7): "it does not go by the called AE title {peer!r}: correct ae_title",
}
_RESULTS = {1: "rejected (permanent)", 2: "rejected (transient)"}
_REASONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognised",
    (1, 7): "called AE title not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


@dataclass(frozen=True)
class Call:
    """Whom to call and as whom: ``timeout_s`` bounds the connection, the negotiation and each answer."""

    peer: Peer
    own_ae_title: str
    timeout_s: float
    tls: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        return f"{self.peer.ae_title} at {self.peer.host}:{self.peer.port}"


@dataclass(frozen=True)
class Message:
    """A whole DIMSE message: its presentation context, its command set, and its data set's bytes (None without)."""

    context_id: int
    command: CommandSet
    data: bytes | None

    @property
    def status(self) -> int | None:
        return number(self.command, STATUS)


class Line:
    """An open association. Raises Unreachable from any method when the peer is silent, broke off, or makes no sense;
    it must not be used again then."""

    def __init__(self, call: Call, wire: socket.socket, contexts: Sequence[Pair], answer: pdu.Answer) -> None:
        self.call, self._wire = call, wire
        self.proposed = frozenset(contexts)
        # Each context was proposed with one transfer syntax, so that its number says which.
        numbered = {2 * number + 1: pair for number, pair in enumerate(contexts)}
        self.accepted = {pair: n for n, pair in numbered.items() if n in answer.accepted}
        self.contexts = numbered
        self.room = answer.most_bytes - 6
        self.used_at = time.monotonic()
        self.is_open = True
        self._message_id = 0
        self._inbox = bytearray()
        self._values: deque[tuple[int, int, bytes]] = deque()

    def next_id(self) -> int:
        """The next message's number, 1 … 65535."""
        self._message_id = self._message_id % _LAST_MESSAGE_ID + 1
        return self._message_id

    def context(self, sop_class_uid: str) -> int | None:
        """An accepted presentation context of a SOP Class; None when there is none."""
        return next((n for (uid, _), n in self.accepted.items() if uid == sop_class_uid), None)

    def say(self, context_id: int, command: CommandSet, data: bytes = b"") -> None:
        """Send a message whose data set, if any, is at hand."""
        command = {**command, DATA_SET: HAS_DATA_SET if data else NO_DATA_SET}
        parts = [*pdu.data_pdus(context_id, memoryview(encode(command)), self.room, pdu.COMMAND, ends=True)]
        if data:
            parts += pdu.data_pdus(context_id, memoryview(data), self.room, 0, ends=True)
        self._send(b"".join(parts), self.call.timeout_s)

    def pour(self, context_id: int, command: CommandSet, source: BinaryIO, size: int, timeout_s: float) -> None:
        """Send a message whose data set is the next ``size`` bytes of a file, in constant memory."""
        command = {**command, DATA_SET: HAS_DATA_SET}
        parts = [*pdu.data_pdus(context_id, memoryview(encode(command)), self.room, pdu.COMMAND, ends=True)]
        window = max(self.room, WINDOW_BYTES // self.room * self.room)
        while size > 0:
            piece = source.read(min(window, size))
            if not piece:
                self.abort()
                raise Rejected("a result's file is shorter than it was")
            size -= len(piece)
            parts += pdu.data_pdus(context_id, memoryview(piece), self.room, 0, ends=size == 0)
            self._send_parts(parts, timeout_s)
            parts = []

    def hear(self, timeout_s: float) -> Message:
        """The next whole message of the peer."""
        deadline = time.monotonic() + timeout_s
        command, data, values = bytearray(), bytearray(), None
        while True:
            context_id, control, piece = self._value(deadline)
            (command if control & pdu.COMMAND else data).extend(piece)
            if len(command) + len(data) > LONGEST_MESSAGE_BYTES:
                raise self._broken("sent a message that does not end")
            if control & pdu.LAST and control & pdu.COMMAND:
                values = self._decoded(bytes(command))
                if values.get(DATA_SET) == NO_DATA_SET:
                    return Message(context_id, values, None)
            elif control & pdu.LAST and values is not None:
                return Message(context_id, values, bytes(data))

    def expect_status(self, timeout_s: float) -> Message:
        """The next message, which must have a status."""
        answer = self.hear(timeout_s)
        if answer.status is None:
            raise self._broken("sent no status")
        return answer

    def says_something(self, within_s: float) -> bool:
        """Whether the peer begins to say something of its own accord within so many seconds."""
        if self._values or self._inbox:
            return True
        poll = select.poll()  # select() cannot see descriptors above 1,023
        poll.register(self._wire, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def ask(self, context_id: int, command: CommandSet, data: bytes = b"") -> Message:
        """Send a message and wait for the one that answers it."""
        self.say(context_id, command, data)
        return self.expect_status(self.call.timeout_s)

    def is_quiet(self) -> bool:
        """Whether the association can be used again: it is open, and the peer has said nothing meanwhile."""
        return self.is_open and not self.says_something(0.0)

    def release(self) -> None:
        """End it politely; whatever comes instead of the answer does not matter any more."""
        if not self.is_open:
            return
        self.is_open = False
        with contextlib.suppress(OSError):
            self._wire.settimeout(min(_RELEASE_S, self.call.timeout_s))
            self._wire.sendall(pdu.pdu(pdu.RELEASE_RQ, bytes(4)))
            while self._wire.recv(1 << 16)[:1] not in (b"", bytes([pdu.RELEASE_RP])):
                continue
        self._wire.close()

    def abort(self) -> None:
        """End it at once (A-ABORT), without waiting for anybody for long."""
        if self.is_open:
            self.is_open = False
            with contextlib.suppress(OSError):
                self._wire.settimeout(_ABORT_S)
                self._wire.sendall(pdu.pdu(pdu.ABORT, bytes(4)))
                for _ in range(_ABORT_READS):  # until the peer closes (PS3.8 9.2.3, AA-3), or the time is up
                    if not self._wire.recv(1 << 16):
                        break
            self._wire.close()

    def _value(self, deadline: float) -> tuple[int, int, bytes]:
        while not self._values:
            kind, body = self._pdu(deadline)
            if kind in (pdu.ABORT, pdu.RELEASE_RQ):
                raise self._broken("broke off the association")
            if kind != pdu.P_DATA_TF:
                raise self._broken("sent a PDU that has no place there")
            try:
                self._values.extend(pdu.data_values(body))
            except ValueError as error:
                raise self._broken(f"sent {error}") from None
        return self._values.popleft()

    def _pdu(self, deadline: float) -> tuple[int, bytes]:
        try:
            return read_pdu(self._wire, self._inbox, deadline)
        except TimeoutError:
            raise self._broken("fell silent") from None
        except (OSError, ValueError):
            raise self._broken("broke off the connection") from None

    def _send(self, content: bytes, timeout_s: float) -> None:
        self._send_parts([content], timeout_s)

    def _send_parts(self, parts: Sequence[bytes | memoryview], timeout_s: float) -> None:
        """Send parts one after the other; where the socket can gather them itself, nothing is copied together."""
        self.used_at = time.monotonic()
        deadline, gathers = self.used_at + timeout_s, not isinstance(self._wire, ssl.SSLSocket)
        views = [memoryview(part) for part in (parts if gathers else [b"".join(parts)])]
        try:
            while views:
                # Each bit of progress is waited for as for an answer, and all of it not for ever.
                self._wire.settimeout(max(0.001, min(self.call.timeout_s, deadline - time.monotonic())))
                sent = self._wire.sendmsg(views[:MOST_PARTS]) if gathers else self._wire.send(views[0])
                while views and sent >= len(views[0]):
                    sent -= len(views.pop(0))
                if views:
                    views[0] = views[0][sent:]
        except TimeoutError:
            raise self._broken("does not read what is sent") from None
        except OSError:
            raise self._broken("broke off the connection") from None

    def _decoded(self, command: bytes) -> dict[int, Value]:
        try:
            return decode(command)
        except ValueError as error:
            raise self._broken(f"sent {error}") from None

    def _broken(self, how: str) -> Unreachable:
        self.abort()
        return Unreachable(f"{self.call.name} {how}")


def read_pdu(wire: socket.socket, inbox: bytearray, deadline: float) -> tuple[int, bytes]:
    """The kind and the value of the next PDU; ``inbox`` keeps what came behind it.

    Raises TimeoutError, OSError (ended too), or ValueError for one that is longer than anything we have agreed to.
    """
    _fill(wire, inbox, pdu.HEADER.size, deadline)
    kind, length = pdu.HEADER.unpack_from(inbox)
    if length > LONGEST_PDU_BYTES:
        raise ValueError("a PDU longer than was agreed")
    end = pdu.HEADER.size + length
    _fill(wire, inbox, end, deadline)
    body = bytes(inbox[pdu.HEADER.size : end])
    del inbox[:end]
    return kind, body


def _fill(wire: socket.socket, inbox: bytearray, count: int, deadline: float) -> None:
    while len(inbox) < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        wire.settimeout(left)
        piece = wire.recv(1 << 16)
        if not piece:
            raise ConnectionResetError
        inbox += piece


def open_line(call: Call, contexts: Sequence[Pair], roles: Sequence[str] = ()) -> Line:
    """An established association. ``contexts`` are (SOP Class UID, Transfer Syntax UID) pairs, at most 128.

    Raises NoConnection with the reason in words, or Rejected when the peer accepts none of the contexts.
    """
    wire = _connect(call)
    try:
        implementation = (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION)
        request = pdu.associate_rq(call.peer.ae_title, call.own_ae_title, contexts, roles, implementation)
        line = Line(call, wire, contexts, _negotiate(call, wire, request))
    except BaseException:
        wire.close()
        raise
    if not line.accepted:
        line.release()
        offered = ", ".join(sorted({name_of(sop_class) for sop_class, _ in contexts}))
        raise Rejected(f"{call.name} accepted no presentation context for {offered}; have it enabled there")
    return line


@contextlib.contextmanager
def association(
    peer: Peer, own_ae_title: str, contexts: Sequence[Pair], *, timeout_s: float, tls: ssl.SSLContext | None = None
) -> Iterator[Line]:
    """``open_line`` for one use: released at the end, aborted when something was raised in between."""
    line = open_line(Call(peer, own_ae_title, timeout_s, tls), contexts)
    try:
        yield line
    except BaseException:
        line.abort()
        raise
    line.release()


def echo(line: Line) -> int | None:
    """C-ECHO over a line that has a context for it; the status."""
    context_id = line.accepted[VERIFICATION, IMPLICIT]
    return line.ask(context_id, {CLASS: VERIFICATION, FIELD: 0x0030, MESSAGE_ID: line.next_id()}).status


def name_of(uid: str) -> str:
    """A registered UID's name, otherwise the UID."""
    return str(UID(uid).name)


def _connect(call: Call) -> socket.socket:
    peer = call.peer
    try:
        wire = socket.create_connection((peer.host, peer.port), call.timeout_s)
    except socket.gaierror:
        raise NoConnection(f"{call.name} cannot be found: the host name is not known here; correct host") from None
    except TimeoutError:
        reason = "no answer; check host, port and the firewall between"
        raise NoConnection(f"{call.name} cannot be reached: {reason}") from None
    except ConnectionRefusedError:
        reason = "nothing listens there; start it, or correct host and port"
        raise NoConnection(f"{call.name} cannot be reached: {reason}") from None
    except OSError as error:
        raise NoConnection(f"{call.name} cannot be reached: {error.strerror or type(error).__name__}") from None
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _secured(call, wire)


def _secured(call: Call, wire: socket.socket) -> socket.socket:
    if call.tls is None:
        return wire
    try:
        return call.tls.wrap_socket(wire, server_hostname=call.peer.host)
    except ssl.SSLCertVerificationError as error:
        wire.close()
        reason = f"its certificate is not trusted ({error.verify_message}); correct ca, or host as it stands there"
        raise NoConnection(f"{call.name} cannot be spoken to by TLS: {reason}") from None
    except OSError as error:
        wire.close()
        reason = "is TLS on there, and does it trust our certificate?"
        raise NoConnection(f"{call.name} cannot be spoken to by TLS ({type(error).__name__}); {reason}") from None


def _negotiate(call: Call, wire: socket.socket, request: bytes) -> pdu.Answer:
    broken = f"{call.name} broke off the association while it was being opened"
    try:
        wire.settimeout(call.timeout_s)
        wire.sendall(request)
        kind, body = read_pdu(wire, bytearray(), time.monotonic() + call.timeout_s)
        if kind == pdu.ASSOCIATE_AC:
            return pdu.associate_ac(body)
    except TimeoutError:
        said = f"did not answer the association request within {call.timeout_s:g} s"
        raise NoConnection(f"{call.name} {said}") from None
    except ssl.SSLError as error:
        reason = "does it trust our certificate?"
        raise NoConnection(f"{call.name} cannot be spoken to by TLS ({type(error).__name__}); {reason}") from None
    except (OSError, ValueError):
        raise NoConnection(broken) from None
    if kind == pdu.ASSOCIATE_RJ and len(body) >= 4:
        raise _refusal(call, *body[1:4])
    raise NoConnection(broken)


def _refusal(call: Call, result: int, source: int, reason: int) -> NoConnection:
    words = f"{_RESULTS.get(result, 'rejected')}, {_REASONS.get((source, reason), f'reason {source}/{reason}')}"
    remedy = _REMEDIES.get((source, reason), "").format(own=call.own_ae_title, peer=call.peer.ae_title)
    return NoConnection(f"{call.name} refused the association: {words}" + (f"; {remedy}" if remedy else ""))
