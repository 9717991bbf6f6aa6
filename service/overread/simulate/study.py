"""A phantom as a DICOM CT series, valid by the modules of PS3.3 A.3, the same bytes for the same arguments."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian  # type: ignore[attr-defined,unused-ignore]

from overread.simulate.phantom import ChestPhantom, Nodule

TRUTH_FILE = "truth.npz"

_INTERCEPT = -1024
_DATE, _TIME = "20260105", "080000"
_AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
_IMPLEMENTATION_UID = "2.25.190462310945714027436019465308752104811"


@dataclass(frozen=True)
class Truth:
    """What is known of a generated study: ``labels`` (slices, rows, columns) uint8, keys of ``phantom.LABELS``;
    ``affine`` (4, 4) float64, (slice, row, column) index → mm, LPS; the painted ``nodules``."""

    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    nodules: tuple[Nodule, ...]


@dataclass(frozen=True)
class _Plane:
    """One image of a series: stored values (rows, columns) uint16, where it lies (mm, LPS) and what it is."""

    stored: NDArray[np.uint16]
    position: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    image_type: tuple[str, ...]


def write_study(
    phantom: ChestPhantom, folder: Path, *, seed: int, uid_salt: str = "", localizer: bool = False, truth: bool = False
) -> list[Path]:
    """Write ``phantom`` as CT images into ``folder`` (made if it is not there); returns the files in slice order,
    feet to head, the localizer first when there is one.

    ``seed`` names the patient and makes the UIDs, together with the grid and ``uid_salt``: the same three give the
    same UIDs. ``localizer`` adds a series of one coronal scout. ``truth`` saves the labels as ``truth.npz`` beside it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if truth:
        save_truth(phantom, folder / TRUTH_FILE)
    names = _Names(f"{seed}/{phantom.grid.shape}/{phantom.grid.spacing_mm}/{uid_salt}", seed)
    written = [_write(names, 1, 1, _scout(phantom), folder)] if localizer else []
    for number, plane in enumerate(_slices(phantom), 1):
        written.append(_write(names, 2, number, plane, folder))
    return written


def affine_of(phantom: ChestPhantom) -> NDArray[np.float64]:
    """(4, 4) float64: (slice, row, column) index → mm, LPS."""
    z, y, x = phantom.grid.axes()
    between_slices, between_rows, between_columns = phantom.grid.spacing_mm
    return np.array(
        [
            [0, 0, between_columns, x[0]],
            [0, between_rows, 0, y[0]],
            [between_slices, 0, 0, z[0]],
            [0, 0, 0, 1],
        ],
        np.float64,
    )


def save_truth(phantom: ChestPhantom, path: Path) -> None:
    """Save what is known of ``phantom`` as a NumPy archive that ``truth_of`` reads."""
    nodules = json.dumps([asdict(n) for n in phantom.nodules])
    np.savez_compressed(path, labels=phantom.truth, affine=affine_of(phantom), nodules=np.array(nodules))


def truth_of(folder: Path) -> Truth:
    """What was saved in ``folder`` by ``write_study(…, truth=True)``; FileNotFoundError when nothing was."""
    with np.load(folder / TRUTH_FILE, allow_pickle=False) as saved:
        found = json.loads(str(saved["nodules"]))
        nodules = tuple(Nodule(tuple(n["centre"]), n["diameter_mm"], n["hu"]) for n in found)
        return Truth(saved["labels"], saved["affine"], nodules)


class _Names:
    """The identifiers of one generated study."""

    def __init__(self, origin: str, seed: int) -> None:
        self.origin = origin
        self.patient = f"PHANTOM-{seed}"
        self.accession = f"P{seed}"[:16]

    def uid(self, what: str) -> str:
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'overread phantom {self.origin} {what}').int}"


def _slices(phantom: ChestPhantom) -> Iterator[_Plane]:
    z, y, x = phantom.grid.axes()
    thickness, *spacing = phantom.grid.spacing_mm
    for k, plane in enumerate(phantom.hu):
        position = (float(x[0]), float(y[0]), float(z[k]))
        kind = ("ORIGINAL", "PRIMARY", "AXIAL")
        yield _Plane(_stored(plane), position, _AXIAL, (spacing[0], spacing[1]), thickness, kind)


def _scout(phantom: ChestPhantom) -> _Plane:
    """Mean Hounsfield units from front to back, seen from the front, head up."""
    z, y, x = phantom.grid.axes()
    between_slices, between_rows, between_columns = phantom.grid.spacing_mm
    mean = np.rint(phantom.hu.mean(axis=1))[::-1]
    position = (float(x[0]), float(y[len(y) // 2]), float(z[-1]))
    depth = between_rows * len(y)
    kind = ("ORIGINAL", "PRIMARY", "LOCALIZER")
    return _Plane(_stored(mean), position, _CORONAL, (between_slices, between_columns), depth, kind)


def _stored(hu: NDArray[np.floating] | NDArray[np.int16]) -> NDArray[np.uint16]:
    return np.asarray(np.clip(hu.astype(np.int32) - _INTERCEPT, 0, 4095), np.uint16)


def _write(names: _Names, series: int, number: int, plane: _Plane, folder: Path) -> Path:
    dataset = Dataset()
    _patient_and_study(dataset, names)
    _series(dataset, names, series, number)
    _plane(dataset, plane)
    _pixels(dataset, plane.stored)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION_UID
    dataset.file_meta = meta
    path = folder / f"{series}-{number:04d}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def _patient_and_study(dataset: Dataset, names: _Names) -> None:
    dataset.PatientName = "PHANTOM^CHEST"
    dataset.PatientID = names.patient
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "O"
    dataset.StudyInstanceUID = names.uid("study")
    dataset.StudyDate = _DATE
    dataset.StudyTime = _TIME
    dataset.StudyID = "1"
    dataset.AccessionNumber = names.accession
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = "Generated chest CT"


def _series(dataset: Dataset, names: _Names, series: int, number: int) -> None:
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = names.uid(f"instance {series} {number}")
    dataset.Modality = "CT"
    dataset.SeriesInstanceUID = names.uid(f"series {series}")
    dataset.SeriesNumber = series
    dataset.SeriesDescription = "Scout" if series == 1 else "Chest"
    dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = _DATE
    dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = _TIME
    dataset.BodyPartExamined = "CHEST"
    dataset.PatientPosition = "HFS"
    dataset.FrameOfReferenceUID = names.uid("frame of reference")
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "overread"
    dataset.ManufacturerModelName = "chest phantom"
    dataset.InstanceNumber = number
    dataset.AcquisitionNumber = series
    dataset.KVP = "120"


def _plane(dataset: Dataset, plane: _Plane) -> None:
    dataset.ImageType = list(plane.image_type)
    dataset.ImagePositionPatient = [_ds(v) for v in plane.position]
    dataset.ImageOrientationPatient = [_ds(v) for v in plane.orientation]
    dataset.PixelSpacing = [_ds(v) for v in plane.spacing_mm]
    dataset.SliceThickness = _ds(plane.thickness_mm)


def _pixels(dataset: Dataset, stored: NDArray[np.uint16]) -> None:
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = str(_INTERCEPT)
    dataset.RescaleSlope = "1"
    if dataset.ImageType[2] != "LOCALIZER":
        dataset.RescaleType = "HU"
    dataset.WindowCenter, dataset.WindowWidth = "-500", "1500"
    dataset.PixelData = stored.astype("<u2").tobytes()


def _ds(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 6.2)."""
    return f"{round(value, 6):.9g}"
