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

from overread.domain.events import AssociationClosed, AssociationOpened, AssociationRefused, Trouble
from overread.ports import Herald
from overread.receive import commitment_report
from overread.receive.admission import CONGESTED, Judge, Refusal
from overread.receive.commitment_report import Reports
from overread.receive.intake import Claim, Intake, Reception
from overread.receive.upper_layer import FAST, Layers, Server
from overread.receive.upper_layer.codec import StoreRequest
from overread.receive.upper_layer.server import Fitting
from overread.spool.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

# pynetdicom pretty-prints every PDU to its log unless told not to: slow, and patient data in a log.
_config.LOG_HANDLER_LEVEL = "none"


@dataclass(frozen=True)
class Door:
    """Where and how to listen; times in seconds."""

    ae_title: str
    host: str
    port: int
    max_pdu_bytes: int
    acse_timeout_s: float
    dimse_timeout_s: float
    network_timeout_s: float


class Listener:
    """Accepts associations and hands what comes to ``intake``."""

    def __init__(
        self,
        door: Door,
        admission: Judge,
        intake: Intake,
        herald: Herald,
        layers: Layers = FAST,
        *,
        reports: Reports | None = None,
    ) -> None:
        self._door = door
        self._admission = admission
        self._intake = intake
        self._herald = herald
        self._layers = layers
        self._reports = reports
        self._open: dict[Any, bool] = {}  # association → whether it was established
        self._lock = threading.Lock()
        self._server: Server | None = None

    def start(self) -> None:
        """Bind and serve in the background; raises OSError when the port is taken."""
        server = self.open(bind=True)
        threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()

    def open(self, *, bind: bool = False) -> Server:
        """Get ready to serve the connections that ``take`` is given."""
        door = self._door
        fitting = Fitting(self._begin, door.max_pdu_bytes, door.network_timeout_s, self._layers)
        handlers = [
            (evt.EVT_REQUESTED, self._on_request),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_RELEASED, self._on_end),
            (evt.EVT_ABORTED, self._on_end),
            (evt.EVT_CONN_CLOSE, self._on_end),
            (evt.EVT_C_STORE, self._on_store),
        ]
        if self._reports is not None:
            handlers.append((evt.EVT_N_EVENT_REPORT, self._reports.on_event_report))
        self._server = Server(_entity(door), (door.host, door.port), fitting, handlers, bind=bind)
        # pynetdicom collects garbage at every sixtieth connection: what is here now need not be looked through again.
        gc.collect()
        gc.freeze()
        return self._server

    def take(self, connection: socket.socket, address: Any) -> None:
        """Serve a connection; not from several threads at once."""
        if self._server is None:
            connection.close()
        else:
            self._server.take(connection, address)

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        assert self._server is not None
        return int(self._server.socket.getsockname()[1])

    @property
    def associations(self) -> int:
        """How many associations are open."""
        with self._lock:
            return len(self._open)

    def stop(self) -> None:
        """Stop accepting, end what is open."""
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            for association in server.active_associations:
                association.abort()

    def _on_request(self, event: Any) -> None:
        request = event.assoc.requestor.primitive
        address = str(event.assoc.requestor.address)
        calling = str(request.calling_ae_title).strip()
        refusal = self._admit(event.assoc, calling, str(request.called_ae_title).strip(), address)
        if refusal is not None:
            event.assoc.acse.send_reject(refusal.result, refusal.source, refusal.reason)
            event.assoc.kill()
            self._herald(AssociationRefused(calling, address, refusal.word))

    def _admit(self, association: Any, calling: str, called: str, address: str) -> Refusal | None:
        with self._lock:
            self._open = {a: established for a, established in self._open.items() if a.is_alive()}
            try:
                refusal = self._admission.judge(calling, called, address, len(self._open))
            except Exception as error:
                # The edge to whoever calls: pynetdicom lets everybody in when this handler raises.
                self._herald(Trouble("receive", type(error).__name__))
                return CONGESTED
            if refusal is None:
                self._open[association] = False
            return refusal

    def _on_established(self, event: Any) -> None:
        with self._lock:
            self._open[event.assoc] = True
        self._herald(AssociationOpened(_caller(event), str(event.assoc.requestor.address)))

    def _on_end(self, event: Any) -> None:
        with self._lock:
            established = self._open.pop(event.assoc, False)
        if established:
            self._herald(AssociationClosed(_caller(event)))

    def _begin(self, association: Any, request: StoreRequest, transfer_syntax_uid: str) -> Reception:
        calling_ae = str(association.requestor.ae_title).strip()
        return self._intake.begin(
            Claim(request.sop_class_uid, request.sop_instance_uid, transfer_syntax_uid, calling_ae)
        )

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


def _caller(event: Any) -> str:
    return str(event.assoc.requestor.ae_title).strip()


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
    """What the listener accepts: Verification, every storage SOP Class it knows in every transfer syntax, and the
    answers to Storage Commitment."""
    from pynetdicom import build_context

    storage = [build_context(cx.abstract_syntax, ALL_TRANSFER_SYNTAXES) for cx in AllStoragePresentationContexts]
    return (build_context(Verification), *storage, commitment_report.context())
