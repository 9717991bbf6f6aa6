"""What travels between a worker process and its keeper; arrays travel by shared memory, never through the pipe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.infer.parcel import Parcel


@dataclass(frozen=True)
class Start:
    """What a worker process is for. ``device`` is auto, cpu or cuda:N; ``threads`` 0 leaves torch's own choice."""

    card: Card
    device: str
    threads: int


@dataclass(frozen=True)
class Task:
    """One input to read: ``voxels`` names a shared memory block for each volume, of (slices, rows, columns) and
    ``dtypes``; ``affine`` maps (slice, row, column) indices to mm, LPS. The answer's arrays go into blocks whose names
    begin with ``answer``. ``paths``: the source files of each volume."""

    voxels: tuple[str, ...]
    dtypes: tuple[str, ...]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    answer: str
    paths: tuple[tuple[str, ...], ...]


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
    """The model has read; the arrays of its answer are in shared memory."""

    parcel: Parcel
    seconds: float


@dataclass(frozen=True)
class Failed:
    """The reading failed in the worker. ``kind`` is memory, card, unfit or model; ``reason`` has no patient data."""

    kind: str
    reason: str
