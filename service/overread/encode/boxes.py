"""Boxes on their key slice, and the frame around an image that a class is about."""

from __future__ import annotations

import numpy as np

from overread.domain.findings import Detection
from overread.encode import identity
from overread.encode.outline import Points
from overread.ports import Read


def tracking_uid(read: Read, number: int) -> str:
    """The UID of detection ``number``, counted from 1."""
    return identity.uid(read.key, f"tracking box {number}")


def rectangle(detection: Detection, shape: tuple[int, int, int]) -> tuple[int, Points]:
    """The box on its middle slice, cut to the image: slice, and closed line (5, 2) of (column, row), in the coordinates
    of ``outline.outline``."""
    k = round((detection.low[0] + detection.high[0]) / 2)
    limits = np.array([shape[2], shape[1]], np.float64)
    a = np.clip(np.array([detection.low[2], detection.low[1]]) + 0.5, 0, limits)
    b = np.clip(np.array([detection.high[2], detection.high[1]]) + 0.5, 0, limits)
    points = np.array([[a[0], a[1]], [b[0], a[1]], [b[0], b[1]], [a[0], b[1]], [a[0], a[1]]])
    return min(max(k, 0), shape[0] - 1), points


def whole_image(shape: tuple[int, int, int]) -> Points:
    """The closed line (5, 2) along the inner edge of an image of ``shape`` (slices, rows, columns)."""
    right, bottom = shape[2] - 1.0, shape[1] - 1.0
    return np.array([[1.0, 1.0], [right, 1.0], [right, bottom], [1.0, bottom], [1.0, 1.0]])


def percent(probability: float) -> float:
    """As reports give it: in percent, with two decimals."""
    return round(100.0 * probability, 2)
