"""What becomes of results later: replayed, superseded, withdrawn."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from house import SEG, SR, Service, Study, destination, environment, scan, small_study, wait_for, write_settings
from pydicom import Dataset, dcmread

from overread.simulate.pacs import Pacs

KO = "1.2.840.10008.5.1.4.1.1.88.59"


@dataclass(frozen=True)
class Clinic:
    """A service with a PACS and an archive that is told what counts no longer."""

    service: Service
    pacs: Pacs
    archive: Pacs
    folder: Path

    def send(self, study: Study, first: int, last: int) -> None:
        files = study.files[first:last]
        assert scan(self.service, files, "SCANNER").stored == len(files)

    def read(self, salt: str) -> tuple[Study, int]:
        """A study that was read and delivered, and the number of its job."""
        study = small_study(self.folder, salt)
        self.send(study, 0, 24)
        self.service.wait_states(study.uid, ["COMPLETED"])
        return study, self.service.jobs(study.uid)[0][0]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Clinic]:
    folder = tmp_path_factory.mktemp("clinic")
    with Pacs(folder / "pacs") as pacs, Pacs(folder / "archive", "ARCHIVE") as archive:
        to = [destination("pacs", pacs.port), destination("archive", archive.port, withdraw="rejection-note")]
        service = Service(write_settings(folder, tiny_models, to))
        try:
            service.start()
            yield Clinic(service, pacs, archive, folder / "studies")
            service.stop()
        finally:
            service.end()


def held(pacs: Pacs, study: Study, sop_class: str) -> list[Dataset]:
    """Objects of one SOP Class that a PACS holds of a study, the earlier first."""
    found = [dcmread(f) for f in pacs.files() if f.parent.name == study.uid]
    found = [ds for ds in found if ds.SOPClassUID == sop_class]
    return sorted(found, key=lambda ds: (ds.ContentDate, ds.ContentTime))


def named(document: Dataset) -> set[str]:
    """Every instance that a document's content refers to."""
    return {
        str(i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for i in document.ContentSequence
        if "ReferencedSOPSequence" in i
    }


def test_a_later_result_names_and_withdraws_the_earlier(clinic: Clinic) -> None:
    study = small_study(clinic.folder, "later")
    clinic.send(study, 0, 20)
    clinic.service.wait_states(study.uid, ["COMPLETED"])
    (old_seg,), (old_sr,) = held(clinic.archive, study, SEG), held(clinic.archive, study, SR)
    assert held(clinic.archive, study, KO) == []
    clinic.send(study, 20, 24)
    clinic.service.wait_states(study.uid, ["SUPERSEDED", "COMPLETED"])
    (note,) = held(clinic.archive, study, KO)
    assert named(note) == {old_seg.SOPInstanceUID, old_sr.SOPInstanceUID}
    assert held(clinic.pacs, study, KO) == []
    _, new_sr = held(clinic.pacs, study, SR)
    before = new_sr.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert before.ReferencedSOPInstanceUID == old_sr.SOPInstanceUID
    first, second = held(clinic.pacs, study, SEG)
    assert (first.SeriesNumber, first.SeriesDescription) == (second.SeriesNumber, second.SeriesDescription)


def test_a_replay_makes_the_same_bytes(clinic: Clinic) -> None:
    study, job = clinic.read("replay")
    done = clinic.service.ask("replay", str(job))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall("the same, byte for byte", done.stdout)) == 2
    assert "everything is as it was" in done.stdout
    told = clinic.service.ask("explain", study.uid).stdout
    assert re.search(r"SHA-256 of weights=[0-9a-f]{64} card=[0-9a-f]{64} input=[0-9a-f]{64} settings=", told)


def test_a_replay_tells_what_has_changed(clinic: Clinic) -> None:
    _, job = clinic.read("changed")
    changed = clinic.service.config.with_name("changed.toml")
    text = clinic.service.config.read_text("utf-8") + '\n[encode]\nseries_description = "AI {title} {kind}"\n'
    changed.write_text(text, "utf-8")
    command = [sys.executable, "-m", "overread", "--config", str(changed), "replay", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "changed since then: settings" in done.stdout
    assert "    SeriesDescription" in done.stdout
    assert "PatientID" not in done.stdout


def test_a_replay_without_its_images_says_so(clinic: Clinic) -> None:
    study, job = clinic.read("gone")
    (path,) = clinic.service.rows("SELECT path FROM instance WHERE study_uid = ? LIMIT 1", study.uid)
    spool = next(clinic.service.config.parent.rglob("spool"))
    (spool / str(path[0])).unlink()
    done = clinic.service.ask("replay", str(job))
    assert done.returncode == 1
    assert f"the images of job {job} are not what it read" in done.stderr
    assert "there is no job 999" in clinic.service.ask("replay", "999").stderr
    wait_for(lambda: clinic.service.states(study.uid) == ["COMPLETED"], 10)
