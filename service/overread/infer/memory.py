"""A MONAI reader for volumes that are already in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys
from numpy.typing import NDArray

from overread.infer.engines import Grid

PREFIX = "mem:"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def name(number: int) -> str:
    """The file name under which volume ``number`` is read."""
    return f"{PREFIX}{number}"


def ras(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(slice, row, column) index → mm, LPS as (x, y, z) index → mm, RAS, with x along a row."""
    return np.asarray(LPS_TO_RAS @ affine[:, [2, 1, 0, 3]], np.float64)


class MemoryReader(ImageReader):  # type: ignore[misc]
    """Answers to names that begin with ``mem:``; everything a bundle's LoadImage asks for still applies."""

    def __init__(self) -> None:
        super().__init__()
        self._arrays: list[NDArray[Any]] = []
        self._affine: NDArray[np.float64] = np.eye(4)
        self._channels_last = False

    def hold(self, volumes: Sequence[Grid]) -> None:
        """Volumes on one grid, to be read as (x, y, z)."""
        self._arrays = [grid.voxels.transpose(2, 1, 0) for grid in volumes]
        self._affine, self._channels_last = ras(volumes[0].affine), False

    def hold_plane(self, volumes: Sequence[Grid], k: int, *, colours: int = 1) -> None:
        """Slice ``k`` of each volume, to be read as a picture (x, y) with its own spacing and no place in the patient,
        as picture files come. With ``colours`` each grey value stands for all of them: (x, y, colours)."""
        planes = [grid.voxels[k].T for grid in volumes]
        self._channels_last = colours > 1
        self._arrays = [np.repeat(p[..., None], colours, axis=-1) for p in planes] if colours > 1 else planes
        spacing = np.linalg.norm(volumes[0].affine[:3, [2, 1]], axis=0)
        self._affine = np.diag([*spacing, 1.0, 1.0])

    def release(self) -> None:
        """Let go of the volumes."""
        self._arrays = []

    def verify_suffix(self, filename: Any) -> bool:
        """Whether a name is one of ours."""
        names = filename if isinstance(filename, list | tuple) else [filename]
        return all(str(n).startswith(PREFIX) for n in names)

    def read(self, data: Any, **_: Any) -> Any:
        """Nothing to open; a name that is not ours is another reader's."""
        if not self.verify_suffix(data):
            raise ValueError("the bundle's preprocessing reads a file of its own; overread gives it the images only")
        return data

    def get_data(self, img: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """The arrays as MONAI wants them, (x, y, z) float32, and their affine in RAS; several are stacked as channels
        in front, as with files."""
        if not self._arrays:
            raise ValueError("no volume is held")
        names = img if isinstance(img, list | tuple) else [img]
        arrays = [self._arrays[int(str(n)[len(PREFIX) :])] for n in names]
        # A tensor keeps the order in which the voxels lie in memory; MONAI would turn an array over, voxel by voxel.
        array = torch.from_numpy((arrays[0] if len(arrays) == 1 else np.stack(arrays)).astype(np.float32, order="K"))
        spatial = arrays[0].shape[: arrays[0].ndim - self._channels_last]
        channel = -1 if self._channels_last else (float("nan") if len(arrays) == 1 else 0)
        meta = {
            MetaKeys.AFFINE: self._affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: self._affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(spatial),
            MetaKeys.ORIGINAL_CHANNEL_DIM: channel,
        }
        return array, meta
