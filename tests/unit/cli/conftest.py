"""The command line, run in this process on a data folder of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from overread import cli, wiring
from overread.ledger import arrivals
from overread.ledger.arrivals import Arrival
from overread.settings import Settings, read_settings
from overread.spool import Spool
from overread.spool.header import read_file
from overread.spool.meta import file_meta
from overread.spool.quarantine import Facts

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
NAME = "Doe^Jane"


def image(uid: str = "1.2.3", study: str = "1.2", **changes: Any) -> bytes:
    """An encoded CT image of a patient; ``changes`` by keyword, None leaves one out."""
    made = Dataset()
    values = {
        "SOPClassUID": CT,
        "SOPInstanceUID": uid,
        "Modality": "CT",
        "PatientName": NAME,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 4,
        "Columns": 8,
        "BitsAllocated": 16,
        "PixelData": b"\0" * 64,
        **changes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(made, keyword, value)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    made["PixelData"].VR = "OW"
    write_dataset(buffer, made)
    return buffer.getvalue()


@dataclass
class Desk:
    """``desk("check")`` runs the command; returns its exit code, standard output and standard error."""

    settings: Settings
    path: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = cli.main(["--config", str(self.path), *arguments])
        said = self.capture.readouterr()
        return code, said.out, said.err

    @property
    def spool(self) -> Spool:
        return wiring.spool(self.settings)

    def admit(self, data: bytes, **facts: Any) -> str:
        """Put an encoded data set into quarantine, as the listener does."""
        draft = self.spool.begin(file_meta(CT, "1.2.3", EXPLICIT, "CT1"))
        draft.write(data)
        draft.seal()
        known = Facts(time.time(), "StudyInstanceUID is empty", 0xC000, "CT1", CT, "1.2.3", EXPLICIT, len(data))
        return wiring.quarantine(self.settings).admit(draft.path, replace(known, **facts))

    def keep(self, uid: str, study: str = "1.2", *, indexed: bool = True) -> Path:
        """An image in the spool, and in the ledger."""
        stored = self.spool.keep(study, uid, file_meta(CT, uid, EXPLICIT, "CT1"), image(uid, study))
        file = self.spool.absolute(stored.path)
        if indexed:
            books = wiring.ledger(self.settings)
            known = replace(read_file(file), path=stored.path, digest=stored.digest)
            arrivals.record(books, [Arrival(known, stored.size_bytes, time.time())])
            books.close()
        return file


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Desk]:
    """``desk(text)``: a house whose settings file says ``text``."""

    def make(text: str = "") -> Desk:
        path = tmp_path / "overread.toml"
        path.write_text(text, "utf-8")
        return Desk(read_settings(path), path, capsys)

    return make
