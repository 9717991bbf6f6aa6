"""What fills the rib cage: lungs with vessels and airways, mediastinum, heart and great vessels."""

from __future__ import annotations

import numpy as np

from overread.simulate.phantom.body import LEFT, RIGHT, Build
from overread.simulate.phantom.canvas import WHOLE, Canvas, Floats, Mask, Point

LEFT_LUNG, RIGHT_LUNG = 1, 2


def mediastinum(canvas: Canvas, build: Build) -> Mask:
    """Voxels of the cage that are not lung: spine, central column, septa and heart; (slices, rows, columns) bool."""
    rng, d = canvas.rng, build.half_depth
    x, y, z = canvas.x - build.midline_x, canvas.y, canvas.z
    wide = rng.uniform(22, 34) + 10 * np.clip((z - 60) / 60, 0, 1)
    front = -d * rng.uniform(0.45, 0.9)
    middle, half = (front + build.spine_y) / 2, (build.spine_y - front) / 2
    where = (np.abs(x) / wide) ** 3 + (np.abs(y - middle) / half) ** 3 < 1
    where |= (np.abs(x) / rng.uniform(21, 27)) ** 2 + ((y - build.spine_y) / rng.uniform(19, 24)) ** 2 < 1
    where |= (np.abs(x) < rng.uniform(14, 22)) & (y > build.spine_y)
    where |= np.abs(x + canvas.noise(50, 3)) < rng.uniform(2.5, 6)
    for side in (LEFT, RIGHT):
        box, r = canvas.ellipsoid((0.0, 8.0, side * 34.0), (22.0, 14.0, 16.0))
        where[box] |= r < 1
    box, r = heart(canvas, build, 1.12)
    where[box] |= r < 1
    return np.asarray(where)


def heart(canvas: Canvas, build: Build, scale: float) -> tuple[tuple[slice, slice, slice], Floats]:
    """Box and normalised radius of the heart; it sits on the left dome."""
    w, d = build.half_width, build.half_depth
    centre = (max(build.dome_z) + 28.0, -0.25 * d, 0.2 * w)
    return canvas.ellipsoid(centre, (47.0 * scale, 0.5 * d * scale, 0.43 * w * scale))


def paint_lungs(canvas: Canvas, build: Build, air: Mask, middle: Mask) -> None:
    """Parenchyma: density rises towards the back (gravity) and varies smoothly; left and right get their labels."""
    rng = canvas.rng
    base, slope = rng.uniform(-920, -760), rng.uniform(0, 0.6)
    hu = base + slope * canvas.y + canvas.noise(25, 18) + canvas.noise(7, rng.uniform(5, 25))
    left = canvas.x > build.midline_x
    canvas.paint(WHOLE, air & ~middle & left, hu, LEFT_LUNG)
    canvas.paint(WHOLE, air & ~middle & ~left, hu, RIGHT_LUNG)


def paint_mediastinum(canvas: Canvas, build: Build, where: Mask) -> None:
    """Fat and soft tissue, then heart, aorta, trunk, cava, oesophagus, nodes and airways."""
    rng = canvas.rng
    canvas.paint(WHOLE, where, float(rng.uniform(-100, 10)) + canvas.noise(12, 20))
    box, r = heart(canvas, build, 1.0)
    canvas.paint(box, r < 1, float(rng.uniform(35, 60)) + max(0.0, build.heart_hu - 50) * 0.3)
    for dz, dy, dx in ((0, 0.1, -0.5), (-6, -0.3, 0.1), (4, 0.25, 0.4), (20, 0.3, 0.0)):
        chamber, c = canvas.ellipsoid(
            (max(build.dome_z) + 26.0 + dz, build.half_depth * (dy * 0.6 - 0.22), build.half_width * (0.2 + dx * 0.4)),
            (27.0, 0.24 * build.half_depth, 0.2 * build.half_width),
        )
        canvas.paint(chamber, (c < 1) & (canvas.hu[chamber] > -200), float(build.heart_hu * rng.uniform(0.9, 1.1)))
    _paint_great_vessels(canvas, build)
    _paint_airways(canvas, build)


def _paint_great_vessels(canvas: Canvas, build: Build) -> None:
    rng, blood = canvas.rng, build.blood_hu
    back, arch = build.spine_y - 8, float(rng.uniform(40, 62))
    radius = float(rng.uniform(10, 17))
    low = max(build.dome_z)
    tubes: list[tuple[Point, Point, float, float]] = [
        ((low + 45, -18.0, 6.0), (arch, -26.0, -12.0), radius * 1.1, 1.0),
        ((arch, -26.0, -10.0), (arch + 8, 0.0, 8.0), radius, 1.0),
        ((arch + 8, 0.0, 8.0), (arch - 4, back, 24.0), radius, 1.0),
        ((arch - 4, back, 24.0), (-60.0, back + 4, 20.0), radius * 0.9, 1.0),
        ((-60.0, back + 4, 20.0), (-260.0, back, 8.0), radius * 0.8, 1.0),
        ((low + 50, -30.0, 22.0), (20.0, -8.0, 14.0), 13.0, rng.uniform(0.8, 1.2)),
        ((16.0, -4.0, 10.0), (8.0, 4.0, -34.0), 9.0, rng.uniform(0.8, 1.2)),
        ((16.0, -4.0, 14.0), (10.0, 8.0, 36.0), 9.0, rng.uniform(0.8, 1.2)),
        ((low + 40, -8.0, -24.0), (85.0, -14.0, -26.0), 9.0, rng.uniform(0.7, 2.2)),
        ((arch + 14, -8.0, 4.0), (130.0, -4.0, 20.0), 5.0, 1.0),
        ((arch + 14, -14.0, -6.0), (130.0, -6.0, -22.0), 5.5, 1.0),
        ((130.0, back - 16, 2.0), (-200.0, back - 14, 6.0), 6.0, 40.0 / blood),
    ]
    for start, end, r_mm, factor in tubes:
        box, r = canvas.capsule(start, end, r_mm)
        soft = (r < 1) & (canvas.label[box] == 0) & (canvas.hu[box] > -300)
        canvas.paint(box, soft, float(blood * factor))
    for _ in range(int(rng.integers(0, 7))):
        at = (rng.uniform(-20, 70), rng.uniform(-20, 25), rng.uniform(-35, 35))
        box, r = canvas.ellipsoid(at, tuple(rng.uniform(4, 12, 3).tolist()))
        canvas.paint(box, (r < 1) & (canvas.label[box] == 0), float(rng.uniform(25, 90)))


def _paint_airways(canvas: Canvas, build: Build) -> None:
    rng = canvas.rng
    carina: Point = (float(rng.uniform(18, 34)), build.spine_y - 34.0, 0.0)
    tubes = [
        ((170.0, build.spine_y - 48.0, 2.0), carina, float(rng.uniform(7, 10))),
        (carina, (carina[0] - 32, carina[1] + 4, -38.0), float(rng.uniform(5.5, 7.5))),
        (carina, (carina[0] - 38, carina[1] + 6, 42.0), float(rng.uniform(5, 7))),
        ((carina[0] - 30, carina[1] + 4, -34.0), (carina[0] - 70, carina[1] + 10, -46.0), 4.0),
        ((carina[0] - 36, carina[1] + 6, 40.0), (carina[0] - 76, carina[1] + 12, 52.0), 4.0),
    ]
    for start, end, radius in tubes:
        box, r = canvas.capsule(start, end, radius + 1.5)
        canvas.paint(box, r < 1, float(rng.uniform(0, 60)), 0)
    for start, end, radius in tubes:
        box, r = canvas.capsule(start, end, radius)
        canvas.paint(box, r < 1, float(rng.uniform(-1010, -950)), 0)


def paint_vessel_trees(canvas: Canvas, build: Build) -> None:
    """Pulmonary vessels from the hila outwards: what a nodule must be told from. They stay labelled as lung."""
    rng = canvas.rng
    hu = build.blood_hu * float(rng.uniform(0.6, 1.1))
    for side in (LEFT, RIGHT):
        for _ in range(int(rng.integers(5, 9))):
            start = np.array([rng.uniform(-18, 22), rng.uniform(-5, 22), side * rng.uniform(30, 42)])
            aim = np.array([rng.uniform(-1.3, 1.1), rng.uniform(-1, 1), side * rng.uniform(0.3, 1.2)])
            grow(canvas, start, aim / np.linalg.norm(aim), float(rng.uniform(2.8, 5.5)), hu=hu, depth=6)


def grow(canvas: Canvas, start: np.ndarray, way: np.ndarray, radius: float, *, hu: float, depth: int) -> None:
    """One vessel and its branches, mm, order z, y, x; painted into lung only."""
    rng = canvas.rng
    end = start + way * rng.uniform(12, 26)
    box, r = canvas.capsule(tuple(start.tolist()), tuple(end.tolist()), radius)
    lung = canvas.label[box]
    canvas.paint(box, (r < 1) & ((lung == LEFT_LUNG) | (lung == RIGHT_LUNG)), hu * min(1.0, 0.4 + radius / 3))
    if depth == 0 or radius < 0.7:
        return
    for _ in range(2 if rng.random() < 0.85 else 3):
        bend = way + rng.normal(0, 0.45, 3)
        grow(canvas, end, bend / np.linalg.norm(bend), radius * float(rng.uniform(0.62, 0.85)), hu=hu, depth=depth - 1)
