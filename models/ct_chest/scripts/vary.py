"""What scanners and hospitals do to an image and the phantoms do not: kernels, thick slices, metal, table, field of view.

Each function takes HU, (x, y, z) float32 in RAS order at the training's spacing, and a generator, and returns HU of the
same shape. The truth stays as it is: none of this moves anatomy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Hu = np.ndarray
Vary = Callable[[Hu, np.random.Generator], Hu]


def vary(hu: Hu, rng: np.random.Generator) -> Hu:
    """Apply each of the changes to some images only, in the order in which a scanner makes them."""
    hu = hu.astype(np.float32)
    for change, chance in CHANGES:
        if rng.random() < chance:
            hu = change(hu, rng)
    return hu


def metal(hu: Hu, rng: np.random.Generator) -> Hu:
    """A pacemaker's lead, a port or a wire: a bright rod in the body, with the streaks that it throws in its slices."""
    places = np.argwhere(hu > -50)
    if len(places) == 0:
        return hu
    for _ in range(int(rng.integers(1, 4))):
        x, y, z = places[rng.integers(len(places))]
        length = int(rng.integers(1, 30))
        top = min(hu.shape[2], z + length)
        angle = np.arctan2(*np.ogrid[-y : hu.shape[1] - y, -x : hu.shape[0] - x]).T
        far = np.hypot(*np.ogrid[-x : hu.shape[0] - x, -y : hu.shape[1] - y])
        streaks = np.cos(angle * rng.integers(4, 14) + rng.uniform(0, 6)) * np.exp(-far / rng.uniform(4, 14))
        hu[:, :, z:top] += (streaks * rng.uniform(30, 350))[:, :, None].astype(np.float32)
        hu[max(0, x - 1) : x + 1, max(0, y - 1) : y + 1, z:top] = rng.uniform(1200, 3000)
    return hu


def thick_slices(hu: Hu, rng: np.random.Generator) -> Hu:
    """Slices of 4 to 8 mm, interpolated back: partial volumes along the axis."""
    width = int(rng.integers(2, 5))
    thick = ndimage.uniform_filter1d(hu, width, axis=2)[:, :, ::width]
    return ndimage.zoom(thick, (1, 1, hu.shape[2] / thick.shape[2]), order=1, mode="nearest", grid_mode=True)


def kernel(hu: Hu, rng: np.random.Generator) -> Hu:
    """From a smooth kernel to a lung kernel that overshoots at edges."""
    soft = ndimage.gaussian_filter(hu, float(rng.uniform(0.5, 1.2)))
    return hu + np.float32(rng.uniform(-0.8, 1.6)) * (hu - soft)


def shading(hu: Hu, rng: np.random.Generator) -> Hu:
    """Beam hardening and scatter: a slow rise or fall across the image."""
    coarse = rng.normal(0, rng.uniform(5, 25), (4, 4, 4)).astype(np.float32)
    zoom = [n / 4 for n in hu.shape]
    return hu + ndimage.zoom(coarse, zoom, order=1, mode="nearest", grid_mode=True)


def photon_noise(hu: Hu, rng: np.random.Generator) -> Hu:
    """Low dose: grain that is long from left to right, most where shoulders stop the beam."""
    grain = rng.standard_normal(hu.shape, dtype=np.float32)
    grain = ndimage.gaussian_filter1d(grain, float(rng.uniform(0.3, 2.5)), axis=0)
    level = np.linspace(rng.uniform(5, 40), rng.uniform(5, 90), hu.shape[2], dtype=np.float32)
    return hu + grain / (grain.std() + 1e-6) * level


def breathing(hu: Hu, rng: np.random.Generator) -> Hu:
    """The lower slices blurred and doubled, as by a breath during the scan."""
    end = int(rng.integers(hu.shape[2] // 6, hu.shape[2] // 2))
    moved = np.roll(hu[:, :, :end], int(rng.integers(1, 4)), axis=1)
    hu[:, :, :end] = hu[:, :, :end] * 0.6 + moved * 0.4
    return hu


def field_of_view(hu: Hu, rng: np.random.Generator) -> Hu:
    """A reconstruction that cuts the sides off: a circle beyond which scanners write one value."""
    x, y = np.ogrid[: hu.shape[0], : hu.shape[1]]
    centre = [n / 2 + rng.normal(0, 6) for n in hu.shape[:2]]
    far = np.hypot(x - centre[0], y - centre[1]) > hu.shape[0] * rng.uniform(0.36, 0.52)
    hu[far] = rng.choice([-1024.0, -1000.0, -2000.0, 0.0], p=[0.5, 0.2, 0.2, 0.1])
    return hu


CHANGES: tuple[tuple[Vary, float], ...] = (
    (metal, 0.15),
    (breathing, 0.15),
    (thick_slices, 0.3),
    (shading, 0.3),
    (kernel, 0.5),
    (photon_noise, 0.4),
    (field_of_view, 0.2),
)
