"""One association as a requestor: opened with exactly the contexts that are needed, never used after a silence."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from threading import Timer
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext, build_context

from overread.domain.errors import Rejected, Unreachable
from overread.domain.peer import Peer

Pair = tuple[str, str]

_ABORT_GRACE_S = 0.1
_PROBE_S = 3.0
_REMEDIES = {
    (1, 3): "it does not know the calling AE title {own!r}: have it added there",
    (1, 7): "it does not go by the called AE title {peer!r}: correct ae_title",
}


@contextlib.contextmanager
def association(peer: Peer, own_ae_title: str, contexts: Sequence[Pair], *, timeout_s: float) -> Iterator[Any]:
    """An established association with ``peer``, released at the end and aborted when the peer has fallen silent.

    ``contexts`` are (SOP Class UID, Transfer Syntax UID) pairs, at most 128, each proposed by itself. ``timeout_s``
    bounds the connection, the negotiation and each answer; a send that the peer does not read is bounded by it too.
    Raises Unreachable with the reason in words, or Rejected when the peer accepts none of the contexts.
    """
    wire = _Wire(timeout_s)
    line = _open(peer, own_ae_title, [build_context(*pair) for pair in contexts], wire)
    try:
        if not line.is_established:
            raise _why_not(line, wire, peer, own_ae_title, contexts)
        yield line
    finally:
        if line.is_established:
            line.release()
        if line.is_alive():
            line.join(timeout_s)
        wire.close()


def accepted(line: Any) -> set[Pair]:
    """The (SOP Class UID, Transfer Syntax UID) pairs that the peer accepted."""
    return {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in line.accepted_contexts}


def name_of(uid: str) -> str:
    """A registered UID's name, otherwise the UID."""
    return str(UID(uid).name)


class _Wire:
    """The socket below an association: no Nagle, no endless send, cut off when aborted, and always closed."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.connected = False
        self._socket: socket.socket | None = None

    def take(self, wire: socket.socket) -> None:
        """Prepare a socket that is about to connect."""
        self._socket = wire
        seconds = int(self.timeout_s)
        limit = struct.pack("ll", seconds, int((self.timeout_s - seconds) * 1_000_000))
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def opened(self, _: Any) -> None:
        self.connected = True

    def closed(self, event: Any) -> None:
        """Wake whoever waits for an answer of a peer that has died. The library does so too, but between two messages
        its reactor may take that call for itself, and the next message would wait for its whole time-out."""
        Timer(_ABORT_GRACE_S, event.assoc.dimse.msg_queue.put, [(None, None)]).start()

    def aborted(self, _: Any) -> None:
        """Let the A-ABORT leave, then wake whatever waits on the socket: without it, a silent peer is waited for."""
        if self._socket is not None and self.connected:
            time.sleep(_ABORT_GRACE_S)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


class _Entity(AE):  # type: ignore[misc,unused-ignore]
    """Hands its client socket to a wire, because pynetdicom leaves it open when a connection fails."""

    def __init__(self, own_ae_title: str, wire: _Wire) -> None:
        super().__init__(own_ae_title)
        self.connection_timeout = self.acse_timeout = self.dimse_timeout = wire.timeout_s
        self.network_timeout = None
        self._wire = wire

    def _create_socket(self, *args: Any) -> Any:
        made = super()._create_socket(*args)
        self._wire.take(made.socket)
        return made


def _open(peer: Peer, own_ae_title: str, contexts: list[PresentationContext], wire: _Wire) -> Any:
    handlers = [(evt.EVT_CONN_OPEN, wire.opened), (evt.EVT_CONN_CLOSE, wire.closed), (evt.EVT_ABORTED, wire.aborted)]
    try:
        entity = _Entity(own_ae_title, wire)
        return entity.associate(peer.host, peer.port, contexts, peer.ae_title, evt_handlers=handlers)
    except socket.gaierror:
        raise Unreachable(f"{_name(peer)} cannot be found: the host name is not known here; correct host") from None


def _why_not(line: Any, wire: _Wire, peer: Peer, own: str, contexts: Sequence[Pair]) -> Unreachable | Rejected:
    answer = line.acceptor.primitive
    if not wire.connected:
        return Unreachable(f"{_name(peer)} cannot be reached: {_probe(peer, wire.timeout_s)}")
    if line.is_rejected:
        remedy = _REMEDIES.get((answer.result_source, answer.diagnostic), "").format(own=own, peer=peer.ae_title)
        words = ", ".join((answer.result_str, answer.source_str, answer.reason_str))
        return Unreachable(f"{_name(peer)} refused the association: {words}" + (f"; {remedy}" if remedy else ""))
    if answer is not None and answer.result == 0:
        offered = ", ".join(sorted({name_of(sop_class) for sop_class, _ in contexts}))
        return Rejected(f"{_name(peer)} accepted no presentation context for {offered}; have it enabled there")
    if line.acse.is_aborted() or line.is_aborted:
        return Unreachable(f"{_name(peer)} broke off the association while it was being opened")
    return Unreachable(f"{_name(peer)} did not answer the association request within {wire.timeout_s:g} s")


def _probe(peer: Peer, timeout_s: float) -> str:
    """Why no connection came about, asked once more because the association only says that there is none."""
    try:
        socket.create_connection((peer.host, peer.port), min(timeout_s, _PROBE_S)).close()
    except TimeoutError:
        return "no answer; check host, port and the firewall between"
    except ConnectionRefusedError:
        return "nothing listens there; start it, or correct host and port"
    except OSError as error:
        return error.strerror or type(error).__name__
    return "the connection failed a moment ago, though it answers now"


def _name(peer: Peer) -> str:
    return f"{peer.ae_title} at {peer.host}:{peer.port}"
