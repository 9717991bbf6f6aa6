"""Where connections wait until they have said who they are: one thread for all of them, and no association.

    accepted ─▶ (TLS handshake) ─▶ A-ASSOCIATE-RQ, whole ─▶ judged ─▶ welcomed: an association is made of it
        └─ silent too long, or others need the place: closed      └─▶ turned away: A-ASSOCIATE-RJ, then closed

A port scan, a load balancer's check, a peer that stops in mid-sentence or in mid-handshake costs a descriptor and a
line in a table here, and nobody waits for it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from overread.domain.events import ConnectionDropped, Trouble
from overread.ports import Herald
from overread.receive.admission import Knock, Pass, Refusal
from overread.receive.tls import Tls
from overread.receive.upper_layer.reactor import Doorbell

ASSOCIATE_RQ, ASSOCIATE_RJ, ABORT = 1, 3, 7
HEADER_BYTES = 6
TITLES_END = 42  # header, version and the two AE titles (PS3.8 Section 9.3.2)
LONGEST_REQUEST_BYTES = (1 << 18) - HEADER_BYTES
UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_VALUE = 1, 2, 6  # PS3.8 Section 9.3.8
LEAVING_S = 2.0
MOST_IGNORED_BYTES = 1 << 16
PATIENCE_S = 0.75  # how long a caller waits for a place before it is told that there is none
ASK_AGAIN_S = 0.05
LOOK_S = 0.05
REST_S = 1.0


@dataclass(frozen=True)
class Limits:
    """Seconds for a request and a handshake, and how many connections may wait, of all and of one address."""

    request_s: float
    handshake_s: float = 10.0
    most: int = 400
    most_per_address: int = 100


@dataclass
class Call:
    """A connection and what it has said: its A-ASSOCIATE-RQ, as it came."""

    wire: socket.socket
    address: Any
    request: bytes = b""
    certificate: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        return str(self.address[0])

    def knock(self) -> Knock:
        """What admission is asked."""
        called, calling = (self.request[a : a + 16].decode("latin-1").strip(" \0") for a in (10, 26))
        return Knock(calling, called, self.host, self.certificate)


class Host(Protocol):
    """Who decides about callers. No method may block."""

    def judge(self, knock: Knock) -> Pass | Refusal:
        """May it come in?"""

    def welcome(self, call: Call, admitted: Pass) -> None:
        """Make an association of it."""

    def tidy(self) -> None:
        """Called now and then."""

    def turned_away(self, knock: Knock, refusal: Refusal) -> None:
        """It was told no."""


@dataclass(eq=False)
class _Guest:
    call: Call
    deadline: float
    step: Callable[[_Guest], None]
    heard: bytearray = field(default_factory=bytearray)
    ignored: int = 0
    patience: float = 0.0  # until when it waits for a place; 0 while it does not


class WaitingRoom:
    """Holds connections from ``take`` until they are somebody's association, or gone."""

    def __init__(self, host: Host, limits: Limits, herald: Herald) -> None:
        self._host, self._limits, self._herald = host, limits, herald
        self._guests: dict[_Guest, None] = {}  # in the order in which they came
        self._of_address: Counter[str] = Counter()
        self._arrived: deque[tuple[Call, Tls | None]] = deque()
        self._bell = Doorbell()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._tls: Tls | None = None
        self._stopping = False
        self._looked = 0.0
        self._thread = threading.Thread(target=self._run, name="waiting-room", daemon=True)

    def start(self, tls: Tls | None = None) -> None:
        """Begin; ``tls`` is kept up to date meanwhile."""
        self._tls = tls
        self._thread.start()

    def take(self, call: Call, tls: Tls | None = None) -> None:
        """A connection has been accepted; with ``tls`` it begins with a handshake. Never blocks."""
        self._arrived.append((call, tls))
        self._bell.ring()

    def stop(self) -> None:
        """Close all that wait, and end."""
        self._stopping = True
        self._bell.ring()
        if self._thread.ident is not None:
            self._thread.join(5)

    @property
    def waiting(self) -> int:
        """How many connections wait."""
        return len(self._guests)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception as error:
                # The edge of this thread: whatever one connection brings about must not close the door for all.
                self._herald(Trouble("receive", type(error).__name__))
        for guest in list(self._guests):
            self._close(guest)
        self._selector.close()
        self._bell.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._rest()):
            if key.data is None:
                self._bell.hush()
            elif key.data in self._guests:
                self._advance(key.data)
        while self._arrived:
            self._seat(*self._arrived.popleft())
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._look(now)

    def _rest(self) -> float:
        return LOOK_S if self._guests else REST_S

    def _look(self, now: float) -> None:
        self._host.tidy()
        if self._tls is not None:
            self._tls.refresh()
        for guest in list(self._guests):
            if guest.patience:
                self._advance(guest)
            elif now > guest.deadline:
                if guest.step is not _ignore:
                    self._tell(guest, "silent" if guest.step == self._hear else "handshake-silent")
                self._close(guest)

    def _seat(self, call: Call, tls: Tls | None) -> None:
        self._make_room(call.host)
        now = time.monotonic()
        guest = _Guest(call, now + self._limits.request_s, self._hear)
        try:
            call.wire.setblocking(False)
            if tls is not None:
                call.wire = tls.begin(call.wire)
                guest.deadline, guest.step = now + tls.terms.handshake_timeout_s, self._shake
            self._selector.register(call.wire, selectors.EVENT_READ, guest)
        except (OSError, ValueError):
            call.wire.close()
            return
        self._guests[guest] = None
        self._of_address[call.host] += 1
        self._advance(guest)  # most have spoken already

    def _make_room(self, host: str) -> None:
        """The one that has waited longest makes way: whoever has something to say says it soon."""
        if self._of_address[host] >= self._limits.most_per_address:
            crowd = [guest for guest in self._guests if guest.call.host == host]
        elif len(self._guests) >= self._limits.most:
            crowd = list(self._guests)
        else:
            return
        oldest = next((guest for guest in crowd if not guest.patience), crowd[0])
        if oldest.step is not _ignore:
            self._tell(oldest, "crowded")
        self._close(oldest)

    def _advance(self, guest: _Guest) -> None:
        try:
            guest.step(guest)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            self._close(guest)
        except Exception as error:
            # The edge to one caller: whatever it brings about ends its own connection only.
            self._herald(Trouble("receive", type(error).__name__))
            self._close(guest)

    def _shake(self, guest: _Guest) -> None:
        wire = guest.call.wire
        assert isinstance(wire, ssl.SSLSocket)
        try:
            wire.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(wire, selectors.EVENT_READ, guest)
            return
        except ssl.SSLWantWriteError:
            self._selector.modify(wire, selectors.EVENT_WRITE, guest)
            return
        except ssl.SSLEOFError:
            raise  # it went away: a health check
        except ssl.SSLError as error:
            self._tell(guest, "handshake-refused", _reason(error))
            self._see_off(guest, b"")
            return
        self._selector.modify(wire, selectors.EVENT_READ, guest)
        guest.call.certificate = Tls.names_of(wire)
        guest.deadline, guest.step = time.monotonic() + self._limits.request_s, self._hear
        self._hear(guest)

    def _hear(self, guest: _Guest) -> None:
        heard = guest.heard
        while True:
            lacking = _lacking(heard)
            if not lacking:
                break
            piece = guest.call.wire.recv(min(lacking, 1 << 16))
            if not piece:
                self._close(guest)  # a health check, or somebody who thought better of it
                return
            heard += piece
            if len(heard) >= HEADER_BYTES and (fault := _fault(heard)):
                reason, word = fault
                self._tell(guest, word)
                self._see_off(guest, struct.pack(">BxLxxBB", ABORT, 4, 2, reason))
                return
        self._selector.unregister(guest.call.wire)  # it has said what it can say for now
        guest.call.request = bytes(heard)
        guest.patience, guest.step = time.monotonic() + PATIENCE_S, self._ask
        self._ask(guest)

    def _ask(self, guest: _Guest) -> None:
        knock = guest.call.knock()
        answer = self._host.judge(knock)
        if isinstance(answer, Pass):
            self._forget(guest)
            self._host.welcome(guest.call, answer)
        elif not answer.passes or time.monotonic() > guest.patience:
            self._host.turned_away(knock, answer)
            reply = struct.pack(">BxLxBBB", ASSOCIATE_RJ, 4, answer.result, answer.source, answer.reason)
            self._see_off(guest, reply)

    def _see_off(self, guest: _Guest, reply: bytes) -> None:
        """Say the last word, and leave the peer a moment to hear it and to close."""
        wire = guest.call.wire
        if guest.patience:
            self._selector.register(wire, selectors.EVENT_READ, guest)
        guest.step, guest.patience = _ignore, 0.0
        guest.deadline = time.monotonic() + LEAVING_S
        try:
            if reply:
                wire.send(reply)
            else:
                wire.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(guest)

    def _tell(self, guest: _Guest, reason: str, detail: str = "") -> None:
        self._herald(ConnectionDropped(guest.call.host, reason, detail))

    def _close(self, guest: _Guest) -> None:
        self._forget(guest)
        with contextlib.suppress(OSError):
            guest.call.wire.close()

    def _forget(self, guest: _Guest) -> None:
        if guest not in self._guests:
            return
        del self._guests[guest]
        host = guest.call.host
        self._of_address[host] -= 1
        if not self._of_address[host]:
            del self._of_address[host]
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(guest.call.wire)


def _ignore(guest: _Guest) -> None:
    """What a peer says that was sent away is not wanted, but read: closing on it would take our last word back."""
    while piece := guest.call.wire.recv(1 << 14):
        guest.ignored += len(piece)
        if guest.ignored > MOST_IGNORED_BYTES:
            break
    raise ConnectionError("it has gone, or does not listen")


def _lacking(heard: bytearray) -> int:
    """How many bytes there are to read before anything can be said of the request."""
    if len(heard) < HEADER_BYTES:
        return HEADER_BYTES - len(heard)
    return HEADER_BYTES + int.from_bytes(heard[2:6], "big") - len(heard)


def _fault(heard: bytearray) -> tuple[int, str] | None:
    """Why this begins no A-ASSOCIATE-RQ that is taken: A-ABORT's reason (PS3.8 Section 9.3.8) and a word."""
    kind, length = struct.unpack_from(">BxL", heard)
    if kind != ASSOCIATE_RQ:
        return (UNEXPECTED_PDU if 0 < kind <= ABORT else UNRECOGNIZED_PDU), "malformed"
    if length > LONGEST_REQUEST_BYTES:
        return INVALID_VALUE, "too-long"
    if length < TITLES_END - HEADER_BYTES:
        return INVALID_VALUE, "malformed"
    return None


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's word for a failed handshake; of a certificate, why it was not taken."""
    told = getattr(error, "verify_message", "") or (error.reason or "unknown").replace("_", " ").lower()
    return str(told)
