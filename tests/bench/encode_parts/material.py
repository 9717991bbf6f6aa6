"""A CT of so many slices with so many ellipsoids for organs: files, volume, mask, findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from overread.domain import codes
from overread.domain.card import CT_IMAGE_STORAGE, Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.findings import Findings, Measurement, Segment
from overread.domain.geometry import stack
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.ports import Read

ROOT = "1.2.826.0.1.3680043.8.498"
SPACING_MM = (1.25, 0.8, 0.8)
ORGAN = Label(1, "Organ", Code("113343008", "SCT", "Organ"))
CARD = Card(
    name="bench",
    version="1",
    title="Bench",
    manufacturer="overread",
    engine="monai",
    weights="",
    weights_sha256="ab" * 32,
    accepts=Accepts("CT"),
    labels=(ORGAN,),
    folder=Path(),
)


def write_series(folder: Path, shape: tuple[int, int, int]) -> list[Path]:
    """The files of a CT of ``shape`` (slices, rows, columns), all air; written once."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{k:04}.dcm" for k in range(shape[0])]
    for k, path in enumerate(paths):
        if not path.exists():
            _write(_header(k, shape), path)
    return paths


def mask(shape: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """``count`` ellipsoids (one: a large one), always the same; later ones lie over earlier ones."""
    rng, found = np.random.default_rng(3), np.zeros(shape, np.uint8)
    for value in range(1, count + 1):
        centre = [rng.integers(int(n * 0.1), int(n * 0.9)) for n in shape]
        radii = [rng.uniform(n * a, n * b) for n, a, b in zip(shape, (0.07, 0.03, 0.03), (0.18, 0.1, 0.1), strict=True)]
        if count == 1:
            centre, radii = [n // 2 for n in shape], [n * f for n, f in zip(shape, (0.25, 0.18, 0.16), strict=True)]
        low = [max(0, int(c - r)) for c, r in zip(centre, radii, strict=True)]
        high = [min(n, int(c + r) + 1) for n, c, r in zip(shape, centre, radii, strict=True)]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        grid = np.ogrid[box]
        away = sum(((x - c) / r) ** 2 for x, c, r in zip(grid, centre, radii, strict=True))
        found[box][away <= 1] = value
    return found


def reading(paths: list[Path], found: NDArray[np.uint8]) -> Read:
    """What a model would have made of it; voxels take no memory."""
    instances = [_instance(k, found.shape) for k in range(len(paths))]
    voxels = np.broadcast_to(np.int16(-1000), found.shape)
    held = held_values(found)
    segments = tuple(Segment(v, ORGAN, f"Organ {v}", _numbers(v)) for v in held)
    volume = Volume(voxels, stack(instances), tuple(map(str, paths)))
    return Read("bench", "2026-11-21T08:09:10+00:00", CARD, volume, Findings(found, segments))


def held_values(found: NDArray[np.uint8]) -> list[int]:
    """The values of a mask, slice by slice, so that the peak of memory is not this bench's own."""
    return sorted(set().union(*(np.unique(plane).tolist() for plane in found)) - {0})


def _numbers(value: int) -> tuple[Measurement, ...]:
    return (
        Measurement(codes.VOLUME, 10.0 + value, codes.MILLILITER),
        Measurement(codes.ATTENUATION, 40.0 + value, codes.HOUNSFIELD, codes.MEAN),
        Measurement(codes.ATTENUATION, 12.5, codes.HOUNSFIELD, codes.STANDARD_DEVIATION),
    )


def _position(k: int) -> list[float]:
    return [-200.0, -200.0, round(k * SPACING_MM[0], 2)]


def _instance(k: int, shape: tuple[int, ...]) -> Instance:
    return Instance(
        f"{ROOT}.1.{k + 1}",
        CT_IMAGE_STORAGE,
        f"{ROOT}.3",
        f"{ROOT}.2",
        modality="CT",
        frame_of_reference_uid=f"{ROOT}.4",
        rows=shape[1],
        columns=shape[2],
        position=tuple(_position(k)),
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing=SPACING_MM[1:],
    )


def _header(k: int, shape: tuple[int, int, int]) -> Dataset:
    ds = Dataset()
    ds.ImageType, ds.Modality, ds.Manufacturer = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT", "Maker"
    ds.SOPClassUID, ds.SOPInstanceUID = CT_IMAGE_STORAGE, f"{ROOT}.1.{k + 1}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = f"{ROOT}.2", f"{ROOT}.3", f"{ROOT}.4"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber, ds.StudyID = "20260102", "101112", "A1", "S1"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Bench^Ben", "B1", "19600102", "M"
    ds.ReferringPhysicianName, ds.SliceThickness, ds.KVP = "", "1.25", "120"
    ds.SeriesNumber, ds.InstanceNumber, ds.PositionReferenceIndicator = 2, k + 1, ""
    ds.ImagePositionPatient, ds.ImageOrientationPatient = _position(k), [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.Rows, ds.Columns = list(SPACING_MM[1:]), *shape[1:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope = "0", "1"
    ds.PixelData = np.full(shape[1:], -1000, np.int16).tobytes()
    return ds


def _write(ds: Dataset, path: Path) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    FileDataset(str(path), ds, file_meta=meta, preamble=bytes(128)).save_as(path, enforce_file_format=True)
