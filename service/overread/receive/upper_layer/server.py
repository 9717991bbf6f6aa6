"""The server: accepts connections, and equips each association with the layers before its threads start."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import AE
from pynetdicom.transport import AssociationServer, RequestHandler

from overread.receive.upper_layer.hooks import moved
from overread.receive.upper_layer.layers import FAST, STOCK, Layers
from overread.receive.upper_layer.messages import Begin, Bounds, Messages
from overread.receive.upper_layer.reactor import WaitingAssociation, WaitingDUL
from overread.receive.upper_layer.reading import CuttingDUL, StructDIMSE, WaitingCuttingDUL
from overread.receive.upper_layer.wire import WireSocket

_log = logging.getLogger(__name__)
SLACK_BYTES = 4096


@dataclass(frozen=True)
class Fitting:
    """How associations are equipped. ``stall_s`` bounds each single wait for the peer in a read or a write."""

    begin: Begin
    longest_pdu_bytes: int
    stall_s: float
    layers: Layers = FAST
    bounds: Bounds = field(default_factory=Bounds)


class SharedContexts(list[Any]):
    """Presentation contexts that pynetdicom may copy for each association without copying what they hold."""

    def __deepcopy__(self, _memo: object) -> list[Any]:
        return [copy.copy(context) for context in self]


class Handler(RequestHandler):  # type: ignore[misc]
    """Makes an association of a connection."""

    def _create_association(self) -> Any:
        association = super()._create_association()
        equip(association, self.server.fitting)
        return association


class Server(AssociationServer):  # type: ignore[misc]
    """pynetdicom's server with the layers of a ``Fitting``; accepts on the thread that calls ``serve_forever``.

    A pynetdicom whose insides are not as ``hooks`` knows them is used as it comes, and the log says so.
    """

    request_queue_size = 128

    def __init__(self, entity: AE, address: tuple[str, int], fitting: Fitting, handlers: list[Any]) -> None:
        lost = moved()
        if lost and fitting.layers != STOCK:
            _log.warning("this pynetdicom is not the one that the fast layers know (%s): it is used as it comes", lost)
            fitting = Fitting(fitting.begin, fitting.longest_pdu_bytes, fitting.stall_s, STOCK)
        self.fitting = fitting
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

    def shutdown(self) -> None:
        """Stop accepting and close the socket."""
        self.ae._servers.append(self)  # where pynetdicom's own shutdown looks for it
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """A connection that could not become an association; socketserver would print a traceback."""
        _log.exception("a connection could not be taken")


def equip(association: Any, fitting: Fitting) -> None:
    """Exchange the classes of a new association's parts in place, before any of its threads runs.

    Constructing them anew would announce the connection twice to the state machine.
    """
    layers, dul = fitting.layers, association.dul
    if layers.wire:
        dul.socket.__class__ = WireSocket
        dul.socket.equip(fitting.longest_pdu_bytes + SLACK_BYTES, fitting.stall_s, streaming=layers.fragments)
    if layers.codec:
        association.dimse.__class__ = StructDIMSE
    dul.__class__ = _dul_class(layers, type(dul))
    if layers.reactor:
        association.__class__ = WaitingAssociation
        association.equip_reactor()
        dul.equip_reactor()
    if layers.fragments:
        messages = Messages(association, layers, fitting.begin, fitting.bounds)
        dul.equip_fragments(messages, fitting.longest_pdu_bytes + SLACK_BYTES)


def _dul_class(layers: Layers, stock: type) -> type:
    if layers.fragments:
        return WaitingCuttingDUL if layers.reactor else CuttingDUL
    return WaitingDUL if layers.reactor else stock
