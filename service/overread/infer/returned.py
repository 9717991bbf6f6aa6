"""What a foreign program wrote, checked against the source before anything is made of it: NIfTI or DICOM SEG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Reading
from overread.infer.engines import LPS_TO_RAS, Grid

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
LABEL_MAP = SEGMENTATIONS[1]
OFF_GRID = 0.05  # voxels

Mask = NDArray[np.bool_]


def collect(folder: Path, card: Card, source: Grid, notes: Sequence[str]) -> Reading:
    """The result in ``folder`` on the grid of ``source``.

    One NIfTI label map (values are the card's labels), or DICOM SEG objects. Other DICOM objects are left out, with a
    note: their place cannot be checked. Raises CardError, saying why, when there is no result or one is out of place.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    niftis = [p for p in files if p.name.endswith((".nii", ".nii.gz"))]
    if len(niftis) > 1:
        raise CardError(f"the program wrote {len(niftis)} NIfTI files; it may write one label map")
    if niftis:
        return Reading(label_map=_nifti(niftis[0], source), notes=tuple(notes))
    masks: dict[int, Mask] = {}
    left_out, taken = [], 0
    for dataset in _dicom(files):
        if dataset.get("SOPClassUID") in SEGMENTATIONS:
            taken += 1
            for value, k, plane in _planes(dataset, card, source):
                masks.setdefault(value, np.zeros(source.voxels.shape, bool))[k] |= plane
        else:
            left_out.append(str(dataset.get("Modality") or "unknown"))
    if not taken:
        others = f" (only DICOM of modality {', '.join(sorted(set(left_out)))})" if left_out else ""
        raise CardError(f"the program wrote neither a NIfTI label map nor a DICOM SEG{others}")
    said = [f"left out what cannot be checked: {', '.join(sorted(set(left_out)))}"] if left_out else []
    return Reading(masks=masks, notes=(*notes, *said))


def _nifti(path: Path, source: Grid) -> NDArray[np.uint8]:
    """The label map at ``path``, turned onto the source's axes; refused unless it is the same grid."""
    try:
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj)
    except Exception as error:
        # The edge to a reader of foreign files.
        raise CardError(f"the program's NIfTI file cannot be read: {type(error).__name__}") from error
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3 or values.min() < 0 or values.max() > 255 or not np.array_equal(values, np.rint(values)):
        raise CardError("the program's NIfTI file is no label map: whole numbers from 0 to 255 in three dimensions")
    to_theirs = np.linalg.inv(image.affine) @ LPS_TO_RAS @ source.affine
    steps = np.rint(to_theirs[:3, :3]).astype(int)
    shape = np.array(source.voxels.shape)
    if np.abs(to_theirs[:3, :3] - steps).max() * shape.max() > 0.1 or (np.abs(steps).sum(axis=0) != 1).any():
        raise CardError("the program's NIfTI file has other axes or spacings than the source")
    axes = np.abs(steps).argmax(axis=0)
    if sorted(axes) != [0, 1, 2] or tuple(np.array(values.shape)[axes]) != tuple(shape):
        sizes = f"{values.shape}, the source (slices, rows, columns) {source.voxels.shape}"
        raise CardError(f"the program's NIfTI file is {sizes}")
    turned = values.transpose(axes)
    flips = steps[axes, [0, 1, 2]]
    starts = np.where(flips > 0, 0.0, shape - 1.0)
    if np.abs(to_theirs[:3, 3][axes] - starts).max() > OFF_GRID:
        raise CardError("the program's NIfTI file lies beside the source")
    ordered = turned[tuple(slice(None, None, int(f)) for f in flips)]
    return np.ascontiguousarray(ordered).astype(np.uint8)


def _dicom(files: Sequence[Path]) -> Iterator[Dataset]:
    for path in files:
        try:
            yield pydicom.dcmread(path)
        except (InvalidDicomError, OSError):
            continue  # logs and the like


def _planes(dataset: Dataset, card: Card, source: Grid) -> Iterator[tuple[int, int, Mask]]:
    """(value of the card's label, source slice, pixels (rows, columns)) of each segment on each frame."""
    values = _values(dataset, card)
    header = pydicom.dcmread(source.paths[0], stop_before_pixels=True)
    if dataset.get("FrameOfReferenceUID") != header.get("FrameOfReferenceUID"):
        raise CardError("the program's segmentation is in another frame of reference than the source")
    if (int(dataset.Rows), int(dataset.Columns)) != source.voxels.shape[1:]:
        raise CardError(f"the program's segmentation has frames of {dataset.Rows} × {dataset.Columns} pixels")
    frames = np.asarray(dataset.pixel_array).reshape(-1, int(dataset.Rows), int(dataset.Columns))
    half = float(dataset.get("MaximumFractionalValue", 1)) / 2
    for n, frame in enumerate(frames):
        k = _slice_of(dataset, n, source)
        if dataset.SOPClassUID == LABEL_MAP:
            found = {int(v): frame == v for v in np.unique(frame) if v}
        else:
            content = _group(dataset, n, "SegmentIdentificationSequence")
            found = {int(content.ReferencedSegmentNumber): frame > half}
        for number, plane in found.items():
            yield values[number], k, plane


def _values(dataset: Dataset, card: Card) -> dict[int, int]:
    """Segment number → value of the card's label, by the segment's label."""
    ours = {label.name.casefold(): label.value for label in card.labels}
    found: dict[int, int] = {}
    for segment in dataset.SegmentSequence:
        called = str(segment.SegmentLabel)
        name = card.external.segments.get(called, called)
        if name.casefold() not in ours:
            raise CardError(f"the program's segment {called!r} is no label of the card; name it in external.segments")
        found[int(segment.SegmentNumber)] = ours[name.casefold()]
    return found


def _slice_of(dataset: Dataset, n: int, source: Grid) -> int:
    """The source slice on which frame ``n`` lies, to within a twentieth of a voxel at every corner."""
    position = np.array(_group(dataset, n, "PlanePositionSequence").ImagePositionPatient, np.float64)
    orientation = np.array(_group(dataset, n, "PlaneOrientationSequence").ImageOrientationPatient, np.float64)
    rows_mm, columns_mm = (float(v) for v in _group(dataset, n, "PixelMeasuresSequence").PixelSpacing)
    rows, columns = source.voxels.shape[1] - 1, source.voxels.shape[2] - 1
    down, right = orientation[3:] * rows_mm * rows, orientation[:3] * columns_mm * columns
    corners = np.stack([position, position + down, position + right], axis=1)
    inverse = np.linalg.inv(source.affine)
    indices = (inverse @ np.vstack([corners, np.ones(3)]))[:3]
    k = round(float(indices[0].mean()))
    wanted = np.array([[k, k, k], [0, rows, 0], [0, 0, columns]], np.float64)
    if not 0 <= k < source.voxels.shape[0] or np.abs(indices - wanted).max() > OFF_GRID:
        raise CardError(f"frame {n + 1} of the program's segmentation does not lie on a source slice")
    return k


def _group(dataset: Dataset, n: int, keyword: str) -> Dataset:
    """A functional group of frame ``n``, its own or the shared one."""
    for groups in (dataset.PerFrameFunctionalGroupsSequence[n], dataset.SharedFunctionalGroupsSequence[0]):
        if keyword in groups:
            item: Dataset = groups[keyword][0]
            return item
    raise CardError(f"the program's segmentation has no {keyword}")
