"""The slices that matter: where a reader should look first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from overread.domain.card import ANATOMICAL_STRUCTURE
from overread.domain.findings import Findings
from overread.encode.boxes import rectangle
from overread.encode.outline import Points, key_outlines
from overread.ports import Read

MOST = 6


def key_slices(read: Read, most: int = MOST) -> list[int]:
    """At most so many slices, each once: of what is abnormal first, then of anatomy, the largest first; of classes and
    of derived images the middle one. Empty when nothing was found."""
    found = read.findings
    told = list(dict.fromkeys(_slices(found, read.volume.stack.shape)))
    if not told and (any(judged.chosen for judged in found.judgements) or found.image is not None):
        told = [_looked_at(found)]
    return told[:most]


def _looked_at(found: Findings) -> int:
    """The slice that counted most for the first class that explains itself, else the middle one."""
    for seen in found.saliency.values():
        return int(seen.astype(np.float32).sum(axis=(1, 2)).argmax())
    return len(found.mask) // 2


def outlines_of(findings: Findings) -> dict[int, tuple[int, Points]]:
    """The key slice and the outline there of each segment, by its value."""
    made: dict[int, tuple[int, Points]] = {}
    for layer in findings.layers if findings.segments else ():
        made |= key_outlines(layer)
    return made


def _slices(found: Findings, shape: tuple[int, int, int]) -> Iterator[int]:
    outlines = outlines_of(found)
    areas = {value: _area(points) for value, (_, points) in outlines.items()}
    anatomy = {s.value: s.label.category.value == ANATOMICAL_STRUCTURE.value for s in found.segments}
    yield from (rectangle(box, shape)[0] for box in found.detections)
    for value in sorted(outlines, key=lambda v: (anatomy.get(v, True), -areas[v])):
        if value in anatomy:
            yield outlines[value][0]


def _area(points: Points) -> float:
    """Of a closed line (n, 2), in pixels."""
    x, y = points[:, 0], points[:, 1]
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2
