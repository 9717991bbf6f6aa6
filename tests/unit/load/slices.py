"""Small CT and MR files with any geometry and any way to store a pixel, single-frame or enhanced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from overread.domain.study import Instance
from overread.spool.header import read_file

ROOT = "1.2.826.0.1.3680043.8.498.7"
CT, ENHANCED_CT, MR, ENHANCED_MR = (f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2", "2.1", "4", "4.1"))
US_CINE, DX = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.840.10008.5.1.4.1.1.1.1"


def base(number: int, pixels: np.ndarray, sop_class: str, modality: str, **values: Any) -> FileDataset:
    """One image without geometry; ``pixels`` (rows, columns) or (frames, rows, columns[, 3]) as stored."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(f"{ROOT}.1.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, f"{ROOT}.1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.2", f"{ROOT}.3", f"{ROOT}.4"
    ds.Modality, ds.InstanceNumber, ds.SeriesNumber = modality, number, 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.Rows, ds.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    bits = 8 * pixels.dtype.itemsize
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def place(ds: Dataset, position: Sequence[float], row: Sequence[float], column: Sequence[float], pixel: Any) -> None:
    """Give a single-frame image its place; ``pixel`` is (between rows, between columns)."""
    ds.ImagePositionPatient = [f"{v:.9g}" for v in position]
    ds.ImageOrientationPatient = [f"{v:.9f}" for v in (*row, *column)]
    ds.PixelSpacing = [f"{v:.9g}" for v in pixel]


def groups(frames: Sequence[dict[str, Any]]) -> list[Dataset]:
    """Per-frame functional groups; each frame maps a sequence's keyword to the attributes of its only item."""
    found = []
    for frame in frames:
        item = Dataset()
        for sequence, values in frame.items():
            inner = Dataset()
            for keyword, value in values.items():
                setattr(inner, keyword, value)
            setattr(item, sequence, [inner])
        found.append(item)
    return found


def placed(position: Sequence[float], row: Sequence[float], column: Sequence[float], pixel: Any) -> dict[str, Any]:
    """The functional groups of one frame that say where it lies."""
    return {
        "PlanePositionSequence": {"ImagePositionPatient": [f"{v:.9g}" for v in position]},
        "PlaneOrientationSequence": {"ImageOrientationPatient": [f"{v:.9f}" for v in (*row, *column)]},
        "PixelMeasuresSequence": {"PixelSpacing": [f"{v:.9g}" for v in pixel], "SliceThickness": "1"},
    }


def stored(folder: Path, datasets: Sequence[FileDataset]) -> list[Instance]:
    """Write them, and read their headers as the listener does; ``path`` is absolute."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for n, ds in enumerate(datasets):
        path = folder / f"{n}.dcm"
        dcmwrite(path, ds, enforce_file_format=True)
        found.append(replace(read_file(path), path=str(path), digest=f"digest {n}"))
    return found
