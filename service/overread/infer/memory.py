"""A MONAI reader for a volume that is already in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

NAME = "mem:volume"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class MemoryReader(ImageReader):  # type: ignore[misc]
    """Answers to names that begin with ``mem:``; everything a bundle's LoadImage asks for still applies."""

    def __init__(self) -> None:
        super().__init__()
        self._voxels: NDArray[Any] | None = None
        self._affine: NDArray[np.float64] = np.eye(4)

    def hold(self, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
        """``voxels`` (slices, rows, columns); ``affine`` (slice, row, column) index → mm, LPS."""
        self._voxels = voxels
        self._affine = LPS_TO_RAS @ affine[:, [2, 1, 0, 3]]

    def release(self) -> None:
        """Let go of the volume."""
        self._voxels = None

    def verify_suffix(self, filename: Any) -> bool:
        """Whether a name is one of ours."""
        names = filename if isinstance(filename, list | tuple) else [filename]
        return all(str(name).startswith("mem:") for name in names)

    def read(self, data: Any, **_: Any) -> Any:
        """Nothing to open."""
        return data

    def get_data(self, _img: Any) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The array as MONAI wants it, (x, y, z) float32, and its affine in RAS."""
        if self._voxels is None:
            raise ValueError("no volume is held")
        array = self._voxels.transpose(2, 1, 0).astype(np.float32)
        meta = {
            MetaKeys.AFFINE: self._affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: self._affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(array.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
        return array, meta
