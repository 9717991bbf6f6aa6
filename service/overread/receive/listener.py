"""The Storage SCP (PS3.4 Annex B): C-ECHO and C-STORE for every storage SOP Class, bytes kept as they came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification

from overread.domain.errors import Refused
from overread.domain.events import (
    AssociationClosed,
    AssociationOpened,
    AssociationRefused,
    InstanceReceived,
    InstanceRefused,
    Trouble,
)
from overread.domain.study import Instance
from overread.ledger.arrivals import Arrival
from overread.ports import Herald
from overread.receive.admission import CONGESTED, Admission, Refusal
from overread.receive.wire import tune
from overread.spool import Spool
from overread.spool.files import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, file_meta
from overread.spool.header import read_instance

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

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
    """Accepts associations and stores what comes. ``keep`` is called after an instance is durable and acknowledged."""

    def __init__(
        self,
        door: Door,
        admission: Admission,
        spool: Spool,
        keep: Callable[[Arrival], None],
        herald: Herald,
    ) -> None:
        self._door = door
        self._admission = admission
        self._spool = spool
        self._keep = keep
        self._herald = herald
        self._open: dict[Any, bool] = {}  # association → whether it was established
        self._lock = threading.Lock()
        self._server: Any = None

    def start(self) -> None:
        """Bind and serve in the background; raises OSError when the port is taken."""
        self._server = _entity(self._door).start_server(
            (self._door.host, self._door.port),
            block=False,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._on_connect),
                (evt.EVT_REQUESTED, self._on_request),
                (evt.EVT_ESTABLISHED, self._on_established),
                (evt.EVT_RELEASED, self._on_end),
                (evt.EVT_ABORTED, self._on_end),
                (evt.EVT_CONN_CLOSE, self._on_end),
                (evt.EVT_C_STORE, self._on_store),
            ],
        )

    @property
    def port(self) -> int:
        """The port in use, also when 0 was asked for."""
        return int(self._server.socket.getsockname()[1])

    @property
    def associations(self) -> int:
        """How many associations are open."""
        with self._lock:
            return len(self._open)

    def stop(self) -> None:
        """Stop accepting, end what is open."""
        if self._server is not None:
            self._server.shutdown()
            for association in self._server.active_associations:
                association.abort()
            self._server = None

    def _on_connect(self, event: Any) -> None:
        tune(event.assoc.dul.socket, self._door.max_pdu_bytes, self._door.network_timeout_s)

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

    def _on_store(self, event: Any) -> int:
        started = time.monotonic()
        try:
            status, reason = self._take(event, started)
        except OSError as error:
            status, reason = OUT_OF_RESOURCES, f"the spool does not take it: {error.strerror}"
        except Exception as error:
            # The edge of the association: an unexpected fault must answer "try again", and never acknowledge.
            self._herald(Trouble("receive", type(error).__name__))
            status, reason = OUT_OF_RESOURCES, type(error).__name__
        if status != SUCCESS:
            self._herald(InstanceRefused(_caller(event), status, reason))
        return status

    def _take(self, event: Any, started: float) -> tuple[int, str]:
        if not self._admission.has_room():
            return OUT_OF_RESOURCES, "the spool is full"
        data = event.request.DataSet.getvalue()
        try:
            instance = read_instance(data, str(event.context.transfer_syntax))
        except Refused as error:
            reason = str(error)
            self._spool.quarantine(data, f"{reason} (0x{CANNOT_UNDERSTAND:04X}, from {_caller(event)})")
            return CANNOT_UNDERSTAND, reason
        if instance.sop_instance_uid != str(event.request.AffectedSOPInstanceUID):
            return MISMATCH, "the data set's SOPInstanceUID is not the one in the command"
        if instance.sop_class_uid != str(event.request.AffectedSOPClassUID):
            return MISMATCH, "the data set's SOPClassUID is not the one in the command"
        self._store(event, instance, data, started)
        return SUCCESS, ""

    def _store(self, event: Any, instance: Instance, data: bytes, started: float) -> None:
        caller = _caller(event)
        syntax = str(event.context.transfer_syntax)
        meta = file_meta(instance.sop_class_uid, instance.sop_instance_uid, syntax, caller)
        stored = self._spool.keep(instance.study_uid, instance.sop_instance_uid, meta, data)
        known = replace(instance, path=stored.path, digest=stored.digest, calling_ae=caller)
        self._keep(Arrival(known, stored.size_bytes, time.time()))
        seconds = time.monotonic() - started
        self._herald(InstanceReceived(caller, instance.study_uid, instance.sop_class_uid, stored.size_bytes, seconds))


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
    """What the listener accepts: Verification, and every storage SOP Class it knows in every transfer syntax."""
    from pynetdicom import build_context

    storage = [build_context(cx.abstract_syntax, ALL_TRANSFER_SYNTAXES) for cx in AllStoragePresentationContexts]
    return (build_context(Verification), *storage)
