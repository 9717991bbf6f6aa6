"""What a model saw, before DICOM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Label
from overread.domain.codes import Code


@dataclass(frozen=True)
class Measurement:
    """One number: what was measured, in which unit, and how it was derived (mean, maximum …) when it was."""

    name: Code
    value: float
    unit: Code
    derivation: Code | None = None


@dataclass(frozen=True)
class Segment:
    """One segmented thing. ``value`` is its number in the mask; ``label`` what the card says it is; ``title`` its name,
    numbered where a label has several instances."""

    value: int
    label: Label
    title: str
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Findings:
    """A mask on the source slices and its segments.

    ``mask`` (slices, rows, columns) uint8, 0 background, otherwise a segment's ``value``; slice order and geometry are
    those of the volume it was made from. ``segments`` is empty when nothing was found.
    """

    mask: NDArray[np.uint8]
    segments: tuple[Segment, ...]
