"""From what a model saw to findings: components, noise, numbering and measurements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from overread.domain.card import Card, Label, require_known
from overread.domain.errors import CardError
from overread.domain.findings import Findings, Segment
from overread.domain.geometry import Stack
from overread.domain.reading import Reading
from overread.domain.volume import Volume
from overread.measure import measurers
from overread.measure.boxes import detections, judgements
from overread.measure.diameter import axes_mm

Box = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]

MOST_SEGMENTS = 255
NEIGHBOURS = np.ones((3, 3, 3), bool)  # faces, edges and corners: 26-connectivity


def find(reading: Reading, volume: Volume, card: Card) -> Findings:
    """Make findings of what a model saw on the grid of ``volume``.

    Each label of the card, in the card's order, is one segment, or one for each of its largest connected components
    when it says ``instances``. Segments are numbered 1 … n without gaps, in the masks too; those that overlap lie in
    different masks. Raises CardError when an array is not on the volume's grid, when there are values that the card
    does not know, or when the card gives more than 255 segments.
    """
    _require_grid(reading, volume, card)
    boxes = [] if reading.label_map is None else ndimage.find_objects(reading.label_map)
    require_known(card, _values(reading, boxes))
    masks = [np.zeros(volume.voxels.shape, np.uint8)]
    segments: list[Segment] = []
    for label, where, part, title in _titled(reading, boxes, volume, card):
        if len(segments) == MOST_SEGMENTS:
            raise CardError(f"{card.name} gives more than {MOST_SEGMENTS} segments; lower `most` in its card.toml")
        segment = Segment(len(segments) + 1, label, title)
        _paint(masks, where, part, segment.value)
        segments.append(_measured(segment, crop(volume, where), part))
    return Findings(
        masks[0],
        tuple(segments),
        overlays=tuple(masks[1:]),
        detections=detections(reading, card),
        judgements=judgements(reading, card),
        image=reading.image,
        probabilities=_probabilities(reading, masks, segments),
        saliency=reading.saliency,
    )


def _probabilities(
    reading: Reading, masks: Sequence[NDArray[np.uint8]], segments: Sequence[Segment]
) -> dict[int, NDArray[np.float16]]:
    """By segment's value, for a model that gives them; of a label in several parts, each part has its own."""
    found: dict[int, NDArray[np.float16]] = {}
    for segment in segments:
        given = reading.probabilities.get(segment.label.value)
        if given is not None and segment.label.instances:
            mask = next(m for m in masks if (m == segment.value).any())
            given = np.where(mask == segment.value, given, np.float16(0))
        if given is not None:
            found[segment.value] = given
    return found


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


def _require_grid(reading: Reading, volume: Volume, card: Card) -> None:
    given = (reading.label_map, *reading.masks.values(), reading.image, *reading.probabilities.values())
    given += tuple(reading.saliency.values())
    arrays = [a for a in given if a is not None]
    for array in arrays:
        if array.shape != volume.voxels.shape:
            raise CardError(f"the answer of {card.name} is {array.shape}, its volume {volume.voxels.shape}")


def _values(reading: Reading, boxes: Sequence[Box | None]) -> set[int]:
    """The values of everything that the model says it has seen; ``boxes`` are those of its label map."""
    seen = {n for n, box in enumerate(boxes, 1) if box is not None}
    seen |= {value for value, mask in reading.masks.items() if mask.any()}
    return seen | {box.label for box in reading.boxes} | {c.label for c in reading.classes if c.chosen}


def _titled(
    reading: Reading, boxes: Sequence[Box | None], volume: Volume, card: Card
) -> Iterator[tuple[Label, Box, Mask, str]]:
    """Each segment: its label, its box in the volume, its mask in the box, its title."""
    for label in card.labels:
        whole: tuple[Box, Mask] | None = None
        if label.value in reading.masks:
            whole = _cut(reading.masks[label.value])
        elif label.value <= len(boxes) and (box := boxes[label.value - 1]) is not None:
            whole = box, reading.label_map[box] == label.value  # type: ignore[index]
        if whole is None:
            continue
        for number, (where, part) in enumerate(_parts(*whole, label, volume.stack.spacing_mm[1:]), 1):
            yield label, where, part, f"{label.name} {number}" if label.instances else label.name


def _cut(mask: Mask) -> tuple[Box, Mask] | None:
    found = ndimage.find_objects(mask.view(np.uint8))
    return (found[0], mask[found[0]]) if found else None


def _paint(masks: list[NDArray[np.uint8]], where: Box, part: Mask, value: int) -> None:
    """Into the first of ``masks`` where nothing is in the way, or a new one."""
    for mask in masks:
        if not mask[where][part].any():
            mask[where][part] = value
            return
    masks.append(np.zeros_like(masks[0]))
    masks[-1][where][part] = value


def _parts(box: Box, whole: Mask, label: Label, pixel_mm: tuple[float, float]) -> Iterator[tuple[Box, Mask]]:
    """The segments of one label: (box in the volume, mask in the box)."""
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
