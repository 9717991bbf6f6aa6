"""The Storage SCP (PS3.4 Annex B): C-ECHO and C-STORE for every storage SOP Class, bytes kept as they came."""

from __future__ import annotations

import gc
import socket
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification

from overread.domain.events import AssociationOpened, AssociationRefused, Trouble
from overread.ports import Herald
from overread.receive.admission import CONGESTED, Knock, Pass, Refusal
from overread.receive.intake import Claim, Intake
from overread.receive.seats import Gate, Seat, Seats, Watched
from overread.receive.tls import Tls
from overread.receive.upper_layer import FAST, Layers, Server
from overread.receive.upper_layer.codec import StoreRequest
from overread.receive.upper_layer.server import Fitting, Opening
from overread.receive.waiting import Call, Limits, WaitingRoom
from overread.spool.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

# pynetdicom pretty-prints every PDU to its log unless told not to: slow, and patient data in a log.
_config.LOG_HANDLER_LEVEL = "none"


@dataclass(frozen=True)
class Door:
    """Where and how to listen; times in seconds. ``secure_host`` and ``secure_port`` are those of TLS."""

    ae_title: str
    host: str
    port: int
    max_pdu_bytes: int
    acse_timeout_s: float
    dimse_timeout_s: float
    network_timeout_s: float
    secure_host: str = ""
    secure_port: int = 0
    max_connections: int = 400
    max_connections_per_address: int = 100


class Listener:
    """Accepts associations and hands what comes to ``intake``; with ``tls`` at a second, secure port, too.

    Each connection passes the waiting room, is judged by ``admission`` and takes a seat. It is the room's ``Host``.
    """

    def __init__(
        self,
        door: Door,
        admission: Gate,
        intake: Intake,
        herald: Herald,
        layers: Layers = FAST,
        *,
        tls: Tls | None = None,
    ) -> None:
        self._door, self._layers, self._tls = door, layers, tls
        self._intake = intake
        self._herald = herald
        self._seats = Seats(admission, herald)
        handshake_s = tls.terms.handshake_timeout_s if tls else 0.0
        limits = Limits(door.acse_timeout_s, handshake_s, door.max_connections, door.max_connections_per_address)
        self._room = WaitingRoom(self, limits, herald)
        self._servers: list[Server] = []

    def start(self) -> None:
        """Bind and serve in the background; raises OSError when a port is taken."""
        door = self._door
        fitting = Fitting(self._begin, door.max_pdu_bytes, door.network_timeout_s, self._layers)
        handlers = [
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_RELEASED, self._on_end),
            (evt.EVT_ABORTED, self._on_end),
            (evt.EVT_CONN_CLOSE, self._on_end),
            (evt.EVT_C_STORE, self._on_store),
        ]
        self._servers.append(Server(_entity(door), (door.host, door.port), fitting, handlers, self._arrive))
        if self._tls is not None:
            address = (door.secure_host or door.host, door.secure_port)
            try:
                self._servers.append(Server(_entity(door), address, fitting, handlers, self._arrive_securely))
            except OSError:
                self._servers.pop().server_close()
                raise
        # pynetdicom collects garbage at every sixtieth connection: what is here now need not be looked through again.
        gc.collect()
        gc.freeze()
        for server in self._servers:
            threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()
        self._room.start(self._tls)

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        return int(self._servers[0].socket.getsockname()[1])

    @property
    def secure_port(self) -> int:
        """The TLS port in use."""
        return int(self._servers[1].socket.getsockname()[1])

    @property
    def associations(self) -> int:
        """How many associations are open."""
        return len(self._seats)

    @property
    def waiting(self) -> int:
        """How many connections have not become associations."""
        return self._room.waiting

    def stop(self) -> None:
        """Stop accepting, end what is open."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.shutdown()
        if servers:
            self._room.stop()
        for server in servers:
            for association in server.active_associations:
                association.abort()

    def judge(self, knock: Knock) -> Pass | Refusal:
        """May somebody come in? Never raises."""
        try:
            return self._seats.enter(knock)
        except Exception as error:
            # The edge to whoever calls: what cannot be judged does not come in.
            self._herald(Trouble("receive", type(error).__name__))
            return CONGESTED

    def tidy(self) -> None:
        """Give back the places of associations that have ended."""
        self._seats.sweep()

    def turned_away(self, knock: Knock, refusal: Refusal) -> None:
        """Tell that somebody was told no."""
        result = f"{refusal.result}/{refusal.source}/{refusal.reason}"
        self._herald(AssociationRefused(knock.calling_ae, knock.address, refusal.word, result, knock.called_ae))

    def welcome(self, call: Call, admitted: Pass) -> None:
        """Make an association of a connection that was let in. Never raises."""
        knock = call.knock()
        seat = Seat(admitted, knock.calling_ae, knock.called_ae, knock.address)
        opening = Opening(call.wire, call.request, lambda association: self._seats.sit(association, seat))
        try:
            call.door.open(opening, call.address)
        except Exception as error:
            # The edge to one caller: no thread may be left, for instance.
            self._herald(Trouble("receive", type(error).__name__))
            self._seats.refuse(admitted)
            call.wire.close()

    def _arrive(self, wire: socket.socket, address: Any, door: Server) -> None:
        self._room.take(Call(wire, address, door))

    def _arrive_securely(self, wire: socket.socket, address: Any, door: Server) -> None:
        self._room.take(Call(wire, address, door), self._tls)

    def _on_established(self, event: Any) -> None:
        seat = self._seats.of(event.assoc)
        if seat is not None:
            self._herald(AssociationOpened(seat.calling_ae, seat.address))
            seat.established = True

    def _on_end(self, event: Any) -> None:
        self._seats.rise(event.assoc)

    def _begin(self, association: Any, request: StoreRequest, transfer_syntax_uid: str) -> Watched:
        # A seat that was given up a moment ago: what still comes is judged like anything else, and counts for nobody.
        seat = self._seats.of(association) or Seat(Pass(0, ""), _caller(association), _called(association), "")
        claim = Claim(
            request.sop_class_uid,
            request.sop_instance_uid,
            transfer_syntax_uid,
            seat.calling_ae,
            seat.called_ae,
            self._seats.unwanted(seat),
        )
        return self._seats.watch(seat, self._intake.begin(claim))

    def _on_store(self, event: Any) -> int | Dataset:
        """A C-STORE that came the stock way."""
        request = event.request
        sop_class, instance = str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        reception = self._begin(
            event.assoc, StoreRequest(request.MessageID, sop_class, instance), str(event.context.transfer_syntax)
        )
        reception.write([request.DataSet.getvalue()])
        answer = Dataset()
        answer.Status, comment = reception.finish()
        if comment:
            answer.ErrorComment = comment
        return answer


def _caller(association: Any) -> str:
    return str(association.requestor.ae_title).strip()


def _called(association: Any) -> str:
    return str(association.requestor.primitive.called_ae_title).strip()


def _entity(door: Door) -> AE:
    entity = AE(door.ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION
    entity.maximum_pdu_size = door.max_pdu_bytes
    entity.acse_timeout = door.acse_timeout_s
    entity.dimse_timeout = door.dimse_timeout_s
    entity.network_timeout = door.network_timeout_s
    # Counted by Admission instead: pynetdicom also counts bare TCP connections, such as a load balancer's checks.
    entity.maximum_associations = 100_000
    entity.supported_contexts = list(presentation_contexts())
    return entity


@lru_cache(maxsize=1)
def presentation_contexts() -> tuple[Any, ...]:
    """What the listener accepts: Verification, and every storage SOP Class it knows in every transfer syntax."""
    from pynetdicom import build_context

    storage = [build_context(cx.abstract_syntax, ALL_TRANSFER_SYNTAXES) for cx in AllStoragePresentationContexts]
    return (build_context(Verification), *storage)
