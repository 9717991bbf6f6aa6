"""Whatever a source lacks or says badly: valid results on their pixels, or one clear reason why there are none.

The way of each series is that of the service: header, stack, voxels, results. Anything but results or ``Unfit``, which
ends a job as NOT_APPLICABLE with its text, fails the test.
"""

from __future__ import annotations

import tarfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from overread.domain.card import Label
from overread.domain.codes import Code
from overread.domain.errors import Unfit
from overread.domain.findings import Findings, Segment
from overread.domain.result import Result
from overread.encode import encoders
from overread.load.series import load
from overread.ports import Read
from overread.spool import Spool
from overread.spool.header import read_file

from .conftest import CARD, LABELS, SHAPE, Change, complaints, header, inflated, tool, voxels, write

ORGAN = Label(1, "Bright", Code("39607008", "SCT", "Lung"), color=(255, 0, 0))


def whole_way(files: Iterable[Path], folder: Path) -> list[Result]:
    """Results, each passed by the gate, of the brighter half of a box in the series of ``files``; raises Unfit."""
    spool = Spool(folder / "spool", durable=False)
    instances = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of imperfect values
        for path in files:
            instance = read_file(path)
            stored = spool.adopt(path, instance)
            instances.append(instance.stored(stored.path, stored.digest, "TEST"))
        volume = load(spool, instances)
    found = np.zeros(volume.voxels.shape, np.uint8)
    box = tuple(slice(n // 4, max(3 * n // 4, n // 4 + 1)) for n in found.shape)
    found[box][volume.voxels[box] >= np.median(volume.voxels[box])] = 1
    read = Read("key", "2026-11-21T08:09:10+00:00", CARD, volume, Findings(found, (Segment(1, ORGAN, "Bright"),)))
    out = folder / "out"
    out.mkdir()
    results: list[Result] = []
    for encoder in encoders(["seg", "sr"]):
        results.extend(encoder.encode(read, out, results))
    return [replace(result, path=str(out / result.path)) for result in results]


@pytest.fixture
def series(tmp_path: Path) -> Callable[[Change], list[Path]]:
    """``series(change)``: files of a CT series whose slices ``change(k, header)`` has altered."""

    def make(change: Change) -> list[Path]:
        folder, pixels, paths = tmp_path / "source", voxels(), []
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for k in range(SHAPE[0]):
                ds = header(k)
                ds.PatientName, ds.PixelData = "Miller^George", pixels[k].tobytes()
                change(k, ds)
                paths.append(write(ds, folder / f"{k:03}.dcm"))
        return paths

    return make


def without(*keywords: str) -> Change:
    def change(k: int, ds: Dataset) -> None:
        for keyword in keywords:
            ds.pop(keyword, None)

    return change


def having(**values: object) -> Change:
    def change(k: int, ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def raw(keyword: str, vr: str, value: object) -> Change:
    """A value that no writer should write."""

    def change(k: int, ds: Dataset) -> None:
        ds[keyword] = DataElement(keyword, vr, value, validation_mode=0)

    return change


def only(n: int, inner: Change) -> Change:
    """The same on one slice."""

    def change(k: int, ds: Dataset) -> None:
        if k == n:
            inner(k, ds)

    return change


def _jitter(k: int, ds: Dataset) -> None:
    ds.ImageOrientationPatient = [1, 0, round(k * 1e-6, 7), 0, 1, 0]


def _shuffled(k: int, ds: Dataset) -> None:
    ds.InstanceNumber = (k * 5) % 7


def _descending(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = [-10.0, -20.0, round(100.0 - k * 2.5, 3)]


def _coronal(k: int, ds: Dataset) -> None:
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    ds.ImagePositionPatient = [-10.0, round(k * 2.5, 3), 100.0]


def _exponents(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = ["-1.0e1", "-2.0E+01", f"{100 + k * 2.5:.3e}"]


def _procedure_without_meaning(k: int, ds: Dataset) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "CTCHEST", "99LOCAL"
    ds.ProcedureCodeSequence = Items([code])


VALID: dict[str, Change] = {
    "no StudyID": without("StudyID"),
    "StudyID empty": having(StudyID=""),
    "StudyID long": raw("StudyID", "SH", "S" * 40),
    "no study date and time": without("StudyDate", "StudyTime"),
    "study date with dots": raw("StudyDate", "DA", "2026.01.02"),
    "study time with colons": raw("StudyTime", "TM", "10:11:12"),
    "seven digits of a second": raw("StudyTime", "TM", "101112.1234567"),
    "no accession number": without("AccessionNumber"),
    "no patient": without("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    "patient empty": having(PatientName="", PatientID="", PatientBirthDate="", PatientSex=""),
    "birth date in words": raw("PatientBirthDate", "DA", "UNKNOWN"),
    "sex in words": raw("PatientSex", "CS", "male"),
    "sex unknown": having(PatientSex="U"),
    "age without unit": raw("PatientAge", "AS", "64"),
    "patient ID with a backslash": raw("PatientID", "LO", "A\\B"),
    "no referring physician": without("ReferringPhysicianName"),
    "no manufacturer": without("Manufacturer", "ManufacturerModelName"),
    "manufacturer long": raw("Manufacturer", "LO", "M" * 90),
    "no modality in the header of one": only(2, without("Modality")),
    "no thickness": without("SliceThickness"),
    "thickness empty": having(SliceThickness=None),
    "thickness negative": having(SliceThickness="-2.5"),
    "orientation jitters": _jitter,
    "slices shuffled": _shuffled,
    "slices downwards": _descending,
    "coronal": _coronal,
    "positions with exponents": _exponents,
    "no character set": without("SpecificCharacterSet"),
    "character set misspelled": raw("SpecificCharacterSet", "CS", "ISO-IR 100"),
    "character set unknown": raw("SpecificCharacterSet", "CS", "KLINGON"),
    "no series and instance number": without("SeriesNumber", "InstanceNumber", "AcquisitionNumber"),
    "no position reference": without("PositionReferenceIndicator"),
    "a code without meaning": _procedure_without_meaning,
    "burnt-in private junk": raw("StudyDescription", "LO", "x" * 200),
    "timezone that is none": raw("TimezoneOffsetFromUTC", "SH", "MEZ"),
    "lossy source": having(LossyImageCompression="01", LossyImageCompressionRatio="10"),
}


@pytest.mark.parametrize("change", VALID.values(), ids=VALID)
def test_what_can_be_lived_with_gives_results(
    series: Callable[[Change], list[Path]], tmp_path: Path, change: Change
) -> None:
    results = whole_way(series(change), tmp_path)
    assert [r.kind for r in results] == ["seg", "sr"]


def _twice(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = [-10.0, -20.0, 100.0 + 2.5 * (k // 2)]


def _gap(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = [-10.0, -20.0, 100.0 + 2.5 * (k + (k > 3) * 3)]


def _tilted(k: int, ds: Dataset) -> None:
    ds.ImagePositionPatient = [-10.0, -20.0 + 0.8 * k, 100.0 + 2.5 * k]


REFUSED: dict[str, tuple[Change, str]] = {
    "no frame of reference": (without("FrameOfReferenceUID"), "FrameOfReferenceUID"),
    "frame of reference empty": (having(FrameOfReferenceUID=""), "FrameOfReferenceUID"),
    "two frames of reference": (only(3, having(FrameOfReferenceUID="1.2.3")), "FrameOfReferenceUID"),
    "two patients": (only(3, having(PatientID="P2")), "PatientID"),
    "no position": (without("ImagePositionPatient"), "ImagePositionPatient"),
    "no orientation": (without("ImageOrientationPatient"), "ImageOrientationPatient"),
    "no pixel spacing": (without("PixelSpacing"), "PixelSpacing"),
    "pixel spacing zero": (having(PixelSpacing=[0, 0]), "PixelSpacing"),
    "position that is no number": (raw("ImagePositionPatient", "DS", ["nan", "0", "0"]), "ImagePositionPatient|number"),
    "orientation not orthogonal": (having(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "orthogonal"),
    "positions twice": (_twice, "repeat a position"),
    "slices missing": (_gap, "slices are missing"),
    "tilted": (_tilted, "tilt|shear"),
    "one slice turned": (only(2, having(ImageOrientationPatient=[0, 1, 0, 1, 0, 0])), "differs between the slices"),
}


@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_is_told(
    series: Callable[[Change], list[Path]], tmp_path: Path, change: Change, reason: str
) -> None:
    with pytest.raises(Unfit, match=reason) as refusal:
        whole_way(series(change), tmp_path)
    assert not any(secret in str(refusal.value) for secret in ("Miller", "P1", "P2"))


# ----------------------------------------------------------------------------------------------------------- real data


def _unpacked(archive: Path, folder: Path) -> list[Path]:
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def _of_one_series(paths: Iterable[Path], modality: str) -> list[Path]:
    """The files of the longest series of single images."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        ds = dcmread(path, stop_before_pixels=True, force=True)
        if ds.get("Modality") == modality and "PixelSpacing" in ds and "LOCALIZER" not in ds.get("ImageType", []):
            found.setdefault(str(ds.SeriesInstanceUID), []).append(path)
    return max(found.values(), key=len)


REAL = {
    "a coronal MR with gaps": ("mr-liver-small", "MR", 30),
    "a whole-body PET": ("pet-wholebody-with-seg", "PT", 299),
    "a head CT with a localizer": ("ct-head-phantom-study", "CT", 28),
}


@pytest.mark.parametrize(("name", "modality", "count"), REAL.values(), ids=REAL)
def test_real_series_give_results_without_an_error(
    data: Path, tmp_path: Path, name: str, modality: str, count: int
) -> None:
    tool("dciodvfy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archives = list((data / name).glob("*.tar.xz"))
        files = _unpacked(archives[0], tmp_path / "files") if archives else sorted((data / name).glob("*.dcm"))
        files = _of_one_series(files, modality)
        results = whole_way(files, tmp_path)
        assert [r.kind for r in results] == ["seg", "sr"]
        for result in results:
            ours = [line for line in complaints(inflated(Path(result.path))) if "Patient" not in line]
            assert ours == []
        assert len(dcmread(results[0].path).SourceImageSequence) == count


@pytest.mark.parametrize("name", ["gantrytilting", "slicecount", "sliceincrement", "sliceorientation"])
def test_odd_geometry_gives_results_or_a_reason(data: Path, tmp_path: Path, name: str) -> None:
    found = sorted((data / "geometry-odd" / name).rglob("*"))
    files = [path for path in found if path.is_file() and not path.name.endswith((".nii.gz", ".md"))]
    try:
        assert [r.kind for r in whole_way(files, tmp_path)] == ["seg", "sr"]
    except Unfit as reason:
        assert len(str(reason)) > 20


def test_plain_radiographs_and_ultrasound_are_not_applicable(data: Path, tmp_path: Path) -> None:
    """CR, DX, US, XA and NM lie nowhere in space, alone or many at a time."""
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted((data / "us-xray-misc").glob("*")):
            if path.name != "README.md":
                with pytest.raises(Unfit) as refusal:
                    whole_way([path], tmp_path / path.name)
                told.append(str(refusal.value))
    assert len(told) == 9
    assert all(told)


CHARSETS = (
    *("chrArab", "chrFren", "chrGB2312", "chrGerm", "chrGreek", "chrH31", "chrH32", "chrHbrw", "chrI2", "chrJapMulti"),
    *("chrJapMultiExplicitIR6", "chrKoreanMulti", "chrRuss", "chrX1", "chrX2"),
)


@pytest.mark.parametrize("name", CHARSETS)
def test_names_of_any_character_set_are_carried_in_utf_8(
    series: Callable[[Change], list[Path]], data: Path, tmp_path: Path, name: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        real = dcmread(data / "charsets" / f"{name}.dcm", stop_before_pixels=True)
        wanted = str(real.get("PatientName", "")).replace("\x1b$)A", "")

    def change(k: int, ds: Dataset) -> None:
        for keyword in ("SpecificCharacterSet", "PatientName"):
            ds.pop(keyword, None)
            if keyword in real:
                ds[keyword] = real[keyword]

    for result in whole_way(series(change), tmp_path):
        ds = dcmread(result.path)
        assert ds.SpecificCharacterSet == "ISO_IR 192"
        assert str(ds.PatientName) == wanted
        assert "\x1b" not in str(ds.PatientName)


def test_the_labels_of_the_tests_are_not_those_of_the_card() -> None:
    assert ORGAN not in LABELS
