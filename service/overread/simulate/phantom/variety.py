"""What patients bring besides lungs and nodules: raised arms, other bone, plaques, more vessels, odd nodules.

Drawn from a generator of its own, so that a phantom of a seed keeps its build, its organs and its nodules.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from overread.simulate.phantom.body import LEFT, RIGHT, Build
from overread.simulate.phantom.canvas import WHOLE, Canvas, Point
from overread.simulate.phantom.lesions import NODULE, Nodule
from overread.simulate.phantom.skeleton import BONE
from overread.simulate.phantom.thorax import LEFT_LUNG, RIGHT_LUNG, grow

SOFT_HU = (-50.0, 600.0)


def paint_variety(canvas: Canvas, build: Build, nodules: Sequence[Nodule]) -> None:
    """Paint each of these into some patients; ``canvas.rng`` says which."""
    rng = canvas.rng
    if not build.arms_down and rng.random() < 0.7:
        _raised_arms(canvas, build)
    if rng.random() < 0.6:
        _bone_density(canvas)
    if rng.random() < 0.5:
        _plaques(canvas)
    if rng.random() < 0.5:
        _more_vessels(canvas, build)
    for nodule in nodules:
        if nodule.diameter_mm > 9:
            _odd_nodule(canvas, nodule)


def _raised_arms(canvas: Canvas, build: Build) -> None:
    """Flesh, humeral heads and shafts beside the neck, as in a patient whose arms lie above the head."""
    rng = canvas.rng
    for side in (LEFT, RIGHT):
        x = side * (build.half_width + build.wall_mm + float(rng.uniform(-5, 25)))
        head: Point = (build.apex_z + float(rng.uniform(-15, 20)), float(rng.uniform(-10, 25)), x)
        elbow: Point = (head[0] + 160.0, head[1] - float(rng.uniform(0, 60)), x * float(rng.uniform(0.9, 1.5)))
        box, r = canvas.capsule(head, elbow, float(rng.uniform(38, 52)))
        bare = (r < 1) & (canvas.label[box] == 0) & (canvas.hu[box] < -60)
        canvas.paint(box, bare, float(rng.uniform(-110, -90)))
        canvas.paint(box, bare & (r < 0.8), float(rng.uniform(30, 60)))
        cortex, marrow = float(rng.uniform(250, 900)), float(rng.uniform(-40, 220))
        for end, radius in ((head, float(rng.uniform(18, 25))), (elbow, float(rng.uniform(9, 13)))):
            box, r = canvas.capsule(head, (end[0] + 4, end[1], end[2]), radius)
            canvas.paint(box, (r < 1) & (canvas.label[box] == 0), cortex, BONE)
            canvas.paint(box, (r < 0.85) & (canvas.label[box] == BONE), marrow + canvas.noise(5, 20, box), BONE)


def _bone_density(canvas: Canvas) -> None:
    """Brittle, coarse or patchy marrow; the truth stays bone."""
    rng, bone = canvas.rng, canvas.label == BONE
    marrow = bone & (canvas.hu < 350)
    canvas.hu[marrow] *= np.float32(rng.uniform(0.3, 1.3))
    canvas.hu[bone] += (canvas.noise(5, float(rng.uniform(5, 50))))[bone]
    if rng.random() < 0.3:
        patch = bone & (canvas.noise(14, 1) > 1.6)
        canvas.paint(WHOLE, patch, float(rng.choice([rng.uniform(0, 60), rng.uniform(400, 1100)])), BONE)


def _plaques(canvas: Canvas) -> None:
    """Calcium in vessel walls, nodes and cartilage: as bright as bone, and none."""
    rng = canvas.rng
    low, high = SOFT_HU
    soft = np.argwhere((canvas.label == 0) & (canvas.hu > low) & (canvas.hu < high))
    if len(soft) == 0:
        return
    for z, y, x in soft[rng.integers(0, len(soft), int(rng.integers(2, 30)))]:
        centre = (float(canvas.z[z, y, x]), float(canvas.y[z, y, x]), float(canvas.x[z, y, x]))
        box, r = canvas.ellipsoid(centre, tuple(rng.uniform(1.5, 5, 3).tolist()))
        canvas.paint(box, (r < 1) & (canvas.label[box] == 0), float(rng.uniform(150, 900)))


def _more_vessels(canvas: Canvas, build: Build) -> None:
    rng = canvas.rng
    hu = build.blood_hu * float(rng.uniform(0.6, 1.1))
    for side in (LEFT, RIGHT):
        for _ in range(int(rng.integers(2, 7))):
            start = np.array([rng.uniform(-60, 60), rng.uniform(-30, 40), side * rng.uniform(35, 80)])
            way = rng.normal(0, 1, 3)
            grow(canvas, start, way / np.linalg.norm(way), float(rng.uniform(1.5, 3.5)), hu=hu, depth=4)


def _odd_nodule(canvas: Canvas, nodule: Nodule) -> None:
    """A cavity within, or spicules that reach into the lung around; spicules stay lung."""
    rng, radius = canvas.rng, nodule.diameter_mm / 2
    chance = rng.random()
    if chance < 0.1:
        box, r = canvas.ellipsoid(nodule.centre, (radius * 0.5,) * 3)
        canvas.paint(box, (r < 1) & (canvas.label[box] == NODULE), float(rng.uniform(-980, -850)), NODULE)
    elif chance < 0.35:
        for way in rng.normal(0, 1, (int(rng.integers(5, 14)), 3)):
            tip = np.array(nodule.centre) + way / np.linalg.norm(way) * radius * rng.uniform(1.3, 1.9)
            box, r = canvas.capsule(nodule.centre, tuple(tip.tolist()), float(rng.uniform(0.7, 1.4)))
            lung = (canvas.label[box] == LEFT_LUNG) | (canvas.label[box] == RIGHT_LUNG)
            canvas.paint(box, (r < 1) & lung, nodule.hu)
