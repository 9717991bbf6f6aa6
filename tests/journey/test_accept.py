"""A site's acceptance test against PACS that are well, that lose and that move pixels; and the canary."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from house import Service, destination, scan, small_study, tiny_model, wait_for, write_settings
from orthanc import Archive
from pydicom import dcmread

from overread.domain.canary import is_canary
from overread.simulate.mischief import Fault, Mishap
from overread.simulate.pacs import Pacs
from overread.simulate.web import Web


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Service, Pacs]]:
    """A PACS that is asked by C-GET and by WADO-RS, and a share."""
    (tmp_path / "share").mkdir()
    with Pacs(tmp_path / "pacs") as pacs, Web(pacs) as web:
        to = [
            destination("pacs", pacs.port, proof="c-get"),
            {"name": "web", "kind": "stow", "url": web.url, "proof": "wado"},
            {"name": "share", "kind": "folder", "folder": str(tmp_path / "share")},
        ]
        yield Service(write_settings(tmp_path, tmp_path, to)), pacs


def accepted(service: Service, folder: Path, *more: str) -> tuple[int, str, str]:
    """Exit code, what was said, and the report."""
    report = folder / "acceptance.html"
    told = service.ask("accept", "--report", str(report), "--wait", "10", *more)
    return told.returncode, told.stdout + told.stderr, report.read_text() if report.exists() else ""


def test_everything_is_proven_of_a_pacs_that_is_well(site: tuple[Service, Pacs], tmp_path: Path) -> None:
    """Each destination answers, takes, proves, gives back the same, and the segmentation lies where it was drawn."""
    code, said, report = accepted(site[0], tmp_path)
    assert code == 0, said
    for place in ("pacs", "web", "share"):
        for what in ("it answers", "it takes a seg", "it proves", "every data element", "Dice: left lung 1.0000"):
            assert re.search(f"proven +{place}: .*{what}", said), said
    assert "passed: 18 proven, 0 not proven, 0 failed" in said
    assert report.count('class="proven"') == 18 and report.count("data:image/png") == 3
    images = [dcmread(f) for f in site[1].files()]
    assert {(str(i.PatientID), is_canary(i.StudyInstanceUID)) for i in images} == {("OVERREAD-CANARY", True)}


def test_what_is_wrong_with_a_pacs_stands_in_the_report(site: tuple[Service, Pacs], tmp_path: Path) -> None:
    """One that loses objects fails at the proof; one that knows nothing of us fails at once, with the remedy."""
    service, pacs = site
    pacs.mischief.add(Fault(Mishap.LOSE, every=10))
    code, said, report = accepted(service, tmp_path, "--destination", "pacs")
    assert code == 1 and re.search(r"failed +pacs: it proves that it keeps them.*\d of 34 are not proven", said), said
    assert "NOT passed" in report
    pacs.mischief.clear()
    pacs.mischief.add(Fault(Mishap.ANSWER, 0x0124))
    code, said, _ = accepted(service, tmp_path, "--destination", "pacs")
    assert code == 1 and "configuration fault: not authorised" in said
    assert accepted(service, tmp_path, "--destination", "nobody")[0] == 2


def test_pixels_that_were_moved_are_found_out(site: tuple[Service, Pacs], tmp_path: Path) -> None:
    """A PACS that shifts the images by a millimetre: what comes back differs, and nothing lies where it was drawn."""
    service, pacs = site
    keep = pacs.holdings.keep

    def moved(part10: bytes, uid: str) -> int:
        status = keep(part10, uid)
        for path in pacs.folder.rglob(f"{uid}.dcm"):
            image = dcmread(path)
            if "ImagePositionPatient" in image:
                image.ImagePositionPatient[2] += 1
                image.save_as(path)
        return status

    pacs.holdings.keep = moved  # type: ignore[method-assign]
    code, said, _ = accepted(service, tmp_path, "--destination", "web", "--wait", "3")
    assert code == 1
    assert "differs from what was sent in ImagePositionPatient" in said
    assert re.search("failed +web: the segmentation lies where it was drawn", said), said


def test_one_for_results_alone_is_told_apart(tmp_path: Path) -> None:
    """It accepts no CT: the segmentation is placed on the images as they were made, and the report says so."""
    from pydicom.uid import CTImageStorage

    pacs = Pacs(tmp_path / "pacs", without=(str(CTImageStorage),))
    with pacs:
        service = Service(write_settings(tmp_path, tmp_path, [destination("pacs", pacs.port, proof="c-get")]))
        code, said, _ = accepted(service, tmp_path)
    assert code == 0 and "5 proven, 1 not proven, 0 failed" in said, said
    assert "it takes the results and no images" in said and len(pacs.files()) == 2


def test_a_real_orthanc_is_accepted(tmp_path: Path) -> None:
    with Archive(tmp_path, {}) as archive:
        web = {"name": "web", "kind": "stow", "url": archive.url, "proof": "qido"}
        to = [destination("orthanc", archive.dimse), web]
        code, said, _ = accepted(Service(write_settings(tmp_path, tmp_path, to)), tmp_path)
    assert code == 0 and "passed: 12 proven, 0 not proven" in said, said


@pytest.mark.slow
def test_the_canary_flies_through_the_whole_service(service: Callable[..., Service], tmp_path: Path) -> None:
    """It comes home to its own destination and to no other, its latency is a metric, and its not coming home, too."""
    small = small_study(tmp_path, "canary")
    models = tiny_model(tmp_path / "models")
    with Pacs(tmp_path / "pacs") as pacs, Pacs(tmp_path / "nest", "NEST") as nest:
        to = [destination("pacs", pacs.port), destination("nest", nest.port, canary=True)]
        every = {"every_min": 0.1, "deadline_min": 0.5, "study": str(small.files[0].parent)}
        house = service(to, models=models, canary=every).start()
        wait_for(lambda: _metric(house, "canary_latency_seconds") > 0, 60, house.tail)
        patient = small_study(tmp_path / "patient", "patient")
        assert scan(house, patient.files).stored == 24
        house.wait_states(patient.uid, ["COMPLETED"])
        told = house.ask("accept", "--destination", "nest", "--whole", "--report", str(tmp_path / "a.html"))
        assert "proven      the service: a study goes through the whole service" in told.stdout, told
        assert {f.parent.name for f in pacs.files()} == {patient.uid}
        assert all(is_canary(f.parent.name) for f in nest.files())
        assert _metric(house, "canary_home") == 1
        nest.stop()
        wait_for(lambda: _metric(house, "canary_home") == 0, 90, house.tail)
        assert "CanaryEnded" in house.log.read_text()
        house.stop()


def _metric(house: Service, name: str) -> float:
    (value,) = re.findall(rf"^overread_{name} (.+)$", house.page("watch", "metrics")[1], re.MULTILINE)
    return float(value)
