"""A grid in patient space that anatomy is painted on: Hounsfield units and truth side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]

WHOLE: Box = (slice(None), slice(None), slice(None))
WARP_MM = 9.0
AIR_HU = -1000.0


@dataclass(frozen=True)
class Grid:
    """Where the voxels lie.

    ``shape`` is (slices, rows, columns); ``spacing_mm`` the distance between voxel centres in the same order. The
    volume is centred on the patient's origin; slices run towards the head, rows towards the back, columns towards
    the patient's left (LPS).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Voxel centres along z, y and x in mm, each one-dimensional."""
        z, y, x = (
            ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * step).astype(np.float32)
            for n, step in zip(self.shape, self.spacing_mm, strict=True)
        )
        return z, y, x


class Canvas:
    """Hounsfield units and labels on a grid whose coordinates are gently warped, so that no ellipsoid stays perfect.

    Attributes: ``hu`` (slices, rows, columns) float32, HU; ``label`` (slices, rows, columns) uint8;
    ``z``, ``y``, ``x`` (slices, rows, columns) float32, warped patient coordinates in mm, LPS. ``yaw_rad`` turns the
    patient about the long axis.
    """

    def __init__(self, grid: Grid, rng: np.random.Generator, yaw_rad: float = 0.0) -> None:
        self.grid = grid
        self.rng = rng
        self.yaw_rad = yaw_rad
        self.axes = grid.axes()
        self.hu: Floats = np.full(grid.shape, AIR_HU, np.float32)
        self.label: NDArray[np.uint8] = np.zeros(grid.shape, np.uint8)
        z, y, x = self.axes
        self.z = z[:, None, None] + self.noise(70.0, WARP_MM / 3)
        cos, sin = np.float32(np.cos(yaw_rad)), np.float32(np.sin(yaw_rad))
        self.y = cos * y[None, :, None] - sin * x[None, None, :] + self.noise(70.0, WARP_MM / 3)
        self.x = cos * x[None, None, :] + sin * y[None, :, None] + self.noise(70.0, WARP_MM / 3)

    @contextmanager
    def drawing_from(self, rng: np.random.Generator) -> Iterator[None]:
        """Within, ``rng`` draws; after it, what drew before goes on where it was."""
        before, self.rng = self.rng, rng
        yield
        self.rng = before

    def noise(self, length_mm: float, amplitude: float, box: Box = WHOLE) -> Floats:
        """Smooth random field with about the given correlation length, clipped at three amplitudes."""
        shape = tuple(len(axis[part]) for axis, part in zip(self.axes, box, strict=True))
        coarse = tuple(
            max(3, int(np.ceil(n * step / length_mm)) + 2)
            for n, step in zip(shape, self.grid.spacing_mm, strict=True)
        )
        field = np.clip(self.rng.standard_normal(coarse), -3, 3).astype(np.float32) * np.float32(amplitude)
        for axis, n in enumerate(shape):
            field = _stretch(field, n, axis)
        return field

    def box(self, centre: Point, reach_mm: float | Point) -> Box:
        """Index box around ``centre`` (z, y, x in mm) that holds all within ``reach_mm`` of it, warp included."""
        rz, ry, rx = (reach_mm,) * 3 if isinstance(reach_mm, float | int) else reach_mm
        cos, sin = np.cos(self.yaw_rad), np.sin(self.yaw_rad)
        turned = (centre[0], cos * centre[1] + sin * centre[2], cos * centre[2] - sin * centre[1])
        wide = (rz, abs(cos) * ry + abs(sin) * rx, abs(cos) * rx + abs(sin) * ry)
        parts = []
        for axis, middle, r in zip(self.axes, turned, wide, strict=True):
            low = int(np.searchsorted(axis, middle - r - WARP_MM))
            high = int(np.searchsorted(axis, middle + r + WARP_MM, side="right"))
            parts.append(slice(low, max(low, high)))
        return parts[0], parts[1], parts[2]

    def ellipsoid(self, centre: Point, radii: Point) -> tuple[Box, Floats]:
        """Box and normalised radius (1 on the surface) of an axis-aligned ellipsoid; mm, order z, y, x."""
        box = self.box(centre, radii)
        (cz, cy, cx), (rz, ry, rx) = centre, radii
        radius = ((self.z[box] - cz) / rz) ** 2 + ((self.y[box] - cy) / ry) ** 2 + ((self.x[box] - cx) / rx) ** 2
        return box, np.sqrt(radius)

    def capsule(self, start: Point, end: Point, radius_mm: float) -> tuple[Box, Floats]:
        """Box and normalised distance (1 on the surface) of a thick line between two points (z, y, x in mm)."""
        a, b = np.asarray(start, np.float32), np.asarray(end, np.float32)
        middle, half = (a + b) / 2, np.abs(b - a) / 2 + radius_mm
        box = self.box(tuple(middle.tolist()), tuple(half.tolist()))
        line, length2 = b - a, float(np.dot(b - a, b - a)) + 1e-6
        offsets = [c[box] - start[i] for i, c in enumerate((self.z, self.y, self.x))]
        along = np.clip(sum(o * line[i] for i, o in enumerate(offsets)) / length2, 0, 1)
        distance = np.sqrt(sum((o - along * line[i]) ** 2 for i, o in enumerate(offsets)))
        return box, (distance / np.float32(radius_mm)).astype(np.float32)

    def paint(self, box: Box, where: Mask, hu: float | Floats, label: int | None = None) -> None:
        """Fill the voxels of ``where`` (shaped like ``box``) with ``hu`` and, when given, with ``label``."""
        self.hu[box][where] = hu if np.isscalar(hu) else np.broadcast_to(hu, where.shape)[where]
        if label is not None:
            self.label[box][where] = label


def _stretch(field: Floats, size: int, axis: int) -> Floats:
    """Resample one axis of a coarse field to ``size`` samples with a smooth (cubic Hermite) blend."""
    position = np.linspace(0.5, field.shape[axis] - 1.5, size, dtype=np.float32)
    low = np.floor(position).astype(int)
    blend = position - low
    blend = blend * blend * (3 - 2 * blend)
    form = [1] * field.ndim
    form[axis] = size
    weight = blend.reshape(form).astype(np.float32)
    return np.asarray(np.take(field, low, axis) * (1 - weight) + np.take(field, low + 1, axis) * weight, np.float32)


def blur(volume: Floats, sigma_mm: Point, grid: Grid) -> Floats:
    """Gaussian blur with a standard deviation in mm an axis (z, y, x)."""
    sigma = [s / step for s, step in zip(sigma_mm, grid.spacing_mm, strict=True)]
    return np.asarray(ndimage.gaussian_filter(volume, sigma, mode="nearest", truncate=3.0), np.float32)
