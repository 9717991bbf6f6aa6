"""From anatomy to what a CT scanner would have reconstructed: blur, noise, field of view, integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from overread.simulate.phantom.canvas import Canvas, Floats, blur


def reconstruct(canvas: Canvas, noise_hu: float, *, circle: bool = True) -> NDArray[np.int16]:
    """Reconstructed Hounsfield units, (slices, rows, columns) int16, with the noise of a soft or sharp kernel."""
    rng, grid = canvas.rng, canvas.grid
    in_plane = float(rng.uniform(0.4, 1.1))
    through = float(rng.uniform(0.5, 1.3))
    hu = blur(canvas.hu, (through, in_plane, in_plane), grid)
    grain = rng.standard_normal(grid.shape, dtype=np.float32)
    sigma = float(rng.uniform(0.0, 0.9))
    if sigma > 0.3:
        grain = blur(grain, tuple(sigma * s for s in grid.spacing_mm), grid)  # type: ignore[arg-type]
        grain /= float(grain.std()) + 1e-6
    hu += grain * np.float32(noise_hu)
    if circle:
        hu[:, ~_circle(canvas)] = -1024.0
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def _circle(canvas: Canvas) -> NDArray[np.bool_]:
    _, y, x = canvas.axes
    radius = max(float(x[-1]), float(y[-1])) * 1.02
    inside: Floats = np.sqrt(y[:, None] ** 2 + x[None, :] ** 2)
    return np.asarray(inside < radius)
