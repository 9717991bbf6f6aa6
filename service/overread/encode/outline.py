"""The outline of a segment on its key slice, for viewers that draw regions but no segmentations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

MOST_POINTS = 200
_HEADINGS = ((0, 1), (1, 0), (0, -1), (-1, 0))

Points = NDArray[np.float64]


def key_outlines(mask: NDArray[np.uint8]) -> dict[int, tuple[int, Points]]:
    """For each value of ``mask`` (slices, rows, columns): its key slice, the first of those with the largest area, and
    its outline there as ``outline`` gives it, in the coordinates of the whole slice."""
    found: dict[int, tuple[int, Points]] = {}
    for value, box in enumerate(ndimage.find_objects(mask), 1):
        if box is not None:
            part = mask[box] == value
            k = int(np.count_nonzero(part, axis=(1, 2)).argmax())
            corner = np.array([box[2].start, box[1].start], np.float64)
            found[value] = box[0].start + k, outline(part[k]) + corner
    return found


def outline(plane: NDArray[np.bool_], most_points: int = MOST_POINTS) -> Points:
    """Outer outline of the largest connected part of ``plane`` (rows, columns), along the edges of its pixels.

    Returns (n, 2) float64, (column, row) in the image-relative coordinates of PS3.3 C.18.6.1.2: (0, 0) is the top left
    corner of the top left pixel, (columns, rows) the bottom right corner of the image. Closed: the last point is the
    first. Each point is a corner of a pixel of ``plane``. With more than ``most_points`` corners, those that shape it
    least are left out (Douglas and Peucker). ``plane`` is not empty; holes are not drawn.
    """
    numbered, _ = ndimage.label(plane)
    part = numbered == np.bincount(numbered.ravel())[1:].argmax() + 1
    corners = _trace(part)
    tolerance = 0.5
    thinned = corners
    while len(thinned) > most_points:
        thinned = corners[_important(corners, tolerance)]
        tolerance *= 1.5
    return thinned[:, ::-1].copy()


def contours(plane: NDArray[np.bool_]) -> list[Points]:
    """Every boundary of ``plane`` (rows, columns), of holes, too, as closed lines in the coordinates of ``outline``.

    Exact: what an odd number of them goes around is inside. No edge of a pixel is walked twice.
    """
    edges = _edges(plane)
    found = []
    while edges:
        corner = next(iter(edges))
        found.append(np.array(_loop(edges, corner), np.float64)[:, ::-1].copy())
    return found


def _edges(plane: NDArray[np.bool_]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Corner (row, column) → headings in which an edge leaves it that has the inside on its right hand."""
    inside = np.pad(plane, 1)
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (dr, dc), (r0, c0) in zip(_HEADINGS, ((0, 0), (0, 1), (1, 1), (1, 0)), strict=True):
        beyond = np.roll(inside, (dc, -dr), axis=(0, 1))  # the pixel on the left hand
        for row, column in (np.argwhere(inside & ~beyond) - 1).tolist():
            found.setdefault((row + r0, column + c0), []).append((dr, dc))
    return found


def _loop(edges: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]) -> list[tuple[int, int]]:
    """One closed line of corners out of ``edges``, from which it is taken; right is turned first."""
    here, heading = start, edges[start][0]
    corners = [start]
    while True:
        edges[here].remove(heading)
        if not edges[here]:
            del edges[here]
        here = (here[0] + heading[0], here[1] + heading[1])
        dr, dc = heading
        turned = next((h for h in ((dc, -dr), heading, (-dc, dr)) if h in edges.get(here, ())), None)
        if turned is None:
            return [*corners, here]
        if turned != heading:
            corners.append(here)
            heading = turned


def _trace(part: NDArray[np.bool_]) -> Points:
    """Corners (n, 2), (row, column), of the outer boundary of a 4-connected ``part``, clockwise on the screen, closed.

    Walks along pixel edges with the part on the right hand; where two pixels touch at a corner only it turns right, so
    that it stays on the same pixel.
    """
    inside = np.pad(part, 1)
    row, column = divmod(int(part.argmax()), part.shape[1])  # the first pixel: its top edge is on the outer boundary
    here, heading, corners = (row, column), (0, 1), [(row, column)]
    start = here
    while True:
        here = (here[0] + heading[0], here[1] + heading[1])
        if here == start:
            break
        turned = _turn(inside, here, heading)
        if turned != heading:
            corners.append(here)
            heading = turned
    return np.array([*corners, start], np.float64)


def _turn(inside: NDArray[np.bool_], corner: tuple[int, int], heading: tuple[int, int]) -> tuple[int, int]:
    """The next heading (row, column) at ``corner``: right unless the pixel ahead on the right is inside, left when the
    one ahead on the left is too. ``inside`` is padded by one pixel."""
    (r, c), (dr, dc) = corner, heading
    right = (dc, -dr)

    def at(side: int) -> bool:
        centre_row, centre_column = r + (dr + side * right[0]) / 2, c + (dc + side * right[1]) / 2
        return bool(inside[int(np.floor(centre_row)) + 1, int(np.floor(centre_column)) + 1])

    if not at(1):
        return right
    return (-dc, dr) if at(-1) else heading


def _important(points: Points, tolerance: float) -> NDArray[np.bool_]:
    """Which points of a closed line to keep so that none left out lies farther than ``tolerance`` from it."""
    keep = np.zeros(len(points), bool)
    far = int(np.hypot(*(points - points[0]).T).argmax())
    keep[[0, far, -1]] = True
    spans = [(0, far), (far, len(points) - 1)]
    while spans:
        start, end = spans.pop()
        if end - start < 2:
            continue
        distances = _distances(points[start + 1 : end], points[start], points[end])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = start + 1 + worst
            keep[middle] = True
            spans += [(start, middle), (middle, end)]
    return keep


def _distances(points: Points, start: Points, end: Points) -> Points:
    """Distances of ``points`` (n, 2) from the segment between ``start`` and ``end``."""
    along = end - start
    length = float(along @ along)
    share = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    away: Points = np.hypot(*(points - start - share[:, None] * along).T)
    return away
