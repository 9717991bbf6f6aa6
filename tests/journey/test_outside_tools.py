"""Judged by programs that others wrote: DCMTK sends and asks, Orthanc keeps, dciodvfy, dsrdump and highdicom read."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from house import ROLES, ROOT, SEG, SR, Service, destination, write_settings
from orthanc import Archive, program
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from overread.simulate.phantom import Grid, chest_phantom
from overread.simulate.study import write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DATA = Path(os.environ.get("OVERREAD_TEST_DATA", ROOT.parent / "shared" / "data"))
REAL = DATA / "ct-chest-abdomen-cmb" / "CMB-CRC-MSB-01068.tar.xz"
IDENTITY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime"),
    *("StudyID", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID"),
)
VOLUME = "118565006"


def said(*command: str) -> str:
    """What a program said, which must have ended well."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=300, check=False, env=environment
    )
    assert done.returncode == 0, (command[0], done.stdout[-1500:], done.stderr[-1500:])
    return done.stdout + done.stderr


def fetched(archive: Archive, study_uid: str, folder: Path) -> dict[str, Path]:
    """The files of a study that the archive holds, fetched from it, by SOP Class."""
    found = {}
    query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
    for name in archive.web.post("/tools/find", json=query).json():
        path = folder / f"{name}.dcm"
        path.write_bytes(archive.web.get(f"/instances/{name}/file").content)
        sop_class = str(dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID)
        assert sop_class not in found, "one result of a kind"
        found[sop_class] = path
    return found


@dataclass(frozen=True)
class Case:
    """One study that went from storescu through overread into Orthanc."""

    service: Service
    folder: Path
    orthanc: Archive
    sources: dict[str, Dataset]
    results: dict[str, Path]

    @property
    def first(self) -> Dataset:
        return next(iter(self.sources.values()))

    @property
    def study_uid(self) -> str:
        return str(self.first.StudyInstanceUID)


def _real(folder: Path) -> list[Path]:
    if not REAL.is_file():
        pytest.skip(f"{REAL} is missing; set OVERREAD_TEST_DATA to the folder with the test data")
    with tarfile.open(REAL) as archive:
        archive.extractall(folder, filter="data")
    return sorted(folder.rglob("*.dcm"))


def _phantom(folder: Path) -> list[Path]:
    grid = Grid((64, 160, 160), (4.0, 2.4, 2.4))
    phantom = chest_phantom(7, grid, nodules=2, nodule_diameters_mm=(14.0, 25.0), noise_hu=15.0, healthy=True)
    write_study(phantom, folder, seed=7)
    return sorted(folder.rglob("*.dcm"))


@pytest.fixture(scope="module", params=[_real, _phantom], ids=["real", "phantom"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A study sent by storescu and read by models/ct_chest, its results fetched from Orthanc."""
    folder = tmp_path_factory.mktemp("outside")
    make: Callable[[Path], list[Path]] = request.param
    files = make(folder / "study")
    with Archive(folder, {"OVERREAD": 1, "FINDSCU": 1}) as orthanc:
        to = [destination("orthanc", orthanc.dimse)]
        service = Service(write_settings(folder, ROOT / "models", to, schedule={"cpu_threads": 2}))
        try:
            service.start()
            called = ["-aet", "STORESCU", "-aec", "OVERREAD", "127.0.0.1", str(service.port)]
            said(program("storescu"), "-v", *called, "+sd", "+r", str(files[0].parent))
            headers = (dcmread(f, stop_before_pixels=True) for f in files)
            sources = {str(h.SOPInstanceUID): h for h in headers}
            study_uid = str(next(iter(sources.values())).StudyInstanceUID)
            service.wait_states(study_uid, ["COMPLETED"], 600)
            yield Case(service, folder, orthanc, sources, fetched(orthanc, study_uid, folder))
            service.stop()
        finally:
            service.end()


def test_orthanc_holds_one_seg_and_one_sr(case: Case) -> None:
    """By its own C-FIND, asked by findscu, and by QIDO-RS."""
    assert case.results.keys() == {SEG, SR}
    keys = ["-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={case.study_uid}", "-k", "Modality"]
    address = ["-aet", "FINDSCU", "-aec", "ORTHANC", "127.0.0.1", str(case.orthanc.dimse)]
    found = said(program("findscu"), "-v", "-S", *keys, *address)
    assert sorted(re.findall(r"\(0008,0060\) CS \[(\w+) *\]", found)) == ["SEG", "SR"]
    web = case.orthanc.web.get(f"/dicom-web/studies/{case.study_uid}/instances", headers={"Accept": "application/json"})
    assert sorted(i["00080016"]["Value"][0] for i in web.json()) == sorted([SEG, SR])


@pytest.mark.parametrize("kind", [SEG, SR], ids=["seg", "sr"])
def test_dciodvfy_finds_no_error(case: Case, kind: str, tmp_path: Path) -> None:
    result = dcmread(case.results[kind])
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian  # it cannot inflate
    result.save_as(tmp_path / "result.dcm")
    done = subprocess.run(
        [program("dciodvfy"), str(tmp_path / "result.dcm")], capture_output=True, text=True, timeout=300, check=False
    )
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []


def test_dsrdump_reads_the_report(case: Case) -> None:
    told = said(program("dsrdump"), str(case.results[SR]))
    assert "Imaging Measurement Report" in told
    assert "Left lung" in told and "Right lung" in told


@pytest.mark.parametrize("kind", [SEG, SR], ids=["seg", "sr"])
def test_patient_and_study_are_those_of_the_source(case: Case, kind: str) -> None:
    result = dcmread(case.results[kind], stop_before_pixels=True)
    wanted = [k for k in IDENTITY if k in case.first and (kind == SEG or k != "FrameOfReferenceUID")]
    assert {k: str(result.get(k)) for k in wanted} == {k: str(case.first.get(k)) for k in wanted}


def _masks(case: Case) -> dict[int, dict[str, np.ndarray]]:
    """Decoded planes: segment number → SOP Instance UID of the source slice → (rows, columns) bool."""
    seg = highdicom.seg.segread(case.results[SEG])
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    found: dict[int, dict[str, np.ndarray]] = {}
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        found.setdefault(int(number), {})[str(source.ReferencedSOPInstanceUID)] = plane.astype(bool)
    return found


def test_the_segmentation_lies_on_its_slices(case: Case) -> None:
    """Each frame stands where the slice stands that it names, in size, place and orientation; by its own affine, the
    volume that highdicom builds covers the same points."""
    seg = highdicom.seg.segread(case.results[SEG])
    shared = seg.SharedFunctionalGroupsSequence[0]
    assert (seg.Rows, seg.Columns) == (case.first.Rows, case.first.Columns)
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    np.testing.assert_allclose(np.array(spacing, float), np.array(case.first.PixelSpacing, float), atol=1e-6)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = case.sources[str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)]
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(place, np.array(source.ImagePositionPatient, float), atol=1e-3)
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        np.testing.assert_allclose(
            np.array(orientation, float), np.array(source.ImageOrientationPatient, float), atol=1e-4
        )


def test_lungs_are_lungs_and_left_is_left(case: Case) -> None:
    """Against Hounsfield units and patient space, which know nothing of the network: most of what is called lung is
    air-like, and the left lung lies to the patient's left (larger x, PS3.3 C.7.6.2)."""
    seg = highdicom.seg.segread(case.results[SEG])
    masks, files = _masks(case), {p: dcmread(p) for p in (case.folder / "study").rglob("*.dcm")}
    images = {str(d.SOPInstanceUID): d for d in files.values()}
    x: dict[str, float] = {}
    for segment in seg.SegmentSequence:
        if "lung" not in segment.SegmentLabel.lower() or "nodule" in segment.SegmentLabel.lower():
            continue
        hu, across = [], []
        for uid, plane in masks[int(segment.SegmentNumber)].items():
            image = images[uid]
            value = image.pixel_array[plane] * float(image.RescaleSlope) + float(image.RescaleIntercept)
            hu.append(value)
            across.append(float(image.ImagePositionPatient[0]) + np.nonzero(plane)[1] * float(image.PixelSpacing[1]))
        assert (np.concatenate(hu) < -400).mean() > 0.7, segment.SegmentLabel
        x[segment.SegmentLabel] = float(np.concatenate(across).mean())
    assert x["Left lung"] > x["Right lung"] + 50


def test_volumes_in_the_report_are_those_of_the_mask(case: Case) -> None:
    """Voxels of each segment, counted here, times the volume of a voxel from the source's headers."""
    masks = _masks(case)
    places = np.array([np.array(h.ImagePositionPatient, float) for h in case.sources.values()])
    row, column = np.split(np.array(case.first.ImageOrientationPatient, float), 2)
    along = np.sort(places @ np.cross(row, column))
    step = (along[-1] - along[0]) / (len(along) - 1)
    voxel_ml = step * float(np.prod(np.array(case.first.PixelSpacing, float))) / 1000
    report = dcmread(case.results[SR])
    reported = dict(_volumes(report))
    assert reported.keys() == masks.keys()
    for number, planes in masks.items():
        expected = voxel_ml * sum(int(p.sum()) for p in planes.values())
        assert reported[number] == pytest.approx(expected, rel=2e-3, abs=0.06), number


def _volumes(item: Dataset) -> Iterator[tuple[int, float]]:
    """(segment number, ml) of each measurement group in a report."""
    content = item.get("ContentSequence") or []
    segments = [
        int(_first(c.ReferencedSOPSequence[0].ReferencedSegmentNumber))
        for c in content
        if c.ValueType == "IMAGE" and "ReferencedSegmentNumber" in c.ReferencedSOPSequence[0]
    ]
    for child in content:
        if child.ValueType == "NUM" and child.ConceptNameCodeSequence[0].CodeValue == VOLUME:
            value = child.MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeValue
            yield segments[0], float(value.NumericValue) * {"ml": 1.0, "mL": 1.0, "cm3": 1.0, "mm3": 1e-3}[unit]
        yield from _volumes(child)


def _first(value: Any) -> Any:
    return value if isinstance(value, int | str) else value[0]


def test_no_patient_in_logs_and_metrics(case: Case) -> None:
    """Neither the name nor the identifier, whole or in parts of five letters or more."""
    words = {str(case.first.PatientName), str(case.first.PatientID)}
    words |= {part for w in list(words) for part in re.split(r"[\^ =\\]", w)}
    words = {w for w in words if len(w) >= 5}
    assert words
    pages = [case.service.page(role, "metrics")[1] for role in ROLES]
    public = case.service.log.read_text() + "".join(pages)
    assert "StudyCompleted" in public and "overread_" in public
    assert [w for w in words if w in public] == []
