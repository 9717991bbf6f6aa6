"""What travels between a worker process and its keeper; arrays travel by shared memory, never through the pipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Start:
    """What a worker process is for. ``device`` is auto, cpu or cuda:N; ``threads`` 0 leaves torch's own choice."""

    model: str
    folder: str
    weights: str
    weights_sha256: str
    device: str
    threads: int


@dataclass(frozen=True)
class Task:
    """One volume to read.

    ``voxels`` and ``mask`` name shared memory blocks of (slices, rows, columns), of ``dtype`` and uint8; ``affine``
    maps (slice, row, column) indices to mm, LPS.
    """

    voxels: str
    mask: str
    shape: tuple[int, int, int]
    dtype: str
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    device: str
    seconds: float


@dataclass(frozen=True)
class Progressed:
    """How far the reading is, 0 … 1."""

    fraction: float


@dataclass(frozen=True)
class Done:
    """The mask is in its shared memory."""

    seconds: float


@dataclass(frozen=True)
class Failed:
    """The reading failed inside the worker. ``kind`` is memory, card or model; ``reason`` has no patient data."""

    kind: str
    reason: str
