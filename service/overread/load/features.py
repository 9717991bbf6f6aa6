"""What an image looks like, in a dozen numbers: for the input gate, and for the profile of what a model was trained on.

All of them are taken on a thinned-out copy, so that a gate costs milliseconds. The body is what is brighter than a
threshold (−500 HU in a CT, else Otsu's) and whatever that encloses from all four sides of a slice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from overread.domain.volume import Volume

BODY_HU = -500.0
MOST_SLICES = 48
MOST_PIXELS = 128
PERCENTILES = (5, 25, 50, 75, 95)
MAD_TO_SIGMA = 1.4826
LAPLACE_SIGMA = float(np.sqrt(20.0))  # of the four-neighbour Laplacian of unit white noise

Planes = NDArray[np.float32]
Inside = NDArray[np.bool_]


def features(volume: Volume) -> dict[str, float]:
    """Intensity and shape, by the names that a reason would use; lengths in mm, shares 0 … 1.

    How long a scan is says nothing of what it shows, and the card has limits for it. Empty when nothing is there.
    """
    planes, pixel_mm = thinned(volume)
    bright = planes > threshold(planes, volume)
    inside = enclosed(bright)
    if not bright.any():
        return {}
    values, found = planes[inside], {}
    for percentile, value in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True):
        found[f"{percentile}th percentile of intensity in the body"] = float(value)
    found["dark share of the body"] = float((inside & ~bright).sum() / inside.sum())
    return found | _extent(inside, pixel_mm)


def thinned(volume: Volume) -> tuple[Planes, tuple[float, float]]:
    """At most 48 slices of 128 × 128 pixels, float32, and the distance (between rows, between columns) in mm."""
    count, rows, columns = volume.voxels.shape
    slices = np.unique(np.linspace(0, count - 1, min(count, MOST_SLICES)).astype(int))
    down, across = -(-rows // MOST_PIXELS), -(-columns // MOST_PIXELS)
    planes = volume.voxels[slices][:, down // 2 :: down, across // 2 :: across].astype(np.float32)
    return planes, (volume.spacing_mm[1] * down, volume.spacing_mm[2] * across)


def threshold(planes: Planes, volume: Volume) -> float:
    """What is brighter is body."""
    if volume.unit == "HU":
        return BODY_HU
    low, high = np.percentile(planes, [0.5, 99.5])
    counts, edges = np.histogram(planes, 256, (float(low), float(max(high, low + 1e-6))))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mass = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(middles[int(np.nanargmax(between))])


def enclosed(bright: Inside) -> Inside:
    """``bright`` (slices, rows, columns) and what has some of it to the left and right, above and below."""
    inside = bright.copy()
    for axis in (1, 2):
        before = np.maximum.accumulate(bright, axis)
        after = np.flip(np.maximum.accumulate(np.flip(bright, axis), axis), axis)
        inside = (before & after) if axis == 1 else inside & before & after
    return inside | bright


def noise_of(volume: Volume) -> float:
    """Standard deviation of the noise, in the volume's unit: robust, from the Laplacian inside the body, where anatomy
    is smooth. 0 when nothing is there."""
    count, rows, columns = volume.voxels.shape
    found = []
    for k in np.unique(np.linspace(count * 0.25, count * 0.75, 5).astype(int)):
        middle = volume.voxels[k, rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
        plane = middle.astype(np.float32)
        if min(plane.shape) < 3:
            continue
        centre = plane[1:-1, 1:-1]
        laplacian = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:] - 4 * centre
        body = centre > (BODY_HU if volume.unit == "HU" else np.median(centre))
        if body.sum() > 50:
            found.append(MAD_TO_SIGMA * float(np.median(np.abs(laplacian[body]))) / LAPLACE_SIGMA)
    return float(np.median(found)) if found else 0.0


def _extent(inside: Inside, pixel_mm: tuple[float, float]) -> dict[str, float]:
    there = inside.any((1, 2))
    areas = inside.sum((1, 2))[there] * pixel_mm[0] * pixel_mm[1] / 100.0
    depth = inside.any(2).sum(1)[there] * pixel_mm[0]
    width = inside.any(1).sum(1)[there] * pixel_mm[1]
    return {
        "width of the body (mm)": float(np.median(width)),
        "depth of the body (mm)": float(np.median(depth)),
        "area of the body (cm²)": float(np.median(areas)),
    }
