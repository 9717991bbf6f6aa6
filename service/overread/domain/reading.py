"""What a model saw, on the grid of its input and before anything is measured.

Every engine answers with a ``Reading``, whatever file the model came in. Labels are values of the card's labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Corner = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """One detection, axis-aligned on the input's grid.

    ``low`` and ``high`` are its corners as (slice, row, column) voxel indices, float, the centre of a voxel at its
    whole number: a box around voxel 3 alone reaches from 2.5 to 3.5. ``score`` is 0 … 1.
    """

    label: int
    score: float
    low: Corner
    high: Corner


@dataclass(frozen=True)
class Likelihood:
    """One class of the whole input: how probable, 0 … 1, and whether the model decides for it."""

    label: int
    probability: float
    chosen: bool = False


@dataclass(frozen=True)
class Reading:
    """What a model saw. A part that its task does not give is left out; a part that is there and empty says "nothing".

    All arrays are (slices, rows, columns) on the grid of the first input volume.

    ``label_map``: uint8 or uint16, 0 is background. ``masks``: label value → bool, which may overlap (multi-channel
    sigmoid); never together with ``label_map``. ``boxes``: detections, most certain first. ``classes``: of the whole
    input. ``image``: a derived volume, float32, in the unit that the card says. ``probabilities``: label value →
    float16, 0 … 1, where a card asks to keep them. ``saliency``: the same, of what a class was judged by. ``notes``:
    what the engine had to adapt, in words for the log.
    """

    label_map: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    boxes: tuple[Box, ...] = ()
    classes: tuple[Likelihood, ...] = ()
    image: NDArray[np.float32] | None = None
    probabilities: Mapping[int, NDArray[np.float16]] = field(default_factory=dict)
    saliency: Mapping[int, NDArray[np.float16]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
