"""A series as a volume in patient space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.domain.geometry import Affine, Stack


@dataclass(frozen=True)
class Volume:
    """Voxels of one series on their source slices.

    ``voxels`` (slices, rows, columns) float32 or int16, in the modality's unit (HU for CT); slices in the order of
    ``stack.instances``. ``paths`` are the absolute paths of the source files in the same order.
    """

    voxels: NDArray[np.float32] | NDArray[np.int16]
    stack: Stack
    paths: tuple[str, ...]

    @property
    def affine(self) -> Affine:
        """(4, 4) float64: (slice, row, column) index → mm, LPS."""
        return self.stack.affine

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0
