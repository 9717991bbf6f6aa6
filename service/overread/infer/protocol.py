"""What travels between a worker process and its keeper; arrays travel by shared memory, never through the pipe."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.infer.cage import Walls
from overread.infer.parcel import Parcel


@dataclass(frozen=True)
class Start:
    """What a worker process is for. ``device`` is auto, cpu or cuda:N. ``threads`` 0 leaves torch's own choice.
    ``confine`` as in ``cage.Cage``."""

    card: Card
    device: str
    threads: int
    confine: str = "available"


@dataclass(frozen=True)
class Task:
    """One input to read: ``voxels`` names a shared memory block for each volume, of (slices, rows, columns) and
    ``dtypes``; ``affine`` maps (slice, row, column) indices to mm, LPS. The answer's arrays go into blocks whose names
    begin with ``answer``. ``paths``: the source files of each volume. ``share`` divides the batches of windows."""

    voxels: tuple[str, ...]
    dtypes: tuple[str, ...]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    answer: str
    paths: tuple[tuple[str, ...], ...]
    share: int = 1


@dataclass(frozen=True)
class Stop:
    """Nobody wants the answer any more; heard between two batches of windows."""


@dataclass(frozen=True)
class Ready:
    """The model is loaded. ``device_bytes`` is what its device has in all, 0 for the CPU; ``gpus`` how many there are
    that the model can use; ``walls`` those around it."""

    device: str
    seconds: float
    device_bytes: int = 0
    gpus: int = 0
    walls: Walls = field(default_factory=Walls)


@dataclass(frozen=True)
class Progressed:
    """How far the reading is, 0 … 1."""

    fraction: float


@dataclass(frozen=True)
class Done:
    """The model has read; the arrays of its answer are in shared memory. ``device_peak_bytes``: the most that it held
    of its device's memory."""

    parcel: Parcel
    seconds: float
    device_peak_bytes: int = 0


@dataclass(frozen=True)
class Failed:
    """The reading failed in the worker. ``kind`` is memory, device, card, unfit, stopped or model; ``reason`` has no
    patient data."""

    kind: str
    reason: str
