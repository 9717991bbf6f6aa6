"""The gate for segmentations: each frame lies where the slice lies that it names, and all together are the findings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.domain.geometry import ORIENTATION_TOLERANCE
from overread.domain.variant import Variant
from overread.encode.frames import fraction
from overread.encode.layers import Layer
from overread.encode.reread import Reread, elements, items
from overread.encode.sources import Sources
from overread.ports import Read

POSITION_TOLERANCE_MM = 0.01
SPACING_TOLERANCE_MM = 1e-4

_SEGMENT, _NUMBER = 0x0062000A, 0x0062000B
_PLANE, _POSITION = 0x00209113, 0x00200032
_DERIVATION, _SOURCE, _NAMED, _FRAME = 0x00089124, 0x00082112, 0x00081155, 0x00081160

Slice = tuple[str, int]


@dataclass(frozen=True)
class Group:
    """What the functional groups of one frame say: its segment's number, its slice, its place in mm."""

    number: int
    named: Slice
    position: NDArray[np.float64]


def check(found: Reread, read: Read, sources: Sources, layer: Layer, variant: Variant) -> None:
    """Raise Misplaced, saying what differs, unless ``found`` is ``layer`` on its slices."""
    header = found.header
    _same_grid(header, sources)
    _all_referenced(header, sources)
    _same_segments(header, layer)
    _same_planes(header.SharedFunctionalGroupsSequence[0], sources)
    groups = frame_groups(found, sources)
    if len(groups) != int(header.NumberOfFrames):
        raise Misplaced("the segmentation's frames, their descriptions and its pixels are not equally many")
    slices = {(r.sop_instance_uid, r.frame): k for k, r in enumerate(sources.references)}
    if variant.method == "fractional":
        _same_fractions(found, groups, slices, layer, read)
    else:
        rebuilt = _rebuilt(found, groups, layer, slices, binary=variant.method == "binary")
        _same_mask(rebuilt, layer.mask)


def frame_groups(found: Reread, sources: Sources) -> list[Group]:
    shared = found.header.SharedFunctionalGroupsSequence[0]
    once = shared.get("SegmentIdentificationSequence")
    number = int(once[0].ReferencedSegmentNumber) if once else 0
    groups = [_group(found.groups, *where, number) for where in items(found.groups, 0, len(found.groups))]
    places = {
        (reference.sop_instance_uid, reference.frame): position
        for reference, position in zip(sources.references, sources.positions, strict=True)
    }
    for n, group in enumerate(groups, 1):
        if group.named not in places:
            raise Misplaced(f"frame {n} of the segmentation does not name one source slice")
        away = float(np.linalg.norm(group.position - places[group.named]))
        if not away <= POSITION_TOLERANCE_MM:
            raise Misplaced(f"frame {n} of the segmentation lies {away:.3f} mm from the slice that it names")
    return groups


def _group(data: bytes, begin: int, end: int, number: int) -> Group:
    found = elements(data, begin, end)
    if _SEGMENT in found:
        value = _within(data, found[_SEGMENT], _NUMBER)
        number = int.from_bytes(data[slice(*value)], "little")
    position = data[slice(*_within(data, found[_PLANE], _POSITION))].decode("ascii")
    images = _within(data, found[_DERIVATION], _SOURCE)
    (only,) = items(data, *images)
    told = elements(data, *only)
    uid = data[slice(*told[_NAMED])].decode("ascii").rstrip("\0 ")
    named = (uid, int(data[slice(*told[_FRAME])]) if _FRAME in told else 0)
    return Group(number, named, np.array([float(v) for v in position.split("\\")], np.float64))


def _within(data: bytes, sequence: tuple[int, int], tag: int) -> tuple[int, int]:
    """The value of ``tag`` in the only item of a sequence."""
    (only,) = items(data, *sequence)
    return elements(data, *only)[tag]


def _rebuilt(
    found: Reread, groups: list[Group], layer: Layer, slices: Mapping[Slice, int], *, binary: bool
) -> NDArray[np.uint8]:
    """The mask that the frames make, in values of the findings."""
    rebuilt = np.zeros(layer.mask.shape, np.uint8)
    values = np.zeros(256, np.uint8)
    values[1 : len(layer.segments) + 1] = [segment.value for segment in layer.segments]
    for n, (group, (first, part)) in enumerate(zip(groups, found.frames, strict=True), 1):
        k = slices[group.named]
        target = rebuilt[k, first : first + len(part)]
        where = part.view(np.bool_) if binary else part > 0
        if target[where].any():
            raise Misplaced(f"frame {n} of the segmentation overlaps another on slice {k + 1}")
        target[where] = values[group.number] if binary else values[part[where]]
    return rebuilt


def _same_fractions(found: Reread, groups: list[Group], slices: Mapping[Slice, int], layer: Layer, read: Read) -> None:
    """Each frame holds the probabilities of its segment on its slice; those without a frame are nowhere above zero."""
    told: set[tuple[int, int]] = set()
    for n, (group, (first, part)) in enumerate(zip(groups, found.frames, strict=True), 1):
        segment, k = layer.segments[group.number - 1], slices[group.named]
        plane = np.zeros(layer.mask.shape[1:], np.uint8)
        plane[first : first + len(part)] = part
        if not np.array_equal(plane, fraction(read.findings.probabilities[segment.value][k])):
            raise Misplaced(f"frame {n} of the segmentation differs from the probabilities of the findings")
        told.add((segment.value, k))
    if len(told) != len(groups):
        raise Misplaced("two frames of the segmentation tell of the same segment on the same slice")
    for segment in layer.segments:
        planes = read.findings.probabilities[segment.value]
        if any(fraction(plane).any() for k, plane in enumerate(planes) if (segment.value, k) not in told):
            raise Misplaced(f"the segmentation leaves out probabilities of segment {segment.value}")


def _same_grid(header: Dataset, sources: Sources) -> None:
    source = sources.headers[0]
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID"):
        if header.get(keyword) != source.get(keyword):
            raise Misplaced(f"{keyword} of the segmentation differs from the source")


def _all_referenced(header: Dataset, sources: Sources) -> None:
    named = [i for s in header.ReferencedSeriesSequence for i in s.ReferencedInstanceSequence]
    wanted = set(sources.objects)
    if {str(i.ReferencedSOPInstanceUID) for i in named} != wanted:
        raise Misplaced("ReferencedSeriesSequence of the segmentation does not name exactly the source slices")
    if {str(i.ReferencedSOPInstanceUID) for i in header.SourceImageSequence} != wanted:
        raise Misplaced("SourceImageSequence of the segmentation does not name exactly the source slices")


def _same_segments(header: Dataset, layer: Layer) -> None:
    found = [
        (int(s.SegmentNumber), str(s.SegmentedPropertyTypeCodeSequence[0].CodeValue))
        for s in header.SegmentSequence
        if int(s.SegmentNumber) > 0
    ]
    if found != [(n, s.label.type.value) for n, s in enumerate(layer.segments, 1)]:
        raise Misplaced("SegmentSequence does not describe the segments of the findings")


def _same_planes(shared: Dataset, sources: Sources) -> None:
    """Orientation and pixel spacing are those of every slice."""
    orientation = floats(shared.PlaneOrientationSequence[0].ImageOrientationPatient)
    spacing = floats(shared.PixelMeasuresSequence[0].PixelSpacing)
    for k, header in enumerate(sources.headers, 1):
        if np.abs(orientation - floats(header.ImageOrientationPatient)).max() > ORIENTATION_TOLERANCE:
            raise Misplaced(f"ImageOrientationPatient of the segmentation differs from slice {k}")
        if np.abs(spacing - floats(header.PixelSpacing)).max() > SPACING_TOLERANCE_MM:
            raise Misplaced(f"PixelSpacing of the segmentation differs from slice {k}")


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


def floats(values: object) -> NDArray[np.float64]:
    """Decimal strings as numbers."""
    return np.array([float(v) for v in values], np.float64)  # type: ignore[attr-defined]
