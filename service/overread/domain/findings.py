"""What a model saw, before DICOM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Label
from overread.domain.codes import Code
from overread.domain.reading import Corner


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
class Detection:
    """One box with a score; ``low`` and ``high`` as in ``domain.reading.Box``, ``title`` the label's name, numbered."""

    label: Label
    title: str
    score: float
    low: Corner
    high: Corner
    measurements: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """One class of the whole input: how probable, 0 … 1, and whether the model decides for it."""

    label: Label
    probability: float
    chosen: bool


@dataclass(frozen=True)
class Findings:
    """What a model found on the source slices.

    ``mask`` (slices, rows, columns) uint8, 0 background, otherwise a segment's ``value``; slice order and geometry are
    those of the volume it was made from. ``overlays``: further such masks, for segments that overlap those of ``mask``;
    all voxels of one segment are in one of them. ``segments`` is empty when nothing was found. ``detections`` are the
    most certain first, ``judgements`` in the card's order; ``image`` is derived, float32, on the same grid, as are the
    ``probabilities`` (0 … 1, by segment's value) of a model that gives them, and the ``saliency`` (0 … 1, by label's
    value) of a classifier that explains itself.
    """

    mask: NDArray[np.uint8]
    segments: tuple[Segment, ...]
    overlays: tuple[NDArray[np.uint8], ...] = ()
    detections: tuple[Detection, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    image: NDArray[np.float32] | None = None
    probabilities: Mapping[int, NDArray[np.float16]] = field(default_factory=dict)
    saliency: Mapping[int, NDArray[np.float16]] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[NDArray[np.uint8], ...]:
        """``mask`` and ``overlays``: in each of them no segment overlaps another."""
        return (self.mask, *self.overlays)

    def layer_of(self, value: int) -> NDArray[np.uint8]:
        """The mask that holds segment ``value``; raises KeyError when none does."""
        found = next((m for m in self.layers if not self.overlays or (m == value).any()), None)
        if found is None:
            raise KeyError(value)
        return found
