"""A reading packed for the way between two processes: its arrays one after another in a block, the rest as it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import CardError
from overread.domain.reading import Box, Likelihood, Reading
from overread.infer import blocks

# What an array of a reading may be, and of which numbers.
LABEL_MAP, MASK, IMAGE, PROBABILITY, SALIENCY = "label_map", "mask", "image", "probability", "saliency"
DTYPES = {
    LABEL_MAP: ("uint8", "uint16"),
    MASK: ("bool",),
    IMAGE: ("float32",),
    PROBABILITY: ("float16",),
    SALIENCY: ("float16",),
}
NO_NUMBERS = "the model's answer holds values that are no numbers"


@dataclass(frozen=True)
class Packed:
    """One array: what it is (``DTYPES``), of which label ``value`` (0 where it is of none), and where it begins."""

    role: str
    value: int
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Parcel:
    """A reading without its arrays, and where those lie."""

    arrays: tuple[Packed, ...] = ()
    boxes: tuple[Box, ...] = ()
    classes: tuple[Likelihood, ...] = ()
    notes: tuple[str, ...] = ()


def require_placed(reading: Reading, shape: tuple[int, ...]) -> None:
    """Raises CardError when an array of ``reading`` is not of ``shape``, ValueError when something is no number."""
    for _, _, array in _arrays(reading):
        if tuple(array.shape) != tuple(shape):
            raise CardError(f"the model answers an array of {tuple(array.shape)} to an input of {tuple(shape)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(NO_NUMBERS)
    numbers = [n for box in reading.boxes for n in (box.score, *box.low, *box.high)]
    if not np.isfinite([*numbers, *(one.probability for one in reading.classes)]).all():
        raise ValueError(NO_NUMBERS)


def pack(reading: Reading, block: int) -> Parcel:
    """Write the arrays of ``reading`` into ``block``, one after another."""
    packed: list[Packed] = []
    offset = 0
    for role, value, array in _arrays(reading):
        made = _as(role, array)
        blocks.write(block, made.reshape(-1).view(np.uint8).data, offset)
        packed.append(Packed(role, value, made.dtype.name, tuple(made.shape), offset))
        offset += made.nbytes
    return Parcel(tuple(packed), reading.boxes, reading.classes, reading.notes)


def unpack(parcel: Parcel, block: int, shape: tuple[int, ...]) -> Reading:
    """The reading with its arrays, copied out of ``block``.

    Raises ValueError when it is no reading on a grid of ``shape``, or the block does not hold what it says.
    """
    _require_whole(parcel, block, shape)
    found: dict[str, dict[int, NDArray[Any]]] = {role: {} for role in DTYPES}
    for one in parcel.arrays:
        found[one.role][one.value] = _take(one, block)
    reading = Reading(
        found[LABEL_MAP].get(0),
        found[MASK],
        parcel.boxes,
        parcel.classes,
        found[IMAGE].get(0),
        found[PROBABILITY],
        found[SALIENCY],
        parcel.notes,
    )
    require_placed(reading, shape)
    return reading


def _arrays(reading: Reading) -> Iterator[tuple[str, int, NDArray[Any]]]:
    if reading.label_map is not None:
        yield LABEL_MAP, 0, reading.label_map
    if reading.image is not None:
        yield IMAGE, 0, reading.image
    for role, several in ((MASK, reading.masks), (PROBABILITY, reading.probabilities), (SALIENCY, reading.saliency)):
        for value, array in several.items():
            yield role, int(value), array


def _as(role: str, array: NDArray[Any]) -> NDArray[Any]:
    """``array`` in the numbers of its role; engines of others may answer in wider ones."""
    if array.dtype.name not in DTYPES[role] and role == LABEL_MAP:
        if array.size and (array.min() < 0 or array.max() > 0xFFFF):
            raise CardError("the model's label map has values outside 0 to 65535")
        return np.ascontiguousarray(array, np.uint16)
    dtype = array.dtype if array.dtype.name in DTYPES[role] else np.dtype(DTYPES[role][0])
    return np.ascontiguousarray(array, dtype)


def _require_whole(parcel: Parcel, block: int, shape: tuple[int, ...]) -> None:
    """What is said of the arrays is possible: a few lines must not make the keeper take more memory than was filled."""
    for one in parcel.arrays:
        if one.shape != tuple(shape) or one.dtype not in DTYPES[one.role]:
            raise ValueError("an array of another shape or of other numbers than asked for")
    if len({(one.role, one.value) for one in parcel.arrays}) < len(parcel.arrays):
        raise ValueError("two arrays for the same")
    whole = sum(one.size for one in parcel.arrays)
    if whole > os.fstat(block).st_size or whole > blocks.held_bytes(block):
        raise ValueError("the arrays are not there")


def _take(packed: Packed, block: int) -> NDArray[Any]:
    taken = np.empty(packed.size, np.uint8)
    try:
        blocks.read(block, taken.data, packed.offset)
    except (EOFError, OSError):
        raise ValueError("an array lies where nothing is") from None
    if packed.role == MASK:
        np.not_equal(taken, 0, out=taken.view(np.bool_))  # a truth value of 2 is neither
    return taken.view(packed.dtype).reshape(packed.shape)
