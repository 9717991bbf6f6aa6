"""The gate for reports: outlines lie on their segments, numbers and references are those of the findings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import Misplaced
from overread.domain.findings import Detection, Judgement, Segment
from overread.encode import groups, tree
from overread.encode.boxes import percent, rectangle, whole_image
from overread.encode.boxes import tracking_uid as box_uid
from overread.encode.identity import tracking_uid
from overread.encode.report_tree import BOTH, CATALOG, DATA, VIEWER, Draft, negative
from overread.encode.reread import Reread
from overread.encode.tree import Node

VALUE_TOLERANCE = 1e-8  # relative: a decimal string has 16 characters
CheckGroup = Callable[[Node], None]


def check(found: Reread, draft: Draft) -> None:
    """Raise Misplaced, saying what differs, unless the report says of its reading what the findings say."""
    root = tree.content(found.content, 0, len(found.content))
    nodes = [node for item in root for node in item.walk()]
    _known_references(nodes, set(tree.references(found.evidence)), draft)
    _whole_catalog(root, draft)
    expected = _expected(draft)
    there = [n for n in nodes if n.kind == "CONTAINER" and n.name == groups.GROUP.value]
    if len(there) != len(expected):
        raise Misplaced(f"the report has {len(there)} measurement groups for {_counted(draft)}")
    for group in there:
        tracked = [c.value for c in group.of("UIDREF", groups.TRACKING_UID.value)]
        one = expected.pop(tracked[0], None) if tracked else None
        if one is None:
            raise Misplaced("a measurement group tracks none of the findings, or one twice")
        one(group)


def _counted(draft: Draft) -> str:
    found = draft.read.findings
    boxes = f" and {len(found.detections)} boxes" if found.detections else ""
    return f"{len(found.segments)} segments{boxes}"


def _expected(draft: Draft) -> dict[str, CheckGroup]:
    """Tracking UID → the check of each group that must be there."""
    read, found = draft.read, draft.read.findings
    made: dict[str, CheckGroup] = {}
    for segment in found.segments:
        made[tracking_uid(read, segment.value)] = lambda g, s=segment: _check_segment(g, s, draft)  # type: ignore[misc]
    for n, box in enumerate(found.detections, 1):
        made[box_uid(read, n)] = lambda g, b=box: _check_box(g, b, draft)  # type: ignore[misc]
    for n, judged in enumerate(found.judgements, 1):
        if draft.form == DATA or (draft.form == VIEWER and judged.chosen):
            made[groups.judgement_uid(read, n)] = lambda g, j=judged: _check_class(g, j, draft)  # type: ignore[misc]
    if draft.form == VIEWER and negative(found):
        made[groups.nothing_uid(read)] = lambda g: _check_frame(g, draft)
    return made


def _known_references(nodes: list[Node], evidence: set[str], draft: Draft) -> None:
    """The content names no instance but the source slices and results; the evidence names exactly those."""
    known = {*draft.sources.objects, *draft.evidence}
    if not {n.named.sop_instance_uid for n in nodes if n.named} <= known:
        raise Misplaced("the report refers to an instance that is neither a source slice nor its segmentation")
    if evidence != known:
        raise Misplaced("the report's evidence is not exactly its source slices and the results that it refers to")


def _whole_catalog(root: tuple[Node, ...], draft: Draft) -> None:
    listed = [c.named for node in root if node.name == CATALOG.value for c in node.children]
    wanted = [(r.sop_class_uid, r.sop_instance_uid) for r in draft.catalog]
    if [n and (n.sop_class_uid, n.sop_instance_uid) for n in listed] != wanted:
        raise Misplaced("the report does not list exactly what was made of the reading")


def _check_segment(group: Node, segment: Segment, draft: Draft) -> None:
    place = draft.places.get(segment.value)
    if draft.form != DATA or place is None:
        _check_outline(group, segment, draft)
    elif group.of("SCOORD"):
        raise Misplaced(f"segment {segment.value} of the report has an outline beside its segment")
    _check_numbers(group, segment)
    named = [c.named for c in group.of("IMAGE", groups.REFERENCED_SEGMENT.value) if c.named]
    wanted = [(place.result.sop_instance_uid, place.number)] if place and draft.form in (BOTH, DATA) else []
    if [(n.sop_instance_uid, n.segment) for n in named] != wanted:
        raise Misplaced(f"the report ties segment {segment.value} to another segment of the segmentation")


def _line(group: Node, draft: Draft, what: str) -> tuple[int, NDArray[np.float64]]:
    """The only outline of a group: its slice, and its points (n, 2)."""
    lines = group.of("SCOORD")
    if len(lines) != 1 or lines[0].graphic != "POLYLINE":
        raise Misplaced(f"{what} of the report has no outline, or several")
    (named,) = [c.named for c in lines[0].children if c.named]
    wanted = [(r.sop_instance_uid, r.frame) for r in draft.sources.references]
    return wanted.index((named.sop_instance_uid, named.frame)), lines[0].points


def _check_outline(group: Node, segment: Segment, draft: Draft) -> None:
    """Each point of the outline is a corner of a pixel of the segment, on the slice that the outline names."""
    k, points = _line(group, draft, f"segment {segment.value}")
    header = draft.sources.headers[k]
    if points.min() < 0 or points[:, 0].max() > int(header.Columns) or points[:, 1].max() > int(header.Rows):
        raise Misplaced(f"the outline of segment {segment.value} leaves its image")
    plane = draft.read.findings.layer_of(segment.value)[k] == segment.value
    if not (points[0] == points[-1]).all() or not _touches(points, plane).all():
        raise Misplaced(f"the outline of segment {segment.value} does not lie on the segment on slice {k + 1}")


def _check_box(group: Node, box: Detection, draft: Draft) -> None:
    """The rectangle is that of the detection, on its middle slice; its score is the detection's."""
    numbers = [c.number[0] for c in group.of("NUM") if c.number]
    if numbers[:1] != [percent(box.score)] or len(numbers) != 1 + len(box.measurements):
        raise Misplaced(f"{box.title} of the report has another score than was found")
    wanted = rectangle(box, draft.read.volume.stack.shape)
    k, points = _line(group, draft, box.title)
    if k != wanted[0] or points.shape != wanted[1].shape or not np.allclose(points, wanted[1], atol=1e-3):
        raise Misplaced(f"{box.title} of the report does not lie where it was found")


def _check_class(group: Node, judged: Judgement, draft: Draft) -> None:
    numbers = [c.number[0] for c in group.of("NUM") if c.number]
    if numbers != [percent(judged.probability)]:
        raise Misplaced(f"{judged.label.name} of the report has another probability than was found")
    if draft.form == VIEWER:
        _check_frame(group, draft)


def _check_frame(group: Node, draft: Draft) -> None:
    shape = draft.read.volume.stack.shape
    k, points = _line(group, draft, "a class")
    if k != shape[0] // 2 or not np.allclose(points, whole_image(shape)):
        raise Misplaced("the frame of the report does not lie around the middle slice")


def _touches(points: NDArray[np.float64], plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which ``points`` (n, 2), (column, row), are corners of a pixel of ``plane`` (rows, columns)."""
    padded = np.pad(plane, 1)
    column, row = np.rint(points).astype(int).T
    corners = padded[row, column] | padded[row + 1, column] | padded[row, column + 1] | padded[row + 1, column + 1]
    touching: NDArray[np.bool_] = corners & (np.abs(points - np.rint(points)).max(axis=1) < 1e-3)
    return touching


def _check_numbers(group: Node, segment: Segment) -> None:
    found = [_number(c) for c in group.of("NUM")]
    wanted = [
        ((m.name.value, m.derivation.value if m.derivation else "", m.unit.value), (m.value, m.value))
        for m in segment.measurements
    ]
    same = len(found) == len(wanted) and all(
        a == b and all(math.isclose(x, y, rel_tol=VALUE_TOLERANCE, abs_tol=1e-12) for x, y in zip(v, w, strict=True))
        for (a, v), (b, w) in zip(found, wanted, strict=True)
    )
    if not same:
        raise Misplaced(f"the numbers of segment {segment.value} in the report are not those that were measured")


def _number(item: Node) -> tuple[tuple[str, str, str], tuple[float, float]]:
    """((name, derivation, unit), values) of a NUM content item, codes by their value."""
    derived = [c.value for c in item.children if c.name == groups.DERIVATION.value]
    if item.number is None:
        raise ValueError("a number without a value")
    decimal, whole, unit = item.number
    return (item.name, derived[0] if derived else "", unit), (decimal, whole)
