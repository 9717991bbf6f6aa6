"""What travels between a worker process and its keeper; arrays travel in blocks of shared memory, see ``blocks``.

The keeper trusts nothing that comes from a model's process. What that says is JSON in frames (``frames``), never a
pickle, and is taken for a message only when it has exactly the fields of one, each of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.infer.cage import Walls
from overread.infer.parcel import Parcel

TASK, STOP = b"T", b"S"  # all that the keeper ever sends: a task comes with descriptors, see ``Task``
FAILURES = ("memory", "device", "card", "unfit", "stopped", "model")


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
    """One input to read: volumes of (slices, rows, columns) and ``dtypes``; ``affine`` maps (slice, row, column)
    indices to mm, LPS. ``paths``: the source files of each volume. ``share`` divides the batches of windows.

    The descriptors that come with it: a block with its pickle, a block for the answer's arrays (``parcel.pack``), and
    one with the voxels of each volume.
    """

    dtypes: tuple[str, ...]
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    paths: tuple[tuple[str, ...], ...]
    share: int = 1


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
    """The model has read; the arrays of its answer are in the block that came with the task. ``device_peak_bytes``: the
    most that it held of its device's memory."""

    parcel: Parcel
    seconds: float
    device_peak_bytes: int = 0


@dataclass(frozen=True)
class Failed:
    """The reading failed in the worker. ``kind`` is one of FAILURES; ``reason`` says it in a line, ``place`` where in
    the model's code, innermost last. Both may name the patient."""

    kind: str
    reason: str
    place: str = ""


Message = Ready | Progressed | Done | Failed
