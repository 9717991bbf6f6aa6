"""The build of one generated patient, and what surrounds the chest: trunk, arms, abdomen, table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from overread.simulate.phantom.canvas import WHOLE, Canvas, Floats

LEFT, RIGHT = 1, -1


@dataclass(frozen=True)
class Build:
    """Shared geometry of one patient; lengths in mm, positions in LPS about the middle of the chest.

    ``half_width`` and ``half_depth`` are those of the pleural cavity at its widest; ``spine_y`` the centre of the
    vertebral bodies; ``dome_z`` the top of the right and left hemidiaphragm; ``contrast_hu`` the blood's HU.
    """

    half_width: float
    half_depth: float
    apex_z: float
    widest_z: float
    spine_y: float
    midline_x: float
    dome_z: tuple[float, float]
    fat_mm: float
    wall_mm: float
    blood_hu: float
    heart_hu: float
    arms_down: bool


def sample_build(rng: np.random.Generator) -> Build:
    """Draw a patient."""
    size = rng.uniform(0.84, 1.12)
    half_depth = size * rng.uniform(76, 100)
    phase = rng.choice(["plain", "venous", "arterial"], p=[0.4, 0.25, 0.35])
    blood = {"plain": rng.uniform(30, 55), "venous": rng.uniform(110, 220), "arterial": rng.uniform(220, 520)}[phase]
    dome = rng.uniform(-95, -45)
    return Build(
        half_width=size * rng.uniform(118, 142),
        half_depth=half_depth,
        apex_z=size * rng.uniform(105, 130),
        widest_z=rng.uniform(-50, 5),
        spine_y=half_depth * rng.uniform(0.55, 0.72),
        midline_x=rng.uniform(-4, 8),
        dome_z=(dome, dome - rng.uniform(-5, 25)),
        fat_mm=float(rng.choice([rng.uniform(3, 15), rng.uniform(15, 45)])),
        wall_mm=rng.uniform(14, 26),
        blood_hu=float(blood),
        heart_hu=float(blood * rng.uniform(0.75, 1.05)),
        arms_down=bool(rng.random() < 0.2),
    )


def cage_radius(canvas: Canvas, build: Build) -> Floats:
    """Normalised radius of the pleural cavity, (slices, rows, columns): 1 on the parietal pleura."""
    above = np.clip((canvas.z - build.widest_z) / (build.apex_z - build.widest_z), 0, 0.999)
    below = np.clip((build.widest_z - canvas.z) / 260.0, 0, 1)
    taper = (1 - above**2.3) ** (1 / 2.1) * (1 - 0.45 * below**2)
    r = (np.abs(canvas.x) / build.half_width) ** 2.2 + (np.abs(canvas.y) / build.half_depth) ** 2.2
    return np.asarray(r ** (1 / 2.2) / np.maximum(taper, 0.05), np.float32)


def paint_surroundings(canvas: Canvas, build: Build) -> None:
    """Table and blanket under the patient: bright thin shells that must never be called bone."""
    rng = canvas.rng
    _, y, x = canvas.axes
    back = build.half_depth + build.wall_mm + build.fat_mm
    sag = back + rng.uniform(0, 18) - (x[None, :] / rng.uniform(260, 420)) ** 2 * 120
    depth = y[:, None] - sag
    thick = rng.uniform(12, 45)
    inside = np.broadcast_to((depth > 0) & (depth < thick), canvas.hu.shape)
    shell = np.broadcast_to(((depth > 0) & (depth < 3)) | (np.abs(depth - thick) < 2), canvas.hu.shape)
    canvas.paint(WHOLE, inside, float(rng.uniform(-980, -850)))
    canvas.paint(WHOLE, shell, float(rng.uniform(-700, 350)))


def paint_trunk(canvas: Canvas, build: Build) -> None:
    """Skin, subcutaneous fat and the muscular wall as one superellipse that widens to the shoulders."""
    rng = canvas.rng
    shoulders = 1 + 0.25 * np.clip((canvas.z - 40) / 90, 0, 1) * (1.3 if build.arms_down else 0.6)
    neck = 1 - 0.65 * np.clip((canvas.z - build.apex_z - 5) / 60, 0, 1)
    fat = build.fat_mm + canvas.noise(60, build.fat_mm * 0.12)
    wide = (build.half_width + build.wall_mm) * shoulders * neck
    deep = (build.half_depth + build.wall_mm * 1.1) * np.maximum(neck, 0.6)
    power = float(rng.uniform(2.2, 2.8))
    outer = (np.abs(canvas.x) / (wide + fat)) ** power + (np.abs(canvas.y) / (deep + fat)) ** power
    inner = (np.abs(canvas.x) / wide) ** power + (np.abs(canvas.y) / deep) ** power
    canvas.paint(WHOLE, outer < 1, float(rng.uniform(-118, -88)) + canvas.noise(12, 10))
    canvas.paint(WHOLE, (outer < 1) & (outer > 0.97), float(rng.uniform(-40, 40)))
    streaks = canvas.noise(16, 1) > rng.uniform(0.9, 1.8)
    canvas.paint(WHOLE, inner < 1, float(rng.uniform(30, 65)) + canvas.noise(8, 8))
    canvas.paint(WHOLE, (inner < 1) & streaks, float(rng.uniform(-105, -60)))
    _paint_breasts(canvas, build)
    _paint_arms(canvas, build)


def _paint_breasts(canvas: Canvas, build: Build) -> None:
    rng = canvas.rng
    if rng.random() < 0.5:
        return
    size = rng.uniform(35, 75)
    for side in (LEFT, RIGHT):
        centre = (rng.uniform(-40, 10), -build.half_depth - build.wall_mm - size * 0.2, side * build.half_width * 0.55)
        box, r = canvas.ellipsoid(centre, (size, size * 0.7, size))
        gland = canvas.noise(18, 60, box) + rng.uniform(-90, -20)
        canvas.paint(box, (r < 1) & (canvas.hu[box] < -150), gland)


def _paint_arms(canvas: Canvas, build: Build) -> None:
    rng = canvas.rng
    if not build.arms_down:
        return
    for side in (LEFT, RIGHT):
        x = side * (build.half_width + build.wall_mm + build.fat_mm + rng.uniform(25, 45))
        top, bottom = (100.0, float(rng.uniform(-10, 20)), x), (-200.0, float(rng.uniform(-30, 40)), x * 1.05)
        box, r = canvas.capsule(top, bottom, float(rng.uniform(34, 48)))
        canvas.paint(box, r < 1, float(rng.uniform(-110, -90)))
        canvas.paint(box, r < 0.8, float(rng.uniform(35, 60)))


def dome_height(canvas: Canvas, build: Build) -> Floats:
    """Height of the diaphragm above or below each voxel's (y, x), in mm on the z axis."""
    left = canvas.x > build.midline_x
    top = np.where(left, build.dome_z[1], build.dome_z[0])
    centre = np.where(left, 0.5, -0.5) * build.half_width
    across = ((canvas.x - centre) / (0.55 * build.half_width)) ** 2
    along = ((canvas.y + 0.15 * build.half_depth) / (0.95 * build.half_depth)) ** 2
    return np.asarray(top - 38 * across - 48 * along, np.float32)


def paint_abdomen(canvas: Canvas, build: Build, inside: np.ndarray) -> None:
    """Liver, spleen, stomach, kidneys and bowel gas below the domes, in a bed of fat."""
    rng = canvas.rng
    canvas.paint(WHOLE, inside, float(rng.uniform(-110, -85)) + canvas.noise(14, 12))
    enhanced = max(0.0, build.blood_hu - 50) * 0.3
    w, d = build.half_width, build.half_depth
    top_right, top_left = build.dome_z
    organs = [
        ((top_right - 75, -0.1 * d, -0.42 * w), (78, 0.95 * d, 0.75 * w), rng.uniform(35, 68) + enhanced),
        ((top_right - 45, -0.45 * d, 0.05 * w), (42, 0.45 * d, 0.5 * w), rng.uniform(35, 68) + enhanced),
        ((top_left - 50, 0.4 * d, 0.7 * w), (50, 0.42 * d, 0.25 * w), rng.uniform(38, 60) + enhanced * 1.2),
        ((top_left - 45, -0.25 * d, 0.5 * w), (52, 0.5 * d, 0.34 * w), rng.uniform(0, 60)),
        ((top_left - 125, 0.6 * d, 0.42 * w), (52, 0.26 * d, 0.2 * w), rng.uniform(25, 45) + enhanced * 1.8),
        ((top_right - 140, 0.6 * d, -0.45 * w), (52, 0.26 * d, 0.2 * w), rng.uniform(25, 45) + enhanced * 1.8),
    ]
    for centre, radii, hu in organs:
        box, r = canvas.ellipsoid(centre, radii)
        canvas.paint(box, (r < 1) & inside[box], float(hu) + canvas.noise(10, 5, box))
    _paint_gas(canvas, build, inside)


def _paint_gas(canvas: Canvas, build: Build, inside: np.ndarray) -> None:
    """Gas in stomach and bowel: black, inside the body, and not lung."""
    rng = canvas.rng
    for _ in range(int(rng.integers(2, 9))):
        centre = (
            min(build.dome_z) - rng.uniform(10, 160),
            rng.uniform(-0.8, 0.3) * build.half_depth,
            rng.uniform(-0.3, 0.85) * build.half_width,
        )
        radii = tuple(rng.uniform(6, 28, 3).tolist())
        box, r = canvas.ellipsoid(centre, radii)
        where = inside[box]
        canvas.paint(box, (r < 1.2) & where, float(rng.uniform(20, 60)))
        canvas.paint(box, (r < 1) & where, float(rng.uniform(-1010, -900)))
