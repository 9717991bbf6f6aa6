"""A prediction put on the voxels it was made from.

MONAI's transforms keep the affine of what they change, so wherever a bundle leaves its prediction (inverted, or still
oriented, resampled, cropped or padded as the network saw it), its voxels are found in the patient's space, mm, RAS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from overread.domain.errors import CardError
from overread.infer.engines import Grid
from overread.infer.memory import ras

CLOSE = 0.02  # voxels
Affine = NDArray[np.float64]


def on_grid(found: torch.Tensor, affine: Affine | None, shape: tuple[int, ...], grid: Affine, *, nearest: bool) -> Any:
    """``found`` (channels, x, y, z) on the grid of ``shape`` (x, y, z) and ``grid``.

    What lies there already is returned as it is; anything else is sampled, the nearest voxel for labels, linearly
    otherwise, with 0 outside. Raises CardError when ``affine`` is unknown and the shapes differ.
    """
    here = tuple(found.shape[1:])
    if affine is None:
        if here == shape:
            return found
        raise CardError(
            f"the bundle's output has shape {here}, its source {shape}, and nothing tells where it lies; its "
            "postprocessing must invert the spatial transforms (Invertd)"
        )
    step = np.linalg.inv(affine) @ grid
    if here == shape and _apart(step, shape) < CLOSE:
        return found
    exact = _reordered(found, step, shape)
    if exact is not None:
        return exact
    order = 0 if nearest else 1
    planes = [_sample(channel, step, shape, order) for channel in found.cpu().numpy()]
    return torch.from_numpy(np.stack(planes))


def on_source(labels: NDArray[Any], affine: Affine, source: Grid) -> NDArray[Any]:
    """(slices, rows, columns) of ``source``: labels (x, y, z) that lie by ``affine``, mm, RAS."""
    shape = source.voxels.shape[::-1]
    placed = on_grid(torch.from_numpy(labels)[None], affine, shape, ras(source.affine), nearest=True)[0]
    kind = np.uint8 if labels.dtype == np.uint8 else np.uint16
    return np.ascontiguousarray(placed.numpy().transpose(2, 1, 0)).astype(kind, copy=False)


def apart(here: Affine, there: Affine, shape: tuple[int, ...]) -> float:
    """How far, in voxels, the corners of one grid of ``shape`` lie from those of another."""
    return _apart(np.linalg.inv(here) @ there, shape)


def _apart(step: Affine, shape: tuple[int, ...]) -> float:
    """How far, in voxels, the corners of a grid are from themselves after ``step``."""
    corners = np.array([[*c, 1.0] for c in np.ndindex(2, 2, 2)]) * [*(np.array(shape) - 1.0), 1.0]
    return float(np.abs(corners @ step.T - corners).max())


def _reordered(found: torch.Tensor, step: Affine, shape: tuple[int, ...]) -> torch.Tensor | None:
    """The prediction with its axes exchanged and flipped, when that alone puts every voxel on its source."""
    axes = np.abs(step[:3, :3]).argmax(axis=0)  # which axis of the prediction each source axis runs along
    if sorted(axes.tolist()) != [0, 1, 2]:
        return None
    signs = [float(np.sign(step[axes[k], k])) for k in range(3)]
    turned = found.permute(0, *(int(a) + 1 for a in axes))
    turned = turned.flip([k + 1 for k in range(3) if signs[k] < 0])
    if tuple(turned.shape[1:]) != shape:
        return None
    whole = np.eye(4)
    whole[:3, :3] = 0
    for k in range(3):
        whole[axes[k], k] = signs[k]
        whole[axes[k], 3] = 0.0 if signs[k] > 0 else shape[k] - 1.0
    away = _apart(np.linalg.inv(whole) @ step, shape)
    return turned if away < CLOSE else None


def _sample(channel: NDArray[Any], step: Affine, shape: tuple[int, ...], order: int) -> NDArray[Any]:
    return np.asarray(
        ndimage.affine_transform(channel, step[:3, :3], step[:3, 3], shape, order=order, mode="grid-constant", cval=0)
    )
