"""The server: accepts connections, and equips each association with the layers before its threads start."""

from __future__ import annotations

import copy
import logging
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from overread.receive.upper_layer.hooks import moved
from overread.receive.upper_layer.layers import FAST, STOCK, Layers
from overread.receive.upper_layer.messages import Begin, Messages
from overread.receive.upper_layer.reactor import WaitingAssociation, WaitingDUL
from overread.receive.upper_layer.reading import CuttingDUL, StructDIMSE, WaitingCuttingDUL
from overread.receive.upper_layer.secure_wire import SecureWireSocket
from overread.receive.upper_layer.wire import WireSocket

_log = logging.getLogger(__name__)
LAST_WORD_S = 1.0


@dataclass(frozen=True)
class Fitting:
    """How associations are equipped. ``stall_s`` bounds each single wait for the peer in a read or a write."""

    begin: Begin
    longest_pdu_bytes: int
    stall_s: float
    layers: Layers = FAST


@dataclass(frozen=True)
class Opening:
    """A connection of which an association is to be made: the peer has said ``first``, which was read already.

    ``seat`` is given the association before any of its threads runs.
    """

    wire: socket.socket
    first: bytes
    seat: Callable[[Any], None]


class HandedOver(AssociationSocket):  # type: ignore[misc]
    """pynetdicom's socket, of which something was read before."""

    first: bytearray

    @property
    def ready(self) -> bool:
        return bool(self.first) or bool(super().ready)

    def recv(self, nr_bytes: int) -> bytearray:
        taken, self.first = self.first[:nr_bytes], self.first[nr_bytes:]
        return taken + super().recv(nr_bytes - len(taken)) if len(taken) < nr_bytes else taken


class SharedContexts(list[Any]):
    """Presentation contexts that pynetdicom may copy for each association without copying what they hold."""

    def __deepcopy__(self, _memo: object) -> list[Any]:
        return [copy.copy(context) for context in self]


class Handler(RequestHandler):  # type: ignore[misc]
    """Makes an association of an ``Opening``."""

    _opening: Opening
    request: Any

    def setup(self) -> None:
        self._opening, self.request = self.request, self.request.wire

    def _create_association(self) -> Any:
        association = super()._create_association()
        equip(association, self.server.fitting, self._opening.first)
        self._opening.seat(association)
        return association


class Server(AssociationServer):  # type: ignore[misc]
    """pynetdicom's server with the layers of a ``Fitting``; accepts on the thread that calls ``serve_forever``.

    ``arrive`` is given each connection, its address and the server; ``open`` makes an association of it once it has
    said who it is.

    A pynetdicom whose insides are not as ``hooks`` knows them is used as it comes, and the log says so.
    """

    request_queue_size = 1024  # a flood that fills it costs everybody a second, until they try again

    def __init__(
        self,
        entity: AE,
        address: tuple[str, int],
        fitting: Fitting,
        handlers: list[Any],
        arrive: Callable[[socket.socket, Any, Server], None],
    ) -> None:
        lost = moved()
        if lost and fitting.layers != STOCK:
            _log.warning("this pynetdicom is not the one that the fast layers know (%s): it is used as it comes", lost)
            fitting = Fitting(fitting.begin, fitting.longest_pdu_bytes, fitting.stall_s, STOCK)
        self.fitting = fitting
        self._arrive = arrive
        contexts = entity.supported_contexts
        shared = SharedContexts(contexts) if fitting.layers.codec else contexts
        super().__init__(entity, address, entity.ae_title, shared, evt_handlers=handlers, request_handler=Handler)

    def get_request(self) -> Any:
        """Accept; when no descriptor is left, wait a moment instead of asking again at once for ever."""
        try:
            return super().get_request()
        except OSError:
            time.sleep(0.05)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """A connection was accepted."""
        self._arrive(request, client_address, self)

    def service_actions(self) -> None:
        """Nothing: pynetdicom collects garbage here, also for connections that never become an association."""

    def open(self, opening: Opening, address: Any) -> None:
        """Make an association. Raises whatever keeps it from being made."""
        super().service_actions()
        self.finish_request(opening, address)

    def shutdown(self) -> None:
        """Stop accepting and close the socket."""
        self.ae._servers.append(self)  # where pynetdicom's own shutdown looks for it
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A connection that could not become an association; socketserver would print a traceback."""
        _log.exception("a connection could not be taken")


def silent_s(association: Any) -> float:
    """Seconds since the peer was last heard of."""
    timer = association.dul._idle_timer
    return float(timer.timeout - timer.remaining) if timer.timeout else 0.0


def let_go(association: Any) -> None:
    """End an association as if it had been idle for too long, in its own threads; the peer gets an A-ABORT."""
    association.dul.artim_timer.timeout = LAST_WORD_S
    association.dul._idle_timer.timeout = 0.001
    wake = getattr(association, "wake", None)
    if wake is not None:
        wake()


def equip(association: Any, fitting: Fitting, first: bytes = b"") -> None:
    """Exchange the classes of a new association's parts in place, before any of its threads runs.

    Constructing them anew would announce the connection twice to the state machine. ``first`` was read already.
    """
    layers, dul = fitting.layers, association.dul
    secure = isinstance(dul.socket.socket, ssl.SSLSocket)
    if layers.wire:
        dul.socket.__class__ = SecureWireSocket if secure else WireSocket
        dul.socket.equip(fitting.longest_pdu_bytes, fitting.stall_s, streaming=layers.fragments)
        dul.socket.put_back(first)
    else:
        dul.socket.__class__, dul.socket.first = HandedOver, bytearray(first)
        dul.socket.socket.settimeout(fitting.stall_s)
    if layers.codec:
        association.dimse.__class__ = StructDIMSE
    dul.__class__ = _dul_class(layers, type(dul))
    if layers.reactor:
        association.__class__ = WaitingAssociation
        association.equip_reactor()
        dul.equip_reactor()
    if layers.fragments:
        messages = Messages(association, layers, fitting.begin)
        dul.equip_fragments(messages, fitting.longest_pdu_bytes)


def _dul_class(layers: Layers, stock: type) -> type:
    if layers.fragments:
        return WaitingCuttingDUL if layers.reactor else CuttingDUL
    return WaitingDUL if layers.reactor else stock
