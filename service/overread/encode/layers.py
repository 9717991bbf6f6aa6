"""Segments that overlap go into different segmentations: viewers that paint one over the other lose voxels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.domain.findings import Findings, Segment
from overread.domain.result import Result


@dataclass(frozen=True)
class Layer:
    """Segments of which none overlaps another: one segmentation.

    ``mask`` (slices, rows, columns) uint8 holds the values of ``segments``, which the segmentation numbers 1 … n in
    this order; ``number`` is 1 for the first layer.
    """

    number: int
    mask: NDArray[np.uint8]
    segments: tuple[Segment, ...]

    @property
    def alternative(self) -> str:
        """What results of this layer have in common."""
        return f"seg/{self.number}"


def layers(findings: Findings) -> tuple[Layer, ...]:
    """The layers of ``findings`` that hold anything."""
    if not findings.overlays:
        return (Layer(1, findings.mask, findings.segments),) if findings.segments else ()
    found: list[Layer] = []
    for mask in findings.layers:
        held = np.flatnonzero(np.bincount(mask.ravel(), minlength=256)[1:]) + 1
        segments = tuple(s for s in findings.segments if s.value in held)
        if segments:
            found.append(Layer(len(found) + 1, mask, segments))
    return tuple(found)


@dataclass(frozen=True)
class Place:
    """Where a segment is told of: its segmentation, and its number there."""

    result: Result
    number: int


def places(findings: Findings, results: Sequence[Result], variant: str) -> dict[int, Place]:
    """For each segment's value, where it stands among ``results`` of ``variant``; those that stand nowhere are not."""
    by_layer = {r.alternative: r for r in results if r.kind == "seg" and r.variant == variant}
    return {
        segment.value: Place(by_layer[layer.alternative], number)
        for layer in layers(findings)
        if layer.alternative in by_layer
        for number, segment in enumerate(layer.segments, 1)
    }
