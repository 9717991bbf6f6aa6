"""A small CT in which nothing is symmetric, and the results that overread makes of it, as a viewer gets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from overread.domain.card import CT_IMAGE_STORAGE, Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.geometry import stack
from overread.domain.reading import Reading
from overread.domain.result import Result, roots
from overread.domain.volume import Volume
from overread.encode import encoders
from overread.measure.findings import find
from overread.ports import Read
from overread.spool.header import read_file

SHAPE = (24, 128, 160)
SPACING_MM = (3.0, 1.0, 1.0)
ROOT = "1.2.826.0.1.3680043.8.498"
KINDS = ("seg", "sc", "pdf", "ko", "sr-viewer")

LUNG = Code("39607008", "SCT", "Lung")
LABELS = (
    Label(1, "Left lung", LUNG, modifier=Code("7771000", "SCT", "Left"), color=(40, 90, 250)),
    Label(
        2,
        "Nodule",
        Code("27925004", "SCT", "Nodule"),
        Code("49755003", "SCT", "Morphologically Abnormal Structure"),
        region=LUNG,
        color=(250, 60, 40),
    ),
)
CARD = Card(
    name="viewer",
    version="1",
    title="Viewer test",
    manufacturer="overread",
    engine="monai-bundle",
    weights="",
    weights_sha256="ab" * 32,
    accepts=Accepts("CT"),
    labels=LABELS,
    folder=Path(),
    window=(-500.0, 1500.0),
)


@dataclass(frozen=True)
class ViewedStudy:
    """A study as it lies in the archive: its files, the series of each kind of result, and the truth."""

    uid: str
    files: list[Path]
    series: dict[str, str]
    mask: NDArray[np.uint8]
    images: list[str]


def truth() -> NDArray[np.uint8]:
    """A lung, high on one side, and a nodule near its lower corner; (slices, rows, columns)."""
    found = np.zeros(SHAPE, np.uint8)
    found[4:20, 20:84, 92:136] = 1
    found[4:12, 20:40, 92:104] = 0
    found[14:18, 64:78, 112:122] = 2
    return found


def make(folder: Path, number: int, spoil: Callable[[Path], None] | None = None) -> ViewedStudy:
    """Write study ``number``; ``spoil`` may change the segmentation after it has passed the gate."""
    folder.mkdir(parents=True, exist_ok=True)
    mask = truth()
    voxels = np.where(mask == 1, -800, np.where(mask == 2, 50, 40)).astype(np.int16)
    voxels[:, :6] = -1000
    paths = [_write(k, voxels[k], folder / f"ct-{k:02}.dcm", f"{ROOT}.{number}") for k in range(SHAPE[0])]
    volume = Volume(voxels, stack([read_file(path) for path in paths]), tuple(map(str, paths)), "HU")
    read = Read(
        f"viewer {number}",
        "2026-11-21T08:09:10+00:00",
        CARD,
        volume,
        find(Reading(label_map=mask), volume, CARD),
        roots=roots([KINDS]),
    )
    made: list[Result] = []
    for encoder in encoders(KINDS):
        made.extend(encoder.encode(read, folder, made))
    if spoil is not None:
        spoil(folder / next(r.path for r in made if r.kind == "seg"))
    series = {r.kind: r.series_uid for r in made} | {"ct": volume.stack.instances[0].series_uid}
    files = [*paths, *(folder / r.path for r in made)]
    return ViewedStudy(made[0].study_uid, files, series, mask, [i.sop_instance_uid for i in volume.stack.instances])


def mirrored(path: Path) -> None:
    """Left and right of every frame exchanged."""
    seg = dcmread(path)
    packed = np.packbits(seg.pixel_array[:, :, ::-1].ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + bytes(len(packed) % 2)
    seg.save_as(path)


def slice_reversed(path: Path) -> None:
    """What lies on the first slice said to lie on the last, and so on."""
    seg = dcmread(path)
    images = [str(i.ReferencedSOPInstanceUID) for i in seg.SourceImageSequence]
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        k = len(images) - 1 - images.index(str(source.ReferencedSOPInstanceUID))
        source.ReferencedSOPInstanceUID = images[k]
        group.PlanePositionSequence[0].ImagePositionPatient = [-80.0, -64.0, k * SPACING_MM[0]]
    seg.save_as(path)


def _write(k: int, pixels: NDArray[np.int16], path: Path, root: str) -> Path:
    ds = Dataset()
    ds.SpecificCharacterSet, ds.ImageType = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CT_IMAGE_STORAGE, f"{root}.1.{k + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{root}.2", f"{root}.3", f"{root}.4"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260102", "101112", "A1", "S1"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Viewer^Vera", root[-4:], "19600102", "F"
    ds.Modality, ds.Manufacturer, ds.ReferringPhysicianName, ds.KVP = "CT", "Maker", "", "120"
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber, ds.SeriesDescription = 2, 1, k + 1, "Axial"
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-80.0, -64.0, k * SPACING_MM[0]], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.PositionReferenceIndicator = list(SPACING_MM[1:]), SPACING_MM[0], ""
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *SHAPE[1:], 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.WindowCenter, ds.WindowWidth = "0", "1", "-300", "1600"
    ds.PixelData = pixels.tobytes()
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    FileDataset(str(path), ds, file_meta=meta, preamble=bytes(128)).save_as(path, enforce_file_format=True)
    return path
