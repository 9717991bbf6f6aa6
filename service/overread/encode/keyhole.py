"""Holes joined to what they are in by a channel without width, for formats that know closed lines only.

A line and its holes become one closed line (PS3.3 C.8.8.6.3): along a row to the left of the leftmost edge of the hole,
around the hole, and back.
"""

from __future__ import annotations

import numpy as np

from overread.encode.outline import Points


def joined(lines: list[Points]) -> list[Points]:
    """The closed lines of ``outline.contours`` without holes of their own; (n, 2), (column, row)."""
    outer = [line for line in lines if _area(line) > 0]
    holes = sorted((line for line in lines if _area(line) <= 0), key=lambda line: float(line[:, 0].min()))
    for hole in holes:
        at = _leftmost(hole)
        column, row = hole[at][0], (hole[at][1] + hole[at + 1][1]) / 2
        n, edge = _left_of(outer, column, row)
        line = outer[n]
        inside = np.vstack([[[column, row]], hole[at + 1 : -1], hole[: at + 1], [[column, row]]])
        door = np.array([[line[edge][0], row]])
        outer[n] = np.vstack([line[: edge + 1], door, inside, door, line[edge + 1 :]])
    return outer


def _leftmost(line: Points) -> int:
    """Where the leftmost upright edge of ``line`` begins."""
    upright = np.flatnonzero(line[:-1, 0] == line[1:, 0])
    return int(upright[line[upright, 0].argmin()])


def _left_of(lines: list[Points], column: float, row: float) -> tuple[int, int]:
    """The line and its upright edge that is next on the left."""
    best, found = -np.inf, (0, 0)
    for n, line in enumerate(lines):
        a, b = line[:-1], line[1:]
        spans = (a[:, 0] == b[:, 0]) & ((a[:, 1] > row) != (b[:, 1] > row)) & (a[:, 0] < column) & (a[:, 0] > best)
        if spans.any():
            edges = np.flatnonzero(spans)
            edge = int(edges[a[edges, 0].argmax()])
            best, found = float(a[edge, 0]), (n, edge)
    return found


def _area(line: Points) -> float:
    """Above 0 for a line that has its inside on the right hand as it is seen on a screen."""
    x, y = line[:, 0], line[:, 1]
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1])
