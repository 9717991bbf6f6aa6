"""What the simulated PACS holds: Part 10 files in a folder, and the catalogue of their headers."""

from __future__ import annotations

import re
import threading
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from overread.simulate.catalogue import INDEXED, Catalogue
from overread.spool.durable import write_durable

CANNOT_UNDERSTAND, DOES_NOT_MATCH, OUT_OF_RESOURCES = 0xC000, 0xA900, 0xA700
_UID = re.compile(r"[0-9.]{1,64}")


class Holdings:
    """``folder/<study>/<instance>.dcm``, written durably. ``stored`` counts for each SOP Instance UID how often it was
    stored; ``received`` how often it came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalogue = Catalogue()
        self.stored: dict[str, int] = {}
        self.received: dict[str, int] = {}
        self._lock = threading.Lock()

    def read(self) -> None:
        """Look at what the folder holds, made if it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.catalogue.clear()
        for path in self.files():
            try:
                self.catalogue.add(dcmread(path, stop_before_pixels=True, specific_tags=list(INDEXED)))
            except (InvalidDicomError, AttributeError):
                continue

    def files(self) -> list[Path]:
        """The Part 10 files."""
        return sorted(self.folder.rglob("*.dcm"))

    def count(self, uid: str) -> None:
        """An object has come, whatever becomes of it."""
        with self._lock:
            self.received[uid] = self.received.get(uid, 0) + 1

    def keep(self, part10: bytes, uid: str) -> int:
        """Keep an object that was sent under ``uid``; returns the C-STORE status that says how that went."""
        try:
            header = dcmread(BytesIO(part10), stop_before_pixels=True, specific_tags=list(INDEXED))
            study = str(header.StudyInstanceUID)
        except (InvalidDicomError, AttributeError, ValueError, EOFError):
            return CANNOT_UNDERSTAND
        if header.get("SOPInstanceUID") != uid or not (_UID.fullmatch(study) and _UID.fullmatch(uid)):
            return DOES_NOT_MATCH
        try:
            write_durable(part10, self.folder / study / f"{uid}.dcm")
        except OSError:
            return OUT_OF_RESOURCES
        self.catalogue.add(header)
        with self._lock:
            self.stored[uid] = self.stored.get(uid, 0) + 1
        return 0x0000

    def holds(self, uid: str) -> bool:
        """Whether it has an object of this SOP Instance UID."""
        return any(path.exists() for path in self.folder.glob(f"*/{uid}.dcm")) if _UID.fullmatch(uid) else False

    def wanted(self, question: Dataset) -> list[Path]:
        """The files of all instances that a C-GET or C-MOVE identifier names at its level, by UIDs (PS3.4 C.4.3.1)."""
        asked = Dataset()
        asked.QueryRetrieveLevel = "IMAGE"
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(asked, keyword, question.get(keyword) or "")
        found = self.catalogue.find(asked)
        paths = [p for a in found for p in self.folder.glob(f"*/{a.SOPInstanceUID}.dcm")]
        return sorted(paths)
