"""A ledger full of results that are to go out, without any model having run; and a PACS that forgets."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, SegmentationStorage

from overread.domain.result import Result
from overread.ledger import Ledger, deliveries, open_ledger
from overread.ledger.tables import DeliveryRow, JobRow, StudyRow
from overread.simulate.pacs import Pacs

ROOT = "1.2.826.0.1.3680043.8.498.7"
KINDS = {"seg": str(SegmentationStorage), "sr": str(ComprehensiveSRStorage)}
WORKER = "filler"


def write_result(folder: Path, job: int, number: int, *, pad: int = 2000) -> Result:
    """One result of a job as a file in ``folder`` (``results/<job>/<number>.dcm`` below a spool)."""
    kind = list(KINDS)[number % 2]
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = KINDS[kind], f"{ROOT}.1.{job}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{ROOT}.2.{job}", f"{ROOT}.3.{job}.{number % 2}"
    dataset.PatientName, dataset.PatientID, dataset.Modality = "GENERATED^PATIENT", "G-1", kind.upper()
    dataset.Rows, dataset.Columns, dataset.BitsAllocated = 8, 8, 8
    dataset.PixelData = hashlib.shake_128(f"{job} {number}".encode()).digest(pad + pad % 2)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / "results" / str(job) / f"{number}.dcm"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    uids = (dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID)
    syntax = str(ExplicitVRLittleEndian)
    return Result(kind, KINDS[kind], *map(str, uids), syntax, str(path.relative_to(folder)), digest)


def fill(data: Path, jobs: int, each: int, kinds: Mapping[str, Sequence[str]], *, pad: int = 2000) -> list[Result]:
    """Make the ledger and the spool of a data folder as if ``jobs`` jobs had made ``each`` results each."""
    data.mkdir(parents=True, exist_ok=True)
    ledger = open_ledger(f"sqlite:///{data / 'ledger.sqlite'}")
    made: list[Result] = []
    try:
        for job in range(1, jobs + 1):
            results = [write_result(data / "spool", job, n, pad=pad) for n in range(each)]
            _read(ledger, job, results, kinds)
            made += results
    finally:
        ledger.close()
    return made


def _read(ledger: Ledger, job: int, results: Sequence[Result], kinds: Mapping[str, Sequence[str]]) -> None:
    now, uid = time.time(), results[0].study_uid
    with ledger.write() as session:
        session.add(StudyRow(uid=uid, state="COMPLETE", routed_revision=1, first_at=now, last_at=now, completed_at=now))
        values: dict[str, Any] = {"study_uid": uid, "series_uid": f"{uid}.1", "model": "m", "model_version": "1"}
        values |= {"input_digest": str(job), "revision": 1, "state": "RUNNING", "worker": WORKER, "last_at": now}
        session.add(JobRow(id=job, **values))
    assert deliveries.put(ledger, job, WORKER, results, kinds) is not None


def rows(ledger: Ledger) -> list[DeliveryRow]:
    """All deliveries."""
    from sqlmodel import select

    with ledger.read() as session:
        return list(session.exec(select(DeliveryRow)).all())


class Forgetful(Pacs):
    """Says of every object that it is stored, and drops every ``nth`` that it sees for the first time."""

    nth = 10

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.dropped: set[str] = set()
        self._seen = 0
        self._counting = threading.Lock()

    def _keep(self, part10: bytes, uid: str, status: int) -> int:
        with self._counting:
            self._seen += self.received.get(uid) == 1
            if self.received.get(uid) == 1 and self._seen % self.nth == 0:
                self.dropped.add(uid)
                return status
        return super()._keep(part10, uid, status)
