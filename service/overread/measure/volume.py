"""How much space a segment takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Label
from overread.domain.codes import MILLILITER, VOLUME
from overread.domain.findings import Measurement
from overread.domain.volume import Volume


def measure(volume: Volume, mask: NDArray[np.bool_], label: Label) -> Sequence[Measurement]:  # noqa: ARG001
    """Volume in ml: the number of voxels of ``mask`` (slices, rows, columns) times the volume of one voxel."""
    return (Measurement(VOLUME, int(np.count_nonzero(mask)) * volume.voxel_ml, MILLILITER),)
