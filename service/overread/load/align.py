"""Several series of one study on one grid: resampled onto the first, and only if they lie in the same space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from overread.domain.errors import Unfit
from overread.domain.volume import Volume

SAME_GRID_MM = 1e-3
LEAST_OVERLAP = 0.5
AIR_HU = -1024.0


def align(volumes: Sequence[Volume], names: Sequence[str] = ()) -> tuple[Volume, ...]:
    """All ``volumes`` on the grid of the first; ``names`` are those of the model's inputs.

    Linear interpolation, float32; one that lies on that grid already is given back as it is. Raises Unfit when they do
    not share a frame of reference, or hardly overlap.
    """
    named = [*names, *(f"input {k + 1}" for k in range(len(names), len(volumes)))]
    first = volumes[0]
    for other, name in zip(volumes[1:], named[1:], strict=True):
        if not _same_space(first, other):
            raise Unfit(
                f"{named[0]} and {name} do not share a frame of reference (FrameOfReferenceUID), so nothing says how "
                "one lies on the other"
            )
    return first, *(_onto(first, v, f"{named[0]} and {name}") for v, name in zip(volumes[1:], named[1:], strict=True))


def resample(
    voxels: NDArray[Any], mapping: NDArray[np.float64], shape: tuple[int, ...], *, order: int = 1, fill: float = 0.0
) -> NDArray[Any]:
    """``voxels`` on another grid of ``shape``; ``mapping`` (4, 4) leads from its indices to those of ``voxels``.

    ``order`` 1 is linear, float32; 0 takes the nearest and keeps the type: for masks.
    """
    source = voxels.astype(np.float32) if order else voxels
    matrix, offset = mapping[:3, :3], mapping[:3, 3]
    found: NDArray[Any] = affine_transform(
        source, matrix, offset, output_shape=shape, order=order, mode="constant", cval=fill
    )
    return found


def _same_space(first: Volume, other: Volume) -> bool:
    uid = first.frame_of_reference_uid
    return bool(uid) and uid == other.frame_of_reference_uid


def _onto(first: Volume, other: Volume, which: str) -> Volume:
    shape = first.voxels.shape
    if other.voxels.shape == shape and np.abs(first.affine - other.affine).max() < SAME_GRID_MM:
        return other
    mapping = np.linalg.inv(other.affine) @ first.affine
    overlap = _overlap(mapping, shape, other.voxels.shape)
    if overlap < LEAST_OVERLAP:
        raise Unfit(f"{which} hardly overlap: {overlap:.0%} of the first lies within the second")
    fill = AIR_HU if other.unit == "HU" else float(min(other.voxels.min(), 0))
    voxels = resample(other.voxels, mapping, shape, fill=fill)
    return Volume(voxels, first.stack, other.paths, other.unit)


def _overlap(mapping: NDArray[np.float64], shape: tuple[int, ...], within: tuple[int, ...]) -> float:
    """Share of a grid's points that lie between the centres of another's outermost voxels, on a thinned-out grid."""
    axes = [np.linspace(0, n - 1, min(n, 24)) for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) @ mapping[:3, :3].T + mapping[:3, 3]
    limits = np.array(within) - 1
    return float(((points > -0.5) & (points < limits + 0.5)).all(1).mean())
