"""A PACS that keeps what it is given, gives it back, answers queries, and misbehaves on request."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, build_context, evt
from pynetdicom.sop_class import (
    LabelMapSegmentationStorage,  # type: ignore[attr-defined,unused-ignore]
    StorageCommitmentPushModel,  # type: ignore[attr-defined,unused-ignore]
    StudyRootQueryRetrieveInformationModelFind,  # type: ignore[attr-defined,unused-ignore]
    StudyRootQueryRetrieveInformationModelGet,  # type: ignore[attr-defined,unused-ignore]
    StudyRootQueryRetrieveInformationModelMove,  # type: ignore[attr-defined,unused-ignore]
    Verification,  # type: ignore[attr-defined,unused-ignore]
)

from overread.domain.peer import Peer
from overread.simulate.catalogue import Catalogue
from overread.simulate.commitment import Committing
from overread.simulate.holdings import OUT_OF_RESOURCES, Holdings
from overread.simulate.mischief import Mischief, Mishap

WATCH_S = 0.02
ESTABLISHED = "Sta6"  # PS3.8 Table 9-10
A_ABORT = bytes([0x07, 0, 0, 0, 0, 4, 0, 0, 0x02, 0x00])  # by the service-provider, no reason (PS3.8 Table 9-26)
_KEPT = (0x0000, 0x0111)


class Pacs:
    """An SCP for C-ECHO, C-STORE, C-FIND, C-GET, C-MOVE (Study Root) and Storage Commitment.

    ``mischief`` says what goes wrong (``simulate.mischief``). For what always goes wrong there are switches, read at
    each request and to be set from any thread: ``refuse`` (associations are refused, as by a PACS that is full),
    ``status`` (answered to each C-STORE; a failure stores nothing), ``delay_s`` (waited before each C-STORE answer),
    ``lose`` (the object is dropped whatever is answered), ``queries`` (False: C-FIND fails, 0xC001). ``peers`` are the
    AEs that it can call, by their titles: destinations of C-MOVE, and who is told of storage commitment on an
    association of its own.
    """

    def __init__(
        self,
        folder: Path,
        ae_title: str = "PACS",
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        transfer_syntaxes: tuple[str, ...] = tuple(ALL_TRANSFER_SYNTAXES),
        peers: Mapping[str, Peer] | None = None,
        without: tuple[str, ...] = (),
    ) -> None:
        """``port`` 0 takes a free one, told by ``port`` after ``start``; nothing is opened before. Storage of the SOP
        Class UIDs ``without`` is not accepted."""
        self.holdings, self.mischief = Holdings(folder), Mischief()
        self.ae_title, self.host, self.port = ae_title, host, port
        self.transfer_syntaxes = transfer_syntaxes
        self.peers, self.without = dict(peers or {}), without
        self.refuse = False
        self.status = 0x0000
        self.delay_s = 0.0
        self.lose = False
        self.queries = True
        self._committing = Committing(ae_title, self.holdings.holds, self.mischief, self.peers)
        self._entity: Any = None
        self._door = threading.Lock()
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def folder(self) -> Path:
        """Where it keeps what it gets."""
        return self.holdings.folder

    @property
    def catalogue(self) -> Catalogue:
        """What it knows of its objects."""
        return self.holdings.catalogue

    @property
    def stored(self) -> dict[str, int]:
        """How often each SOP Instance UID was stored."""
        return self.holdings.stored

    @property
    def received(self) -> dict[str, int]:
        """How often each SOP Instance UID came."""
        return self.holdings.received

    def start(self) -> Pacs:
        """Read what the folder holds and listen. Raises OSError when the port is taken."""
        self.holdings.read()
        self._stopped.clear()
        self._open()
        self._watcher = threading.Thread(target=self._watch, name=f"{self.ae_title} is up or down", daemon=True)
        self._watcher.start()
        return self

    def stop(self) -> None:
        """Abort what is open and close the port; a second call does nothing. ``start`` opens it again."""
        self._stopped.set()
        self.mischief.clear()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        self._close()

    def __enter__(self) -> Pacs:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def files(self) -> list[Path]:
        """The Part 10 files that it holds."""
        return self.holdings.files()

    def take(self, part10: bytes, uid: str) -> int:
        """An object came, by whatever way: the status that is answered. What it says it keeps is on the disk then,
        unless it lies."""
        self.holdings.count(uid)
        answered = self.mischief.strikes(Mishap.ANSWER)
        status = answered.status if answered else self.status
        if self.mischief.strikes(Mishap.DISK_FULL):
            return OUT_OF_RESOURCES
        if status >> 12 != 0xB and status not in _KEPT:
            return status
        lost = self.mischief.strikes(Mishap.LOSE) is not None or self.lose
        return status if lost else self._keep(part10, uid, status)

    def _keep(self, part10: bytes, uid: str, status: int) -> int:
        return self.holdings.keep(part10, uid) or status

    def _open(self) -> None:
        with self._door:
            entity = _entity(self)
            server = entity.start_server((self.host, self.port), block=False, evt_handlers=self._handlers())
            self.port = int(server.server_address[1])
            self._entity = entity

    def _close(self) -> None:
        with self._door:
            if self._entity is not None:
                entity, self._entity = self._entity, None
                entity.shutdown()

    def _watch(self) -> None:
        """Be down while a fault says so."""
        while not self._stopped.wait(WATCH_S):
            down = self.mischief.is_on(Mishap.DOWN)
            if down and self._entity is not None:
                self._close()
            elif not down and self._entity is None:
                with contextlib.suppress(OSError):  # somebody else has the port for a moment
                    self._open()

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, _without_nagle),
            (evt.EVT_ACCEPTED, self._on_accepted),
            (evt.EVT_DATA_RECV, self._on_bytes),
            (evt.EVT_C_ECHO, lambda _: 0x0000),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
            (evt.EVT_C_GET, self._on_get),
            (evt.EVT_C_MOVE, self._on_move),
            (evt.EVT_N_ACTION, self._committing.on_action),
        ]

    def _on_accepted(self, event: Any) -> None:
        if stall := self.mischief.strikes(Mishap.STALL_ACCEPTED):
            self.mischief.stall(stall)
        if self.mischief.strikes(Mishap.ABORT_ACCEPTED):
            _abort(event)

    def _on_bytes(self, event: Any) -> None:
        if slow := self.mischief.strikes(Mishap.SLOW):
            self.mischief.stall(slow)
        if not _begins_data_set(event.data):
            return
        if stall := self.mischief.strikes(Mishap.STALL_TRANSFER):
            self.mischief.stall(stall)
        if self.mischief.strikes(Mishap.ABORT_TRANSFER):
            _abort(event)

    def _on_store(self, event: Any) -> int:
        time.sleep(self.delay_s)
        status = self.take(event.encoded_dataset(), str(event.request.AffectedSOPInstanceUID))
        if stall := self.mischief.strikes(Mishap.STALL_RESPONSE):
            self.mischief.stall(stall)
        if self.mischief.strikes(Mishap.ABORT_RESPONSE):
            _abort(event)
        return status

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if stall := self.mischief.strikes(Mishap.STALL_QUERY):
            self.mischief.stall(stall)
        if not self.queries or self.mischief.strikes(Mishap.NO_QUERIES):
            yield 0xC001, None
            return
        try:
            answers = self.catalogue.find(event.identifier)
        except ValueError:
            yield 0xA900, None
            return
        for answer in answers:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            answer.RetrieveAETitle = self.ae_title
            yield 0xFF00, answer

    def _on_get(self, event: Any) -> Iterator[Any]:
        found = self.holdings.wanted(event.identifier)
        yield len(found)
        for path in found:
            yield 0xFF00, dcmread(path)

    def _on_move(self, event: Any) -> Iterator[Any]:
        peer = self.peers.get(str(event.move_destination).strip())
        if peer is None:
            yield None, None
            return
        found = self.holdings.wanted(event.identifier)
        offered = {(m.MediaStorageSOPClassUID, m.TransferSyntaxUID) for m in (dcmread(p).file_meta for p in found)}
        contexts = [build_context(*pair) for pair in sorted(offered)] or [build_context(Verification)]
        yield peer.host, peer.port, {"contexts": contexts, "ae_title": peer.ae_title}
        yield from self._on_get(event)


def _entity(pacs: Pacs) -> Any:
    """An application entity whose limit of associations is what the PACS' mood says."""

    class Entity(AE):  # type: ignore[misc,unused-ignore]
        @property
        def maximum_associations(self) -> int:
            return 0 if pacs.refuse or pacs.mischief.strikes(Mishap.REFUSE) else 100

    entity = Entity(ae_title=pacs.ae_title)
    entity.add_supported_context(Verification)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    entity.add_supported_context(StorageCommitmentPushModel)
    storage = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    for sop_class in sorted((storage | {str(LabelMapSegmentationStorage)}) - set(pacs.without)):
        # Both roles: who asks by C-GET is given the objects on the same association.
        entity.add_supported_context(sop_class, list(pacs.transfer_syntaxes), scu_role=True, scp_role=True)
    return entity


def _begins_data_set(content: bytes) -> bool:
    """Whether a PDU is a P-DATA-TF whose first value is a fragment of a data set (PS3.8 9.3.5, E.2)."""
    return len(content) > 12 and content[0] == 0x04 and not content[11] & 1


def _abort(event: Any) -> None:
    """A-ABORT and the end of the connection, whatever state the peer has brought the association into meanwhile."""
    layer, deadline = event.assoc.dul, time.monotonic() + 1.0
    while layer.state_machine.current_state != ESTABLISHED and time.monotonic() < deadline:
        time.sleep(WATCH_S / 10)  # the acceptance is still being sent
    with contextlib.suppress(OSError, AttributeError):
        layer.socket.socket.sendall(A_ABORT)
        layer.socket.close()


def _without_nagle(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
