"""The Storage SCP (PS3.4 Annex B): C-ECHO and C-STORE for every storage SOP Class, bytes kept as they came."""

from __future__ import annotations

import gc
import socket
from functools import lru_cache
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification

from overread.domain.events import AssociationOpened, Trouble
from overread.ports import Herald
from overread.receive import commitment_report
from overread.receive.admission import Knock, Pass
from overread.receive.commitment.service import Commitment
from overread.receive.commitment_report import Reports
from overread.receive.door import Door
from overread.receive.intake import Claim, Intake
from overread.receive.seats import Gate, Seat, Seats, Watched
from overread.receive.upper_layer import FAST, Layers, Server
from overread.receive.upper_layer.codec import StoreRequest
from overread.receive.upper_layer.messages import Bounds
from overread.receive.upper_layer.server import Fitting, Opening
from overread.spool.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

# pynetdicom pretty-prints every PDU to its log unless told not to: slow, and patient data in a log.
_config.LOG_HANDLER_LEVEL = "none"


class Associations:
    """Makes associations of connections that were let in, and hands what comes to ``intake``.

    ``gate`` is told when one ends and how much it brought; ``commitment`` takes requests for storage commitment, and
    ``reports`` what a PACS answers to ours.
    """

    def __init__(
        self,
        door: Door,
        gate: Gate,
        intake: Intake,
        herald: Herald,
        layers: Layers = FAST,
        *,
        commitment: Commitment | None = None,
        reports: Reports | None = None,
    ) -> None:
        self._intake, self._gate, self._herald = intake, gate, herald
        self._seats = Seats(gate, herald)
        bounds = Bounds(2 * intake.limits.instance_bytes, door.max_message_bytes)
        fitting = Fitting(self._begin, door.max_pdu_bytes, door.network_timeout_s, layers, bounds)
        handlers = [
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_RELEASED, self._on_end),
            (evt.EVT_ABORTED, self._on_end),
            (evt.EVT_CONN_CLOSE, self._on_end),
            (evt.EVT_C_STORE, self._on_store),
        ]
        if commitment is not None:
            handlers.append((evt.EVT_N_ACTION, commitment.on_action))
        if reports is not None:
            handlers.append((evt.EVT_N_EVENT_REPORT, reports.on_event_report))
        self.server = Server(_entity(door), (door.host, door.port), fitting, handlers)
        # pynetdicom collects garbage at every sixtieth connection: what is here now need not be looked through again.
        gc.collect()
        gc.freeze()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._seats)

    def welcome(self, wire: socket.socket, address: Any, request: bytes, admitted: Pass, knock: Knock) -> None:
        """Make an association of a connection whose A-ASSOCIATE-RQ was read already. Never raises."""
        seat = Seat(admitted, knock.calling_ae, knock.called_ae, knock.address)
        opening = Opening(wire, request, lambda association: self._seats.sit(association, seat))
        try:
            self.server.open(opening, address)
        except Exception as error:
            # The edge to one caller: no thread may be left, for instance.
            self._herald(Trouble("receive", type(error).__name__))
            self._gate.leave(admitted.id)
            wire.close()

    def make_way(self, peer: str) -> bool:
        """End the association, of ``peer`` if named, that was idle longest; False when none was for long enough."""
        return self._seats.make_way(peer)

    def sweep(self) -> None:
        """Give back the places of associations that have ended unannounced."""
        self._seats.sweep()

    def stop(self) -> None:
        """Abort what is open."""
        for association in self.server.active_associations:
            association.abort()

    def _on_established(self, event: Any) -> None:
        seat = self._seats.establish(event.assoc)
        if seat is not None:
            self._herald(AssociationOpened(seat.calling_ae, seat.address))

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
    """What the listener accepts: Verification, every storage SOP Class it knows in every transfer syntax, and Storage
    Commitment, of which the caller may be the user (it asks) or the provider (it answers what we asked)."""
    from pynetdicom import build_context

    storage = [build_context(cx.abstract_syntax, ALL_TRANSFER_SYNTAXES) for cx in AllStoragePresentationContexts]
    return (build_context(Verification), *storage, commitment_report.context())
