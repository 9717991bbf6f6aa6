"""A PACS that keeps what it is given, answers queries, and misbehaves on request."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import (
    LabelMapSegmentationStorage,  # type: ignore[attr-defined,unused-ignore]
    StudyRootQueryRetrieveInformationModelFind,  # type: ignore[attr-defined,unused-ignore]
    Verification,  # type: ignore[attr-defined,unused-ignore]
)

from overread.simulate.catalogue import INDEXED, Catalogue
from overread.spool.durable import write_durable

_UID = re.compile(r"[0-9.]{1,64}")
_STORED = (0x0000, 0x0111)


class Pacs:
    """An SCP for C-ECHO, C-STORE and C-FIND (Study Root), which writes ``folder/<study>/<instance>.dcm`` durably.

    Switches, read at each request and to be set from any thread: ``refuse`` (associations are refused, as by a PACS
    that is full), ``status`` (answered to each C-STORE; a failure stores nothing), ``delay_s`` (waited before each
    C-STORE answer), ``lose`` (the object is dropped whatever is answered), ``queries`` (False: C-FIND fails, 0xC001).
    ``stored`` counts for each SOP Instance UID how often it was stored; ``received`` how often it came.
    """

    def __init__(
        self,
        folder: Path,
        ae_title: str = "PACS",
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        transfer_syntaxes: tuple[str, ...] = tuple(ALL_TRANSFER_SYNTAXES),
    ) -> None:
        """``port`` 0 takes a free one, told by ``port`` after ``start``. Nothing is opened before ``start``."""
        self.folder = folder
        self.ae_title, self.host, self.port = ae_title, host, port
        self.transfer_syntaxes = transfer_syntaxes
        self.refuse = False
        self.status = 0x0000
        self.delay_s = 0.0
        self.lose = False
        self.queries = True
        self.stored: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self.catalogue = Catalogue()
        self._lock = threading.Lock()
        self._entity: Any = None

    def start(self) -> Pacs:
        """Read what the folder holds and listen. Raises OSError when the port is taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.catalogue.clear()
        for path in sorted(self.folder.rglob("*.dcm")):
            try:
                self.catalogue.add(dcmread(path, stop_before_pixels=True, specific_tags=list(INDEXED)))
            except (InvalidDicomError, AttributeError):
                continue
        entity = _entity(self)
        server = entity.start_server((self.host, self.port), block=False, evt_handlers=self._handlers())
        self.port = int(server.server_address[1])
        self._entity = entity
        return self

    def stop(self) -> None:
        """Abort what is open and close the port; a second call does nothing. ``start`` opens it again."""
        if self._entity is not None:
            entity, self._entity = self._entity, None
            entity.shutdown()

    def __enter__(self) -> Pacs:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def files(self) -> list[Path]:
        """The Part 10 files that it holds."""
        return sorted(self.folder.rglob("*.dcm"))

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, _without_nagle),
            (evt.EVT_C_ECHO, lambda _: 0x0000),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_FIND, self._on_find),
        ]

    def _on_store(self, event: Any) -> int:
        time.sleep(self.delay_s)
        status, uid = self.status, str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            self.received[uid] = self.received.get(uid, 0) + 1
        if status >> 12 != 0xB and status not in _STORED:
            return status
        return status if self.lose else self._keep(event.encoded_dataset(), uid, status)

    def _keep(self, part10: bytes, uid: str, status: int) -> int:
        try:
            header = dcmread(BytesIO(part10), stop_before_pixels=True, specific_tags=list(INDEXED))
            study = str(header.StudyInstanceUID)
        except (InvalidDicomError, AttributeError, ValueError, EOFError):
            return 0xC000
        if header.get("SOPInstanceUID") != uid or not (_UID.fullmatch(study) and _UID.fullmatch(uid)):
            return 0xA900
        try:
            write_durable(part10, self.folder / study / f"{uid}.dcm")
        except OSError:
            return 0xA700
        self.catalogue.add(header)
        with self._lock:
            self.stored[uid] = self.stored.get(uid, 0) + 1
        return status

    def _on_find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if not self.queries:
            yield 0xC001, None
            return
        question = event.identifier
        try:
            answers = self.catalogue.find(question)
        except ValueError:
            yield 0xA900, None
            return
        for answer in answers:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            answer.RetrieveAETitle = self.ae_title
            yield 0xFF00, answer


def _entity(pacs: Pacs) -> Any:
    """An application entity whose limit of associations is what ``pacs.refuse`` says."""

    class Entity(AE):  # type: ignore[misc,unused-ignore]
        @property
        def maximum_associations(self) -> int:
            return 0 if pacs.refuse else 100

    entity = Entity(ae_title=pacs.ae_title)
    entity.add_supported_context(Verification)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    storage = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    for sop_class in sorted(storage | {str(LabelMapSegmentationStorage)}):
        entity.add_supported_context(sop_class, list(pacs.transfer_syntaxes))
    return entity


def _without_nagle(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
