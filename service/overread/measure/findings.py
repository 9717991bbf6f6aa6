"""From the network's label map to findings: components, noise, numbering and measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from overread.domain.card import Card, Label
from overread.domain.errors import CardError
from overread.domain.findings import Findings, Segment
from overread.domain.geometry import Stack
from overread.domain.volume import Volume
from overread.measure import measurers
from overread.measure.diameter import axes_mm

Box = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]

MOST_SEGMENTS = 255
NEIGHBOURS = np.ones((3, 3, 3), bool)  # faces, edges and corners: 26-connectivity


def find(label_map: NDArray[np.uint8], volume: Volume, card: Card) -> Findings:
    """Make findings of ``label_map`` (slices, rows, columns) uint8 on the grid of ``volume``.

    Each label of the card, in the card's order, is one segment, or one for each of its largest connected components
    when it says ``instances``. Values that the card does not name are background. Segments are numbered 1 … n without
    gaps, in ``Findings.mask`` too. Raises CardError when the map is not on the volume's grid or when the card gives
    more than 255 segments.
    """
    if label_map.shape != volume.voxels.shape:
        raise CardError(f"the label map of {card.name} is {label_map.shape}, its volume {volume.voxels.shape}")
    mask = np.zeros(label_map.shape, np.uint8)
    boxes = ndimage.find_objects(label_map)
    segments: list[Segment] = []
    for label in card.labels:
        box = boxes[label.value - 1] if 0 < label.value <= len(boxes) else None
        if box is None:
            continue
        for number, (where, part) in enumerate(_parts(label_map, box, label, volume.stack.spacing_mm[1:]), 1):
            if len(segments) == MOST_SEGMENTS:
                raise CardError(f"{card.name} gives more than {MOST_SEGMENTS} segments; lower `most` in its card.toml")
            title = f"{label.name} {number}" if label.instances else label.name
            segment = Segment(len(segments) + 1, label, title)
            mask[where][part] = segment.value
            segments.append(_measured(segment, crop(volume, where), part))
    return Findings(mask, tuple(segments))


def crop(volume: Volume, box: Box) -> Volume:
    """The part of ``volume`` in ``box``, in the same patient space; its grid is that of ``voxels``.

    The instances stay those of its slices, whole: rows and columns of ``stack.shape`` are theirs.
    """
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ np.array([*(s.start for s in box), 1.0]))[:3]
    stack = Stack(volume.stack.instances[box[0]], affine, volume.stack.spacing_mm)
    return Volume(volume.voxels[box], stack, volume.paths[box[0]])


def _measured(segment: Segment, part: Volume, mask: Mask) -> Segment:
    numbers = [m for measure in measurers() for m in measure(part, mask, segment.label)]
    return replace(segment, measurements=tuple(numbers))


def _parts(
    label_map: NDArray[np.uint8], box: Box, label: Label, pixel_mm: tuple[float, float]
) -> Iterator[tuple[Box, Mask]]:
    """The segments of one label: (box in the volume, mask in the box)."""
    whole: Mask = label_map[box] == label.value
    if not label.instances:
        yield box, whole
        return
    kept = 0
    for where, part in _components(whole):
        if kept == label.most:
            return
        if _long_enough(part, label.smallest_mm, pixel_mm):
            kept += 1
            yield _shift(where, box), part


def _components(mask: Mask) -> Iterator[tuple[Box, Mask]]:
    """Connected components from the largest; equal ones in the order of their first voxel."""
    numbered, count = ndimage.label(mask, NEIGHBOURS)
    sizes = np.bincount(numbered.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(numbered)
    for k in np.argsort(-sizes, kind="stable"):
        yield boxes[k], numbered[boxes[k]] == k + 1


def _long_enough(part: Mask, smallest_mm: float, pixel_mm: tuple[float, float]) -> bool:
    """Whether the long axis reaches ``smallest_mm``; the box's diagonal, cheaper, is never shorter than the axis."""
    diagonal = float(np.hypot(part.shape[1] * pixel_mm[0], part.shape[2] * pixel_mm[1]))
    return smallest_mm <= 0 or (diagonal >= smallest_mm and axes_mm(part, pixel_mm)[0] >= smallest_mm)


def _shift(inner: Box, outer: Box) -> Box:
    a, b, c = (slice(i.start + o.start, i.stop + o.start) for i, o in zip(inner, outer, strict=True))
    return a, b, c
