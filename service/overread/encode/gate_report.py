"""The gate for reports: outlines lie on their segments, numbers and references are those of the findings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from overread.domain.errors import Misplaced
from overread.domain.findings import Detection, Segment
from overread.encode.boxes import percent, rectangle
from overread.encode.boxes import tracking_uid as box_uid
from overread.encode.identity import tracking_uid
from overread.encode.layers import Place
from overread.encode.sources import Sources
from overread.ports import Read

VALUE_TOLERANCE = 1e-8  # relative: a decimal string has 16 characters

_GROUP, _TRACKING_UID, _REFERENCED_SEGMENT, _DERIVATION = "125007", "112040", "121191", "121401"


def check(report: Dataset, read: Read, sources: Sources, places: Mapping[int, Place]) -> None:
    """Raise Misplaced, saying what differs, unless ``report`` says of ``read`` what its findings say."""
    _known_references(report, sources, places)
    boxes = {box_uid(read, n): found for n, found in enumerate(read.findings.detections, 1)}
    segments = {tracking_uid(read, segment.value): segment for segment in read.findings.segments}
    groups = [item for item in _items(report) if item.ValueType == "CONTAINER" and _name(item) == _GROUP]
    if len(groups) != len(segments) + len(boxes):
        wanted = f"{len(segments)} segments" + (f" and {len(boxes)} boxes" if boxes else "")
        raise Misplaced(f"the report has {len(groups)} measurement groups for {wanted}")
    for group in groups:
        children = group.ContentSequence
        tracked = [str(c.UID) for c in children if c.ValueType == "UIDREF" and _name(c) == _TRACKING_UID]
        box = boxes.pop(tracked[0], None) if tracked else None
        if box is not None:
            _check_box(group, box, read, sources)
            continue
        segment = segments.pop(tracked[0], None) if tracked else None
        if segment is None:
            raise Misplaced("a measurement group tracks none of the segments, or one twice")
        _check_outline(group, segment, read, sources)
        _check_numbers(group, segment)
        _check_segment(group, segment, places)


def _known_references(report: Dataset, sources: Sources, places: Mapping[int, Place]) -> None:
    """The content names no instance but the source slices and segmentations; the evidence names exactly those."""
    known = {str(header.SOPInstanceUID) for header in sources.headers}
    known |= {place.result.sop_instance_uid for place in places.values()}
    named = [r for item in _items(report) for r in item.get("ReferencedSOPSequence", [])]
    if not {str(r.ReferencedSOPInstanceUID) for r in named} <= known:
        raise Misplaced("the report refers to an instance that is neither a source slice nor its segmentation")
    evidence = {
        str(instance.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    if evidence != known:
        raise Misplaced("the report's evidence is not exactly its source slices and its segmentation")


def _check_outline(group: Dataset, segment: Segment, read: Read, sources: Sources) -> None:
    """Each point of the outline is a corner of a pixel of the segment, on the slice that the outline names."""
    outlines = [c for c in group.ContentSequence if c.ValueType == "SCOORD"]
    if len(outlines) != 1 or outlines[0].GraphicType != "POLYLINE":
        raise Misplaced(f"segment {segment.value} of the report has no outline, or several")
    source = outlines[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    k = [str(header.SOPInstanceUID) for header in sources.headers].index(str(source))
    points = np.array(outlines[0].GraphicData, np.float64).reshape(-1, 2)
    rows, columns = int(sources.headers[k].Rows), int(sources.headers[k].Columns)
    if points.min() < 0 or points[:, 0].max() > columns or points[:, 1].max() > rows:
        raise Misplaced(f"the outline of segment {segment.value} leaves its image")
    if not (points[0] == points[-1]).all() or not _touches(points, _plane(read, segment, k)).all():
        raise Misplaced(f"the outline of segment {segment.value} does not lie on the segment on slice {k + 1}")


def _plane(read: Read, segment: Segment, k: int) -> NDArray[np.bool_]:
    """The segment on slice ``k``."""
    plane: NDArray[np.bool_] = read.findings.layer_of(segment.value)[k] == segment.value
    return plane


def _check_box(group: Dataset, box: Detection, read: Read, sources: Sources) -> None:
    """The rectangle is that of the detection, on its middle slice; its score is the detection's."""
    outlines = [c for c in group.ContentSequence if c.ValueType == "SCOORD"]
    numbers = [_number(c)[3] for c in group.ContentSequence if c.ValueType == "NUM"]
    k, wanted = rectangle(box, read.volume.stack.shape)
    if len(outlines) != 1 or numbers != [percent(box.score)]:
        raise Misplaced(f"{box.title} of the report has another score than was found, or no outline")
    source = str(outlines[0].ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    points = np.array(outlines[0].GraphicData, np.float64).reshape(-1, 2)
    if source != str(sources.headers[k].SOPInstanceUID) or not np.allclose(points, wanted, atol=1e-3):
        raise Misplaced(f"{box.title} of the report does not lie where it was found")


def _touches(points: NDArray[np.float64], plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which ``points`` (n, 2), (column, row), are corners of a pixel of ``plane`` (rows, columns)."""
    padded = np.pad(plane, 1)
    column, row = np.rint(points).astype(int).T
    corners = padded[row, column] | padded[row + 1, column] | padded[row, column + 1] | padded[row + 1, column + 1]
    touching: NDArray[np.bool_] = corners & (np.abs(points - np.rint(points)).max(axis=1) < 1e-3)
    return touching


def _check_numbers(group: Dataset, segment: Segment) -> None:
    found = [_number(c) for c in group.ContentSequence if c.ValueType == "NUM"]
    wanted = [
        (m.name.value, m.derivation.value if m.derivation else "", m.unit.value, m.value) for m in segment.measurements
    ]
    same = len(found) == len(wanted) and all(
        a[:3] == b[:3] and math.isclose(a[3], b[3], rel_tol=VALUE_TOLERANCE, abs_tol=1e-12)
        for a, b in zip(found, wanted, strict=True)
    )
    if not same:
        raise Misplaced(f"the numbers of segment {segment.value} in the report are not those that were measured")


def _number(item: Dataset) -> tuple[str, str, str, float]:
    """(name, derivation, unit, value) of a NUM content item, codes by their value."""
    derived = [c for c in item.get("ContentSequence", []) if _name(c) == _DERIVATION]
    derivation = str(derived[0].ConceptCodeSequence[0].CodeValue) if derived else ""
    measured = item.MeasuredValueSequence[0]
    unit = str(measured.MeasurementUnitsCodeSequence[0].CodeValue)
    return _name(item), derivation, unit, float(measured.NumericValue)


def _check_segment(group: Dataset, segment: Segment, places: Mapping[int, Place]) -> None:
    named = [c.ReferencedSOPSequence[0] for c in group.ContentSequence if _name(c) == _REFERENCED_SEGMENT]
    found = [(str(r.ReferencedSOPInstanceUID), int(r.ReferencedSegmentNumber)) for r in named]
    place = places.get(segment.value)
    if found != ([(place.result.sop_instance_uid, place.number)] if place else []):
        raise Misplaced(f"the report ties segment {segment.value} to another segment of the segmentation")


def _items(item: Dataset) -> Iterator[Dataset]:
    """All content items below ``item``, depth first."""
    for child in item.get("ContentSequence", []):
        yield child
        yield from _items(child)


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence", [])
    return str(names[0].CodeValue) if names else ""
