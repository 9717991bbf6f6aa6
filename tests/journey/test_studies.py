"""What becomes of studies between a scanner and two PACS: late, doubled, refused, lost and found again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from house import SEG, SR, Service, Study, destination, scan, small_study, tiny_model, wait_for, write_settings
from pydicom import dcmread
from pydicom.uid import MRImageStorage

from overread.domain.errors import Unreachable
from overread.simulate.pacs import Pacs

CALLERS = ("SCANNER", "SCANNER2", "PACS")


@dataclass(frozen=True)
class Hospital:
    """One running service with two destinations, and a folder for studies."""

    service: Service
    pacs: Pacs
    archive: Pacs
    folder: Path

    def study(self, salt: str) -> Study:
        return small_study(self.folder, salt)

    def send(self, study: Study, calling_ae: str = "SCANNER") -> Study:
        assert scan(self.service, study.files, calling_ae).stored == len(study.files)
        return study

    def read(self, salt: str) -> Study:
        """A study that was sent, read and delivered."""
        study = self.send(self.study(salt))
        self.service.wait_states(study.uid, ["COMPLETED"])
        return study

    def let_pass(self, salt: str) -> None:
        """Let another study go all the way: whatever was to happen to earlier ones has begun by then."""
        self.read(f"after {salt}")


def kinds(pacs: Pacs, study: Study) -> list[str]:
    """SOP Classes of what a PACS holds of a study."""
    return sorted(str(dcmread(f).SOPClassUID) for f in pacs.files() if f.parent.name == study.uid)


def deliveries(service: Service, study: Study, to: str) -> list[tuple[str, int]]:
    """(state, tries) of a study's deliveries to one destination."""
    query = "SELECT delivery.state, delivery.attempts FROM delivery JOIN job ON job.id = job_id"
    return service.rows(f"{query} WHERE job.study_uid = ? AND destination = ?", study.uid, to)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def open_hospital(tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    allow = [{"ae_title": name, "network": "127.0.0.0/8"} for name in CALLERS]
    with Pacs(folder / "pacs") as pacs, Pacs(folder / "archive", "ARCHIVE") as archive:
        to = [destination("pacs", pacs.port), destination("archive", archive.port)]
        service = Service(write_settings(folder, tiny_models, to, receive={"allow": allow}))
        try:
            service.start()
            yield Hospital(service, pacs, archive, folder / "studies")
            service.stop()
        finally:
            service.end()


@pytest.fixture
def hospital(open_hospital: Hospital) -> Iterator[Hospital]:
    """The hospital with its PACS behaving well, before and after."""
    yield open_hospital
    pacs = open_hospital.pacs
    pacs.refuse, pacs.status, pacs.delay_s, pacs.lose, pacs.queries = False, 0x0000, 0.0, False, True


def test_two_destinations_get_the_same(hospital: Hospital) -> None:
    """One SEG and one SR at each, the same bytes, each taken once."""
    study = hospital.read("two destinations")
    assert kinds(hospital.pacs, study) == kinds(hospital.archive, study) == sorted([SEG, SR])
    there, here = (
        {f.name: f.read_bytes()[-2000:] for f in p.files() if f.parent.name == study.uid}
        for p in (hospital.pacs, hospital.archive)
    )
    assert there == here
    assert {hospital.pacs.received[Path(name).stem] for name in there} == {1}


def test_a_late_image_makes_a_new_revision(hospital: Hospital) -> None:
    """Four slices come after the study was read: it is read anew, and the first reading is superseded."""
    study = hospital.study("late")
    hospital.send(Study(study.uid, study.files[:20]))
    hospital.service.wait_states(study.uid, ["COMPLETED"])
    hospital.send(Study(study.uid, study.files[20:]))
    hospital.service.wait_states(study.uid, ["SUPERSEDED", "COMPLETED"])
    assert kinds(hospital.pacs, study) == sorted([SEG, SR] * 2)
    told = hospital.service.ask("explain", study.uid).stdout
    assert "revision 2" in told and "24 slices every 5.00 mm" in told


def test_a_study_sent_twice_is_read_once(hospital: Hospital) -> None:
    study = hospital.read("twice")
    before = dict(hospital.pacs.received)
    hospital.send(study)
    hospital.let_pass("twice")
    assert hospital.service.states(study.uid) == ["COMPLETED"]
    assert hospital.service.rows("SELECT revision, instances FROM study WHERE uid = ?", study.uid) == [(1, 24)]
    assert kinds(hospital.pacs, study) == sorted([SEG, SR])
    assert all(hospital.pacs.received[uid] == count for uid, count in before.items())


def test_a_study_from_two_scanners_at_once_is_read_once(hospital: Hospital) -> None:
    study = hospital.study("at once")
    threads = [threading.Thread(target=hospital.send, args=(study, name)) for name in ("SCANNER", "SCANNER2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    hospital.service.wait_states(study.uid, ["COMPLETED"])
    hospital.let_pass("at once")
    assert hospital.service.states(study.uid) == ["COMPLETED"]
    assert hospital.service.rows("SELECT instances, conflicts FROM study WHERE uid = ?", study.uid) == [(24, 0)]
    assert kinds(hospital.pacs, study) == sorted([SEG, SR])


def test_own_results_are_never_read(hospital: Hospital) -> None:
    """A PACS that forwards everything sends our results back: the study grows, no job follows."""
    study = hospital.read("loop")
    results = [f for f in hospital.pacs.files() if f.parent.name == study.uid]
    assert scan(hospital.service, results, "PACS").stored == 2
    routed = "SELECT routed_revision FROM study WHERE uid = ?"
    wait_for(lambda: hospital.service.rows(routed, study.uid) == [(2,)], 60, "the second look at the study")
    assert hospital.service.states(study.uid) == ["COMPLETED"]
    told = hospital.service.ask("explain", study.uid).stdout
    assert "it is a segmentation, not a scan" in told and "it is a structured report, not a scan" in told


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "refusing", "busy", "deaf"])
def test_a_pacs_away_for_a_while(hospital: Hospital, how: str) -> None:
    """Closed, refusing associations, out of resources or not answering queries: the archive has its results at once,
    the PACS when it is back."""
    if how in ("closed", "refusing"):
        hospital.pacs.stop()  # with the associations that are still open from before
    hospital.pacs.refuse = how == "refusing"
    if how == "refusing":
        hospital.pacs.start()
    hospital.pacs.status = 0xA700 if how == "busy" else 0x0000
    hospital.pacs.queries = how != "deaf"
    study = hospital.send(hospital.study(how))
    verified = [("VERIFIED", 1)] * 2
    wait_for(lambda: deliveries(hospital.service, study, "archive") == verified, 60, "the archive to be served")
    wait_for(lambda: _held_back(hospital.service, study, how), 60, "the PACS to be tried again")
    assert hospital.service.states(study.uid) == ["DELIVERING"]
    hospital.pacs.refuse, hospital.pacs.status, hospital.pacs.queries = False, 0x0000, True
    if how == "closed":
        hospital.pacs.start()
    hospital.service.wait_states(study.uid, ["COMPLETED"])
    assert kinds(hospital.pacs, study) == kinds(hospital.archive, study) == sorted([SEG, SR])


def _held_back(service: Service, study: Study, how: str) -> bool:
    """One that is busy was offered the first object again, and the next one keeps its place behind it. One that cannot
    be spoken to, or does not answer questions, is only probed: its breaker is open, and says why."""
    there = deliveries(service, study, "pacs")
    if how == "busy":
        return [state for state, _ in there] == ["PENDING"] * 2 and max(tries for _, tries in there) >= 2
    waiting = "SENT" if how == "deaf" else "PENDING"
    ((breaker, reason),) = service.rows("SELECT state, reason FROM destination WHERE name = 'pacs'") or [("", "")]
    return [state for state, _ in there] == [waiting] * 2 and breaker == "OPEN" and reason != ""


def test_a_pacs_that_loses_what_it_took(hospital: Hospital) -> None:
    """It answers success and keeps nothing: the same objects go again until they are found there."""
    hospital.pacs.lose = True
    study = hospital.send(hospital.study("lost"))
    uids = "SELECT sop_instance_uid FROM result WHERE study_uid = ?"
    wait_for(lambda: len(hospital.service.rows(uids, study.uid)) == 2, 60, "the results")
    results = [uid for (uid,) in hospital.service.rows(uids, study.uid)]
    wait_for(lambda: all(hospital.pacs.received.get(uid, 0) >= 2 for uid in results), 60, "a second try")
    assert kinds(hospital.pacs, study) == []
    hospital.pacs.lose = False
    hospital.service.wait_states(study.uid, ["COMPLETED"])
    assert kinds(hospital.pacs, study) == sorted([SEG, SR])


def test_an_mr_is_not_read_and_explain_says_why(hospital: Hospital) -> None:
    study = hospital.study("magnet")
    for path in study.files:
        image = dcmread(path)
        image.Modality, image.SOPClassUID = "MR", MRImageStorage
        image.file_meta.MediaStorageSOPClassUID = MRImageStorage
        image.save_as(path)
    hospital.send(study)
    routed = "SELECT routed_revision FROM study WHERE uid = ?"
    wait_for(lambda: hospital.service.rows(routed, study.uid) == [(1,)], 60, "the decision")
    assert hospital.service.states(study.uid) == []
    told = hospital.service.ask("explain", study.uid)
    assert told.returncode == 0
    assert "series 2: not chosen: its modality is MR, the model reads CT" in told.stdout
    assert "No model reads it; nothing more will happen." in told.stdout


def test_a_refused_result_is_told_and_goes_again_when_a_person_says_so(hospital: Hospital) -> None:
    """0xC001 is for ever: FAILED and in status. Requeued after the PACS was mended, it is COMPLETED."""
    hospital.pacs.status = 0xC001
    study = hospital.send(hospital.study("refused"))
    hospital.service.wait_states(study.uid, ["FAILED"])
    ((job, _),) = hospital.service.jobs(study.uid)
    assert f"failed      job {job}: tiny on {study.uid}: pacs:" in hospital.service.ask("status").stdout
    assert "0xC001" in hospital.service.ask("explain", study.uid).stdout
    hospital.pacs.status = 0x0000
    again = hospital.service.ask("requeue", str(job))
    assert (again.returncode, again.stdout) == (0, f"job {job} is SCHEDULED again\n")
    hospital.service.wait_states(study.uid, ["COMPLETED"])
    assert kinds(hospital.pacs, study) == sorted([SEG, SR])
    archived = (hospital.archive.folder / study.uid).glob("*.dcm")
    assert {hospital.archive.received[f.stem] for f in archived} == {1}, "what was proven is not sent again"
    twice = hospital.service.ask("requeue", str(job))
    assert twice.returncode == 1 and "only one that FAILED or was CANCELED" in twice.stderr


def test_questions_about_the_unknown(hospital: Hospital) -> None:
    """They are answered with an exit code and a sentence, not with a traceback."""
    explained, requeued = hospital.service.ask("explain", "1.2.3"), hospital.service.ask("requeue", "99999")
    assert (explained.returncode, requeued.returncode) == (1, 1)
    assert "no instance of study 1.2.3" in explained.stderr
    assert len(requeued.stderr.splitlines()) == 1


def test_a_stranger_is_refused(hospital: Hospital) -> None:
    """An AE title that is not on the list gets no association, and the log says who it was."""
    study = hospital.study("stranger")
    with pytest.raises(Unreachable, match=r"(?i)calling AE title"):
        scan(hospital.service, study.files, "STRANGER", tries=1)
    refused = '"event":"AssociationRefused","calling_ae":"STRANGER"'
    wait_for(lambda: refused in hospital.service.log.read_text(), 10, "the line in the log")
    assert hospital.service.rows("SELECT * FROM study WHERE uid = ?", study.uid) == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["RUNNING", "DELIVERING"])
def test_sigterm_ends_soon_and_a_restart_finishes(
    service: Callable[..., Service], tmp_path: Path, stage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Told to stop while it reads or delivers: it is gone within 25 s, and the next start brings the job to its end."""
    study, models = small_study(tmp_path, "stop"), tiny_model(tmp_path / "models", window=2)
    with Pacs(tmp_path / "pacs") as pacs:
        pacs.delay_s = 1.0
        house = service([destination("pacs", pacs.port)], models=models).start()
        assert scan(house, study.files).stored == 24
        house.wait_states(study.uid, [stage])
        took = house.stop()
        with capsys.disabled():
            print(f"\nSIGTERM while {stage}: ended after {took:.1f} s")
        assert took < 25
        assert house.states(study.uid) != ["COMPLETED"], "it was to be stopped in the middle"
        house.start(wait=False)
        house.wait_states(study.uid, ["COMPLETED"])
        house.stop()
        assert kinds(pacs, study) == sorted([SEG, SR])


def test_a_reading_with_one_segment_is_delivered(service: Callable[..., Service], tmp_path: Path) -> None:
    """With one segment, highdicom writes what all frames share once: the segment's number, too."""
    study, models = small_study(tmp_path, "one segment"), tiny_model(tmp_path / "models", labels=1)
    with Pacs(tmp_path / "pacs") as pacs:
        house = service([destination("pacs", pacs.port)], models=models).start()
        assert scan(house, study.files).stored == 24
        house.wait_states(study.uid, ["COMPLETED"])
        assert kinds(pacs, study) == sorted([SEG, SR])


def test_a_study_with_a_gap_is_answered_with_the_reason(service: Callable[..., Service], tmp_path: Path) -> None:
    """A chest CT that lacks a slice is not met with silence: NOT_APPLICABLE, and a report tells the PACS why."""
    study = small_study(tmp_path, "gap")
    with Pacs(tmp_path / "pacs") as pacs:
        house = service([destination("pacs", pacs.port, results=["seg", "sr", "unfit"])]).start()
        assert scan(house, [*study.files[:9], *study.files[10:]]).stored == 23
        house.wait_states(study.uid, ["NOT_APPLICABLE"])
        wait_for(lambda: kinds(pacs, study) == [SR], 30, "the report")
        (report,) = (dcmread(f) for f in pacs.files() if f.parent.name == study.uid)
        told = report.ContentSequence[-1].ContentSequence[-1].TextValue
        assert "slices are missing" in told and told.startswith("Could not be analysed by ")
        assert report.PatientID == dcmread(study.files[0]).PatientID
        assert "unfit, which will be the answer: slices are missing" in house.ask("explain", study.uid).stdout
        wait_for(lambda: deliveries(house, study, "pacs") == [("VERIFIED", 1)], 30, "the proof")
        again = house.ask("replay", str(house.jobs(study.uid)[0][0])).stdout
        assert "unfit: the same, byte for byte" in again
