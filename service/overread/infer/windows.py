"""How many windows a sliding-window inferer will look at."""

from __future__ import annotations

from math import ceil
from typing import Any


def count_windows(inferer: Any, shape: tuple[int, ...]) -> int:
    """Number of windows for an image of ``shape`` (x, y, z); 1 for an inferer that does not slide."""
    roi = getattr(inferer, "roi_size", None)
    if roi is None:
        return 1
    sizes = [roi] * len(shape) if isinstance(roi, int) else list(roi)
    overlap = getattr(inferer, "overlap", 0.25)
    overlaps = [overlap] * len(shape) if isinstance(overlap, float | int) else list(overlap)
    total = 1
    for extent, size, share in zip(shape, sizes, overlaps, strict=True):
        size = extent if size <= 0 else size
        step = max(1, int(size * (1 - share)))
        total *= 1 if extent <= size else ceil((extent - size) / step) + 1
    return total
