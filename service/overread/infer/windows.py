"""How many windows a sliding-window inferer will look at, how many at once, and whether it sees numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, isnan, prod
from typing import Any


def count_windows(inferer: Any, shape: tuple[int, ...]) -> int:
    """Number of windows for an image of ``shape`` (x, y, z); 1 for an inferer that does not slide."""
    roi = getattr(inferer, "roi_size", None)
    if roi is None:
        return 1
    sizes = [roi] * len(shape) if isinstance(roi, int) else list(roi)
    sliced = getattr(inferer, "spatial_dim", None)
    if sliced is not None and len(sizes) == len(shape) - 1:
        sizes.insert(sliced, 1)
    overlap = getattr(inferer, "overlap", 0.25)
    overlaps = [overlap] * len(shape) if isinstance(overlap, float | int) else list(overlap)
    return prod(_along(*axis) for axis in zip(shape, sizes, overlaps, strict=False))


def _along(extent: int, size: int, overlap: float) -> int:
    if size <= 0 or extent <= size:
        return 1
    return ceil((extent - size) / max(1, int(size * (1 - overlap)))) + 1


_share = [1]


@contextmanager
def smaller(share: int) -> Iterator[None]:
    """Within, batches of windows have a ``share``-th of their size: memory is short. For one reading at a time."""
    _share[0] = max(1, share)
    try:
        yield
    finally:
        _share[0] = 1


def batch(wanted: int) -> int:
    """How many windows go through the network at once, where ``wanted`` would."""
    return max(1, wanted // _share[0])


@contextmanager
def thinned(inferer: Any) -> Iterator[None]:
    """Within, a sliding-window inferer works with such smaller batches."""
    wanted = getattr(inferer, "sw_batch_size", None)
    if not isinstance(wanted, int):
        yield
        return
    inferer.sw_batch_size = batch(wanted)
    try:
        yield
    finally:
        inferer.sw_batch_size = wanted


class Numbers:
    """Keeps the mean of each answer of a network: one that is no number tells that a value was none. (An infinity is
    left to what follows: the logarithm of nothing is one.) Nothing waits for a GPU until it is asked. As a forward hook
    of a network it sees each answer, from several threads too."""

    def __init__(self) -> None:
        self._means: list[Any] = []

    def __call__(self, _network: Any, _given: Any, answer: Any) -> None:
        """Add one answer: a tensor, or lists and tables of them."""
        parts = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list | tuple) else ()
        for part in parts:
            self(_network, _given, part)
        if hasattr(answer, "is_floating_point") and answer.is_floating_point():
            self._means.append(answer.detach().mean().float())

    def forget(self) -> None:
        """Begin anew."""
        self._means = []

    def require(self) -> None:
        """Raises ValueError when any of them was no number; what was added is forgotten."""
        means, self._means = self._means, []
        if any(isnan(float(mean)) for mean in means):
            raise ValueError("the network's answer holds values that are no numbers")
