"""A tiny CT series with known geometry, written to files, and readings of it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from overread.domain import codes
from overread.domain.card import CT_IMAGE_STORAGE, Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.findings import Findings, Measurement, Segment
from overread.domain.geometry import stack
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.ports import Read

SHAPE = (6, 21, 19)  # no multiple of 8 pixels a frame: bits of neighbouring frames share bytes
SPACING_MM = (2.5, 0.7, 0.9)

LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")
LUNG = Code("39607008", "SCT", "Lung")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Code("27925004", "SCT", "Nodule")

LABELS = (
    Label(1, "Left lung", LUNG, modifier=LEFT, color=(80, 160, 220)),
    Label(2, "Right lung", LUNG, modifier=RIGHT, color=(80, 220, 160)),
    Label(3, "Lung nodule", NODULE, ABNORMAL, region=LUNG, region_modifier=LEFT, instances=True, diameters=True),
)
CARD = Card(
    name="ct_chest",
    version="1.2.0",
    title="Overread CT chest",
    manufacturer="overread",
    engine="monai",
    weights="models/model.pt",
    weights_sha256="ab" * 32,
    accepts=Accepts("CT"),
    labels=LABELS,
    folder=Path("models/ct_chest"),
)


def header(k: int) -> Dataset:
    """Slice ``k`` of a complete and correct CT series, without pixels."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CT_IMAGE_STORAGE, f"1.2.826.0.1.3680043.8.498.1.{k + 1}"
    ds.StudyDate, ds.SeriesDate, ds.AcquisitionDate, ds.ContentDate = ("20260102",) * 4
    ds.StudyTime, ds.SeriesTime, ds.AcquisitionTime, ds.ContentTime = ("101112",) * 4
    ds.AccessionNumber, ds.Modality, ds.Manufacturer = "A1", "CT", "Maker"
    ds.ReferringPhysicianName, ds.StudyDescription = "Referrer^Rita", "Chest"
    ds.ManufacturerModelName, ds.PatientName, ds.PatientID = "Scanner", "Müller^Jörg", "P1"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19600102", "M", "066Y"
    ds.SliceThickness, ds.KVP, ds.PatientPosition = "2.5", "120", "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "S1", 2, 1, k + 1
    ds.ImagePositionPatient = [-10.0, -20.0, round(100.0 + k * SPACING_MM[0], 3)]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = "1.2.826.0.1.3680043.8.498.4", ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns, ds.PixelSpacing = SHAPE[1], SHAPE[2], list(SPACING_MM[1:])
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
    return ds


def voxels() -> np.ndarray:
    """(slices, rows, columns) int16, HU, different everywhere."""
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) - 1000


def mask() -> np.ndarray:
    """Two lungs, one with a hole and a far part, and two nodules; nothing symmetric, so that flips show."""
    found = np.zeros(SHAPE, np.uint8)
    found[1:5, 3:15, 2:8] = 1
    found[2, 6:9, 4:6] = 0
    found[3, 18:20, 1:3] = 1
    found[0:4, 4:17, 11:17] = 2
    found[2, 6:9, 12:15] = 3
    found[5, 0:2, 17:19] = 4
    return found


def segments(found: np.ndarray) -> tuple[Segment, ...]:
    titles = ("Left lung", "Right lung", "Lung nodule 1", "Lung nodule 2")
    labels = (LABELS[0], LABELS[1], LABELS[2], LABELS[2])
    return tuple(
        Segment(value, label, title, numbers(value, int((found == value).sum())))
        for value, (label, title) in enumerate(zip(labels, titles, strict=True), 1)
    )


def numbers(value: int, count: int) -> tuple[Measurement, ...]:
    ml = count * float(np.prod(SPACING_MM)) / 1000
    return (
        Measurement(codes.VOLUME, ml, codes.MILLILITER),
        Measurement(codes.ATTENUATION, -712.3456789 + value, codes.HOUNSFIELD, codes.MEAN),
        Measurement(codes.ATTENUATION, 1 / 3, codes.HOUNSFIELD, codes.STANDARD_DEVIATION),
        Measurement(codes.LONG_AXIS, 6.25, codes.MILLIMETER),
    )


def write(ds: Dataset, path: Path) -> Path:
    """Write a slice as it is, imperfect values too."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    file = FileDataset(str(path), ds, file_meta=meta, preamble=bytes(128))
    file.save_as(path, enforce_file_format=True)
    return path


def volume_of(paths: list[Path], pixels: np.ndarray) -> Volume:
    """The volume of files that are already in the order of their position."""
    instances = []
    for path in paths:
        ds = dcmread(path, stop_before_pixels=True)
        instances.append(
            Instance(
                str(ds.SOPInstanceUID),
                str(ds.SOPClassUID),
                str(ds.SeriesInstanceUID),
                str(ds.StudyInstanceUID),
                modality=ds.get("Modality", ""),
                frame_of_reference_uid=str(ds.get("FrameOfReferenceUID", "")),
                rows=ds.Rows,
                columns=ds.Columns,
                position=tuple(map(float, ds.ImagePositionPatient)),
                orientation=tuple(map(float, ds.ImageOrientationPatient)),
                pixel_spacing=tuple(map(float, ds.PixelSpacing)),
            )
        )
    return Volume(pixels, stack(instances), tuple(map(str, paths)))


Change = Callable[[int, Dataset], None]


@pytest.fixture
def reading(tmp_path: Path) -> Callable[..., Read]:
    """``reading(change)``: a reading of a series whose slices ``change(k, header)`` has altered."""

    def make(change: Change | None = None, *, found: np.ndarray | None = None) -> Read:
        folder = tmp_path / "source"
        folder.mkdir()
        pixels = voxels()
        paths = []
        for k in range(SHAPE[0]):
            ds = header(k)
            ds.PixelData = pixels[k].tobytes()
            if change is not None:
                change(k, ds)
            paths.append(write(ds, folder / f"{k:03}.dcm"))
        found = mask() if found is None else found
        read = Read("key", "2026-11-21T08:09:10+00:00", CARD, volume_of(paths, pixels), Findings(found, ()))
        listed = segments(found) if found.any() else ()
        return replace(read, findings=Findings(found, listed))

    return make


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tool(name: str) -> str:
    """Where a validator is; skips the test without it, but not in continuous integration."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} must be installed in continuous integration")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: dicom3tools, dcmtk)")
    return found


def inflated(path: Path) -> Path:
    """A copy that every tool can read: Explicit VR Little Endian."""
    ds = dcmread(path)
    if ds.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = path.with_suffix(".inflated.dcm")
        ds.save_as(path)
    return path


def complaints(path: Path) -> list[str]:
    """dciodvfy's errors."""
    done = subprocess.run([tool("dciodvfy"), str(path)], capture_output=True, text=True, errors="replace", check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if re.match("Error", line)]
