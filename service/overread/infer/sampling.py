"""Linear and nearest sampling of a volume along its own axes, plane by plane.

What a grid of other spacings asks for is the same along each axis, so three short lists of places take the place of one
for every voxel. The sums and their order are those of torch's ``grid_sample``, so that the numbers are, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Places:
    """Where the samples lie along one axis: between voxel ``low`` and ``high``, with the weight of each."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    weight_low: Floats
    weight_high: Floats

    def __len__(self) -> int:
        return len(self.low)

    def part(self, chosen: Any) -> Places:
        """Some of them."""
        parts = (self.low, self.high, self.weight_low, self.weight_high)
        return Places(*(part[chosen] for part in parts))

    def corner(self, high: int) -> tuple[NDArray[np.intp], Floats]:
        """The lower or the higher neighbours, and their weights."""
        return (self.high, self.weight_high) if high else (self.low, self.weight_low)


def places(coordinates: Floats, size: int) -> Places:
    """``coordinates`` in voxels of an axis of ``size``; beyond its ends the voxel at the end is repeated."""
    inside = np.clip(coordinates, 0, size - 1).astype(coordinates.dtype)
    low = np.floor(inside)
    weight_high = inside - low
    weight_low = (low + 1) - inside
    first = low.astype(np.intp)
    return Places(first, np.minimum(first + 1, size - 1), weight_low, weight_high)


def linear(volume: NDArray[Any], axes: Sequence[Places], out: NDArray[np.float32], threads: int) -> None:
    """``volume`` (x, y, z) at ``axes`` into ``out``, rounded to float32 after computing in the type of the weights."""
    outer = int(np.argmax(np.abs(volume.strides)))  # planes that lie together in memory
    turned = [outer, *(axis for axis in range(3) if axis != outer)]
    if volume.strides[turned[1]] < volume.strides[turned[2]]:
        turned[1:] = turned[:0:-1]
    source, target = volume.transpose(turned), out.transpose(turned)

    def plane(k: int) -> None:
        some = list(axes)
        some[outer] = axes[outer].part(slice(k, k + 1))
        target[k] = _sum(source, some, turned)

    each_of(plane, range(len(axes[outer])), threads)


def nearest(volume: NDArray[Any], axes: Sequence[Floats], out: NDArray[Any], threads: int) -> None:
    """``volume`` (x, y, z) at the voxels nearest to the coordinates ``axes`` into ``out``; halves to the even one."""
    sizes = volume.shape
    x, y, z = (
        np.clip(np.rint(np.clip(axis, 0, size - 1)).astype(np.intp), 0, size - 1)
        for axis, size in zip(axes, sizes, strict=True)
    )

    def plane(k: int) -> None:
        out[k] = np.take(np.take(volume[x[k]], y, axis=0), z, axis=1)

    each_of(plane, range(len(x)), threads)


def each_of(work: Callable[[int], None], numbers: Iterable[int], threads: int) -> None:
    """Do ``work`` for each of ``numbers``, several at a time where there are threads for it."""
    if threads < 2:
        for number in numbers:
            work(number)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, numbers):
            pass


def _sum(source: NDArray[Any], axes: Sequence[Places], turned: Sequence[int]) -> Floats:
    """One plane: eight neighbours, each by its weight, in the order in which torch adds them.

    ``axes`` are x, y, z, that of the plane's number with one place; ``source`` has its axes ``turned``.
    """
    outer, first, second = turned
    gathered: dict[tuple[int, ...], Floats] = {}
    kind = axes[0].weight_low.dtype
    for o in (0, 1):
        whole = source[axes[outer].corner(o)[0][0]].astype(kind)
        for f in (0, 1):
            rows = whole[axes[first].corner(f)[0]]
            for s in (0, 1):
                at = {outer: o, first: f, second: s}
                gathered[at[0], at[1], at[2]] = np.take(rows, axes[second].corner(s)[0], axis=1)
    total: Floats = np.zeros((len(axes[first]), len(axes[second])), kind)
    for corner in np.ndindex(2, 2, 2):
        weight = _weight(axes, corner).transpose(turned)[0]
        found = gathered[corner]
        found *= weight
        total += found
    return total


def _weight(axes: Sequence[Places], corner: Sequence[int]) -> Floats:
    x, y, z = (axis.corner(c)[1] for axis, c in zip(axes, corner, strict=True))
    weight: Floats = (z[None, None, :] * y[None, :, None]) * x[:, None, None]
    return weight
