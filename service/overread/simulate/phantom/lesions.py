"""What may be wrong in a generated lung: nodules and masses, and the changes that must not be taken for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from overread.simulate.phantom.canvas import WHOLE, Canvas, Mask, Point
from overread.simulate.phantom.thorax import LEFT_LUNG, RIGHT_LUNG

NODULE = 4


@dataclass(frozen=True)
class Nodule:
    """One generated nodule: ``centre`` (z, y, x) in mm in the patient's warped frame, mean ``diameter_mm``, ``hu``."""

    centre: Point
    diameter_mm: float
    hu: float


def paint_lung_changes(canvas: Canvas) -> None:
    """Emphysema, ground glass, consolidation and effusion, each in some patients only."""
    rng = canvas.rng
    lung = _lung(canvas)
    if rng.random() < 0.25:
        canvas.paint(WHOLE, lung & (canvas.noise(10, 1) > rng.uniform(0.6, 1.4)), float(rng.uniform(-1000, -940)))
    if rng.random() < 0.3:
        patch = (canvas.noise(35, 1) + canvas.noise(9, 0.5)) > rng.uniform(0.9, 1.8)
        canvas.hu[lung & patch] += np.float32(rng.uniform(80, 350))
    if rng.random() < 0.2:
        patch = (canvas.noise(40, 1) + canvas.noise(12, 0.4)) > rng.uniform(1.3, 2.0)
        canvas.paint(WHOLE, lung & patch, float(rng.uniform(-20, 70)) + canvas.noise(6, 40))
    if rng.random() < 0.15:
        level = float(np.percentile(canvas.y[lung], rng.uniform(80, 97))) if lung.any() else np.inf
        side = canvas.label == int(rng.integers(LEFT_LUNG, RIGHT_LUNG + 1))
        canvas.paint(WHOLE, side & (canvas.y > level), float(rng.uniform(0, 30)), 0)


def paint_nodules(canvas: Canvas, count: int, diameters_mm: tuple[float, float]) -> list[Nodule]:
    """Paint up to ``count`` nodules anywhere in the lungs, juxtapleural ones included, and say what was painted."""
    rng = canvas.rng
    places = np.argwhere(_lung(canvas))
    if len(places) == 0:
        return []
    painted = []
    for place in places[rng.integers(0, len(places), count)]:
        at = tuple(place.tolist())
        centre = (float(canvas.z[at]), float(canvas.y[at]), float(canvas.x[at]))
        low, high = np.log(diameters_mm[0]), np.log(diameters_mm[1])
        painted.append(_paint_nodule(canvas, centre, float(np.exp(rng.uniform(low, high)))))
    return painted


def _paint_nodule(canvas: Canvas, centre: Point, diameter: float) -> Nodule:
    rng = canvas.rng
    solid = rng.random() < 0.85
    hu = float(rng.uniform(-60, 140) if solid else rng.uniform(-500, -250))
    if rng.random() < 0.06:
        hu = float(rng.uniform(200, 500))
    stretch = rng.uniform(0.8, 1.25, 3)
    radii = tuple((diameter / 2 * stretch / np.cbrt(stretch.prod())).tolist())
    reach = tuple(r * 1.5 for r in radii)
    box, r = canvas.ellipsoid(centre, reach)
    r = r * 1.5 + canvas.noise(max(4.0, diameter / 3), rng.uniform(0.02, 0.14), box)
    inside = (r < 1) & _is_lung(canvas.label[box])
    canvas.paint(box, inside, hu + canvas.noise(4, 12, box), NODULE)
    return Nodule(centre, diameter, hu)


def _is_lung(label: np.ndarray) -> Mask:
    return np.asarray((label == LEFT_LUNG) | (label == RIGHT_LUNG))


def _lung(canvas: Canvas) -> Mask:
    return _is_lung(canvas.label)
