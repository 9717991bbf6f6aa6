"""How long and how wide a segment is in the slice plane, as a radiologist's caliper would have it.

Definition. The outline of a segment on a slice is the convex hull of the midpoints of the four edges of its pixels, so
that a row of n pixels is n pixel spacings long. The long axis is the largest distance between two points of that
outline, on the slice where this distance is largest (the first such slice). The short axis is the longest chord of the
same outline perpendicular to it. Both in mm; nothing is measured across slices.

The longest diameter in three dimensions is the largest distance between two vertices of the segment's surface mesh
(IBSI L0JK): a row of n voxels is n voxel spacings long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist
from skimage.measure import marching_cubes

from overread.domain.card import Label
from overread.domain.codes import LONG_AXIS, MILLIMETER, SHORT_AXIS
from overread.domain.features import FEATURES, SIZES, expand
from overread.domain.findings import Measurement
from overread.domain.volume import Volume

Points = NDArray[np.float64]


def measure(volume: Volume, mask: NDArray[np.bool_], label: Label) -> Sequence[Measurement]:
    """Long and short axis and longest diameter in mm of ``mask`` (slices, rows, columns).

    All of them when the label says ``diameters``, otherwise those that it asks for by name.
    """
    wanted = SIZES if label.diameters else expand(label.features)
    found: list[Measurement] = []
    if "long_axis" in wanted or "short_axis" in wanted:
        long_mm, short_mm = axes_mm(mask, volume.stack.spacing_mm[1:])
        pairs = (("long_axis", LONG_AXIS, long_mm), ("short_axis", SHORT_AXIS, short_mm))
        found += [Measurement(code, round(mm, 2), MILLIMETER) for name, code, mm in pairs if name in wanted]
    if "longest_diameter" in wanted:
        longest = longest_mm(mask, volume.stack.spacing_mm)
        found.append(Measurement(FEATURES["shape.maximum_3d_diameter"].code, round(longest, 2), MILLIMETER))
    return tuple(found)


def longest_mm(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> float:
    """The longest diameter in mm of ``mask`` (slices, rows, columns), not empty, with ``spacing_mm`` along its axes."""
    vertices = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, spacing=spacing_mm)[0].astype(np.float64)
    outer = vertices[ConvexHull(vertices).vertices]
    # In pieces: the hull of a large organ may have ten thousand corners.
    return max(float(cdist(outer[n : n + 512], outer).max()) for n in range(0, len(outer), 512))


def axes_mm(mask: NDArray[np.bool_], pixel_mm: tuple[float, float]) -> tuple[float, float]:
    """Long and short axis in mm of ``mask`` (slices, rows, columns), not empty.

    ``pixel_mm`` is (between rows, between columns).
    """
    best, outline, ends = 0.0, np.zeros((0, 2)), (0, 0)
    for plane in mask[mask.any(axis=(1, 2))]:
        candidate = _outline_mm(plane, pixel_mm)
        distances = cdist(candidate, candidate)
        a, b = divmod(int(distances.argmax()), len(candidate))
        if distances[a, b] > best + 1e-9:
            best, outline, ends = float(distances[a, b]), candidate, (a, b)
    return best, _widest_chord(outline, (outline[ends[1]] - outline[ends[0]]) / best)


def _outline_mm(plane: NDArray[np.bool_], pixel_mm: tuple[float, float]) -> Points:
    """Corners (n, 2), (row, column) in mm, of the convex outline of ``plane`` (rows, columns)."""
    rows = np.flatnonzero(plane.any(axis=1))
    columns = np.flatnonzero(plane.any(axis=0))
    left = plane[rows].argmax(axis=1)
    right = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    top = plane[:, columns].argmax(axis=0)
    bottom = plane.shape[0] - 1 - plane[::-1, columns].argmax(axis=0)
    edges = [(rows, left - 0.5), (rows, right + 0.5), (top - 0.5, columns), (bottom + 0.5, columns)]
    points: Points = np.concatenate([np.stack(pair, axis=1) for pair in edges]) * np.asarray(pixel_mm)
    corners: Points = points[ConvexHull(points).vertices]
    return corners


def _widest_chord(outline: Points, direction: Points) -> float:
    """Length of the longest chord of a convex ``outline`` (n, 2) perpendicular to the unit vector ``direction`` (2,).

    The length is concave along the direction, so that the longest chord ends in a corner.
    """
    along = outline @ direction
    across = outline @ np.array([-direction[1], direction[0]])
    start, end = int(along.argmin()), int(along.argmax())
    order = np.roll(np.arange(len(outline)), -start)
    split = (end - start) % len(outline)
    one, other = order[: split + 1], np.append(order[split:], order[0])[::-1]
    gap = np.interp(along, along[one], across[one]) - np.interp(along, along[other], across[other])
    return float(np.abs(gap).max())
