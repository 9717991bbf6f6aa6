"""Never a wrong place: what was written is read back from its file and compared with its source.

Nothing here knows how an object was built. Pixels are unpacked by hand, positions are compared in patient space (mm,
LPS) with the headers of the source files, the mask voxel by voxel with the findings, the patient and study with the
source's. What differs is refused and its file removed; errors name attributes and slices, never values of a patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from overread.domain.errors import Misplaced
from overread.domain.geometry import ORIENTATION_TOLERANCE
from overread.domain.result import Result
from overread.encode import gate_report
from overread.encode.sources import Sources, unperturbed
from overread.ports import Read

POSITION_TOLERANCE_MM = 0.01
SPACING_TOLERANCE_MM = 1e-4


def require_consistent(read: Read) -> None:
    """Raise Misplaced unless the mask lies on the volume's grid and its values are those of the segments, 1 … n."""
    values = [segment.value for segment in read.findings.segments]
    for mask in read.findings.layers:
        if mask.shape != read.volume.voxels.shape or mask.shape[1:] != read.volume.stack.shape[1:]:
            raise Misplaced(f"the mask is {mask.shape}, its volume {read.volume.voxels.shape}")
        if values != list(range(1, len(values) + 1)) or int(mask.max(initial=0)) > len(values):
            raise Misplaced("the values of the mask are not those of its segments, numbered from 1 without gaps")


def pass_segmentation(path: Path, read: Read, sources: Sources) -> None:
    """Raise Misplaced and remove ``path`` unless it holds exactly the findings' mask on the source's slices."""
    _or_remove(path, lambda: _segmentation(_reopen(path), read, sources))


def pass_report(path: Path, read: Read, sources: Sources, segmentation: Result | None) -> None:
    """Raise Misplaced and remove ``path`` unless its outlines, numbers and references are those of the findings."""

    def check() -> None:
        report = _reopen(path)
        _same_identity(report, sources)
        _same_slices(read, sources)
        gate_report.check(report, read, sources, segmentation)

    _or_remove(path, check)


def _or_remove(path: Path, check: Callable[[], None]) -> None:
    passed = False
    try:
        with unperturbed():
            check()
        passed = True
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, InvalidDicomError) as error:
        raise Misplaced(f"{path.name} does not read back: {type(error).__name__} in its structure") from None
    finally:
        if not passed:
            path.unlink(missing_ok=True)


def _reopen(path: Path) -> Dataset:
    dataset: Dataset = dcmread(path)
    return dataset


def _segmentation(segmentation: Dataset, read: Read, sources: Sources) -> None:
    _same_identity(segmentation, sources)
    _same_slices(read, sources)
    _same_grid(segmentation, sources)
    _all_referenced(segmentation, sources)
    _same_segments(segmentation, read)
    layers = read.findings.layers
    rebuilt = [np.zeros_like(layer) for layer in layers]
    number_of = {s.value: read.findings.layer_of(s.value) for s in read.findings.segments}
    indices = {str(header.SOPInstanceUID): k for k, header in enumerate(sources.headers)}
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for number, (frame, plane) in enumerate(_frames(segmentation), 1):
        k = _slice_of(frame, shared, indices, number)
        _same_place(frame, shared, sources.headers[k], number)
        value = int(_macro(frame, shared, "SegmentIdentificationSequence").ReferencedSegmentNumber)
        found = rebuilt[number_of[value]]
        if found[k][plane].any():
            raise Misplaced(f"frame {number} of the segmentation overlaps another on slice {k + 1}")
        found[k][plane] = value
    for found, wanted in zip(rebuilt, layers, strict=True):
        _same_mask(found, wanted)


def _same_identity(result: Dataset, sources: Sources) -> None:
    for wanted in sources.identity:
        found = result.get(wanted.tag)
        if found is None or (wanted.VR == "SQ" and len(found.value) != len(wanted.value)):
            raise Misplaced(f"{wanted.keyword} of the source is not in the result")
        if wanted.VR != "SQ" and str(found.value or "") != str(wanted.value or ""):
            raise Misplaced(f"{wanted.keyword} of the result differs from the source")


def _same_slices(read: Read, sources: Sources) -> None:
    """The volume's slices lie where the headers of their files say, so that a mask on it is a mask on them."""
    affine = read.volume.affine
    step = float(np.linalg.norm(affine[:3, 0]))
    for k, header in enumerate(sources.headers):
        expected = affine[:3, 3] + k * affine[:3, 0]
        if np.linalg.norm(_floats(header.ImagePositionPatient) - expected) > step / 2:
            raise Misplaced(f"slice {k + 1} of the volume does not lie at the ImagePositionPatient of its file")
    orientation = _floats(sources.headers[0].ImageOrientationPatient)
    columns, rows = (affine[:3, i] / np.linalg.norm(affine[:3, i]) for i in (1, 2))
    if np.abs(orientation - np.concatenate([rows, columns])).max() > ORIENTATION_TOLERANCE:
        raise Misplaced("the volume's axes are not the ImageOrientationPatient of its files")


def _same_grid(segmentation: Dataset, sources: Sources) -> None:
    source = sources.headers[0]
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID"):
        if segmentation.get(keyword) != source.get(keyword):
            raise Misplaced(f"{keyword} of the segmentation differs from the source")


def _all_referenced(segmentation: Dataset, sources: Sources) -> None:
    named = [i for s in segmentation.ReferencedSeriesSequence for i in s.ReferencedInstanceSequence]
    found = {str(instance.ReferencedSOPInstanceUID) for instance in named}
    if found != {str(header.SOPInstanceUID) for header in sources.headers}:
        raise Misplaced("ReferencedSeriesSequence of the segmentation does not name exactly the source slices")


def _same_segments(segmentation: Dataset, read: Read) -> None:
    found = [
        (int(s.SegmentNumber), str(s.SegmentedPropertyTypeCodeSequence[0].CodeValue))
        for s in segmentation.SegmentSequence
    ]
    if found != [(s.value, s.label.type.value) for s in read.findings.segments]:
        raise Misplaced("SegmentSequence does not describe the segments of the findings")


def _frames(segmentation: Dataset) -> Iterator[tuple[Dataset, NDArray[np.bool_]]]:
    """Each frame's functional groups and pixels (rows, columns): one bit each, the first in the lowest bit, frames not
    aligned to bytes (PS3.5 8.1.1)."""
    rows, columns = int(segmentation.Rows), int(segmentation.Columns)
    groups = segmentation.PerFrameFunctionalGroupsSequence
    packed = np.frombuffer(segmentation.PixelData, np.uint8)
    size = rows * columns
    if len(groups) != int(segmentation.NumberOfFrames) or len(packed) < -(-size * len(groups) // 8):
        raise Misplaced("the segmentation's frames, their descriptions and its pixels are not equally many")
    for n, group in enumerate(groups):
        first, last = n * size, (n + 1) * size
        bits = np.unpackbits(packed[first // 8 : -(-last // 8)], bitorder="little")
        yield group, bits[first % 8 : first % 8 + size].reshape(rows, columns).astype(bool)


def _slice_of(frame: Dataset, shared: Dataset, indices: dict[str, int], number: int) -> int:
    derivation = _macro(frame, shared, "DerivationImageSequence")
    named = {str(s.ReferencedSOPInstanceUID) for s in derivation.SourceImageSequence}
    if len(named) != 1 or not named <= set(indices):
        raise Misplaced(f"frame {number} of the segmentation does not name one source slice")
    return indices[named.pop()]


def _same_place(frame: Dataset, shared: Dataset, source: Dataset, number: int) -> None:
    """Position, orientation and pixel spacing of a frame are those of the slice that it names."""
    position = _floats(_macro(frame, shared, "PlanePositionSequence").ImagePositionPatient)
    away = float(np.linalg.norm(position - _floats(source.ImagePositionPatient)))
    if not away <= POSITION_TOLERANCE_MM:
        raise Misplaced(f"frame {number} of the segmentation lies {away:.3f} mm from the slice that it names")
    orientation = _floats(_macro(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient)
    if np.abs(orientation - _floats(source.ImageOrientationPatient)).max() > ORIENTATION_TOLERANCE:
        raise Misplaced(f"ImageOrientationPatient of frame {number} differs from the slice that it names")
    spacing = _floats(_macro(frame, shared, "PixelMeasuresSequence").PixelSpacing)
    if np.abs(spacing - _floats(source.PixelSpacing)).max() > SPACING_TOLERANCE_MM:
        raise Misplaced(f"PixelSpacing of frame {number} differs from the slice that it names")


def _same_mask(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> None:
    if np.array_equal(found, wanted):
        return
    wrong = found != wanted
    segments = sorted(set(np.unique(found[wrong]).tolist()) | set(np.unique(wanted[wrong]).tolist()) - {0})
    slices = np.flatnonzero(wrong.any(axis=(1, 2)))
    raise Misplaced(
        f"{int(wrong.sum())} voxels of segments {segments} on {len(slices)} slices differ from the findings, "
        f"first on slice {int(slices[0]) + 1}"
    )


def _macro(frame: Dataset, shared: Dataset, keyword: str) -> Dataset:
    """The item of a functional group, the frame's own or the shared one; raises KeyError when there is none."""
    holder = frame if keyword in frame else shared
    item: Dataset = holder[keyword].value[0]
    return item


def _floats(values: object) -> NDArray[np.float64]:
    return np.array([float(v) for v in values], np.float64)  # type: ignore[attr-defined]
