"""Networks that read pictures: a slice as a picture of its own, and what they say of each put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from overread.domain.reading import Reading
from overread.infer.engines import Grid
from overread.infer.memory import LPS_TO_RAS
from overread.infer.outcome import Outcome


def plane(volume: Grid, k: int) -> Grid:
    """Slice ``k`` on the grid that ``MemoryReader.hold_plane`` gives it."""
    spacing = np.linalg.norm(volume.affine[:3, [2, 1]], axis=0)
    affine = (LPS_TO_RAS @ np.diag([*spacing, 1.0, 1.0]))[:, [2, 1, 0, 3]]
    return Grid(volume.voxels[k : k + 1], affine)


def thick(outcome: Outcome) -> Outcome:
    """A picture's outcome as that of a volume one slice thick."""
    return replace(outcome, prediction=_deeper(outcome.prediction), image=_deeper(outcome.image))


def stacked(readings: Sequence[Reading]) -> Reading:
    """The readings of all slices as one of the volume; a single slice may also have boxes and classes."""
    first = readings[0]
    if len(readings) == 1:
        return first
    label_map = image = None
    if first.label_map is not None:
        label_map = np.concatenate([r.label_map for r in readings if r.label_map is not None])
    if first.image is not None:
        image = np.concatenate([r.image for r in readings if r.image is not None])
    masks = {value: np.concatenate([r.masks[value] for r in readings]) for value in first.masks}
    return Reading(label_map=label_map, masks=masks, image=image)


def _deeper(value: Any) -> Any:
    """(channels, x, y) as (channels, x, y, 1), with an affine of three axes; anything else as it is."""
    if not isinstance(value, torch.Tensor) or value.ndim != 3:
        return value
    plain = value.as_tensor() if isinstance(value, MetaTensor) else value
    affine = torch.eye(4, dtype=torch.float64)
    if isinstance(value, MetaTensor):
        given = value.affine.to(torch.float64).cpu()
        n = given.shape[0] - 1
        affine[:2, :2], affine[:2, 3] = given[:2, :2], given[:2, n]
    return MetaTensor(plain[..., None], affine=affine)
