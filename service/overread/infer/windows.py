"""How many windows a sliding-window inferer will look at."""

from __future__ import annotations

from math import ceil, prod
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
