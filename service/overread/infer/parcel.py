"""A reading packed for the way between two processes: its arrays in shared memory, the rest as it is.

The worker makes the blocks, named after the task, so that its keeper can clear them away even when the worker died
before it could say which there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import CardError
from overread.domain.reading import Reading


@dataclass(frozen=True)
class Packed:
    """Where one array lies: ``shape`` and ``dtype`` of the block."""

    block: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Parcel:
    """A reading without its arrays, and where those lie."""

    rest: Reading
    label_map: Packed | None
    masks: dict[int, Packed]
    image: Packed | None
    probabilities: dict[int, Packed]
    saliency: dict[int, Packed]


def require_placed(reading: Reading, shape: tuple[int, ...]) -> None:
    """Raises CardError when an array of ``reading`` is not of ``shape``, ValueError when one holds no numbers."""
    arrays = [reading.label_map, *reading.masks.values(), reading.image, *reading.probabilities.values()]
    for array in (a for a in arrays if a is not None):
        if tuple(array.shape) != tuple(shape):
            raise CardError(f"the model answers an array of {tuple(array.shape)} to an input of {tuple(shape)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("the model's answer holds values that are no numbers")


def pack(reading: Reading, prefix: str) -> Parcel:
    """Copy the arrays of ``reading`` into new blocks named ``prefix`` and a number."""
    numbers = count()

    def put(array: NDArray[Any]) -> Packed:
        name = f"{prefix}{next(numbers)}"
        block = SharedMemory(name, create=True, size=max(1, array.nbytes))
        np.ndarray(array.shape, array.dtype, block.buf)[...] = array
        block.close()
        return Packed(name, array.shape, array.dtype.str)

    return Parcel(
        replace(reading, label_map=None, masks={}, image=None, probabilities={}, saliency={}),
        None if reading.label_map is None else put(reading.label_map),
        {value: put(mask) for value, mask in reading.masks.items()},
        None if reading.image is None else put(reading.image),
        {value: put(array) for value, array in reading.probabilities.items()},
        {value: put(array) for value, array in reading.saliency.items()},
    )


def unpack(parcel: Parcel) -> Reading:
    """The reading with its arrays, copied; the blocks stay, see ``clear``."""
    return replace(
        parcel.rest,
        label_map=_take(parcel.label_map) if parcel.label_map else None,
        masks={value: _take(packed) for value, packed in parcel.masks.items()},
        image=_take(parcel.image) if parcel.image else None,
        probabilities={value: _take(packed) for value, packed in parcel.probabilities.items()},
        saliency={value: _take(packed) for value, packed in parcel.saliency.items()},
    )


def clear(prefix: str) -> None:
    """Remove all blocks of a task, however its worker ended."""
    for number in count():
        try:
            block = SharedMemory(f"{prefix}{number}")
        except FileNotFoundError:
            return
        block.close()
        block.unlink()


def _take(packed: Packed) -> NDArray[Any]:
    block = SharedMemory(packed.block)
    try:
        return np.ndarray(packed.shape, packed.dtype, block.buf).copy()
    finally:
        block.close()
