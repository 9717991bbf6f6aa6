"""Generated chest CT with known truth: no patient, no licence, as many as wanted.

In the manner of domain randomisation (Billot et al., SynthSeg, Medical Image Analysis 2023): anatomy, densities and
the scanner are drawn anew for each seed, more widely than nature does, so that a network trained on nothing else
meets the real world as one more variation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.simulate.phantom.body import (
    Build,
    cage_radius,
    dome_height,
    paint_abdomen,
    paint_surroundings,
    paint_trunk,
    sample_build,
)
from overread.simulate.phantom.canvas import Canvas, Grid
from overread.simulate.phantom.lesions import NODULE, Nodule, paint_lung_changes, paint_nodules
from overread.simulate.phantom.scan import reconstruct
from overread.simulate.phantom.skeleton import BONE, Skeleton
from overread.simulate.phantom.thorax import (
    LEFT_LUNG,
    RIGHT_LUNG,
    mediastinum,
    paint_lungs,
    paint_mediastinum,
    paint_vessel_trees,
)
from overread.simulate.phantom.variety import paint_variety

__all__ = ["BONE", "LABELS", "LEFT_LUNG", "NODULE", "RIGHT_LUNG", "ChestPhantom", "Grid", "Nodule", "chest_phantom"]

LABELS = {LEFT_LUNG: "left lung", RIGHT_LUNG: "right lung", BONE: "bone", NODULE: "lung nodule"}
# Of the generator that draws what variety.py paints, beside the seed.
VARIETY = 1


@dataclass(frozen=True)
class ChestPhantom:
    """One generated chest CT.

    ``hu`` (slices, rows, columns) int16, HU; ``truth`` (slices, rows, columns) uint8, keys of ``LABELS``, 0 elsewhere;
    slices run towards the head, rows towards the back, columns towards the patient's left (LPS). ``grid`` gives the
    spacing; ``nodules`` what was painted.
    """

    hu: NDArray[np.int16]
    truth: NDArray[np.uint8]
    grid: Grid
    nodules: tuple[Nodule, ...]


def chest_phantom(
    seed: int,
    grid: Grid,
    *,
    nodules: int | None = None,
    nodule_diameters_mm: tuple[float, float] = (6.0, 40.0),
    noise_hu: float | None = None,
    healthy: bool = False,
) -> ChestPhantom:
    """Generate one chest CT with its truth; the same arguments always give the same voxels."""
    rng = np.random.default_rng(seed)
    canvas = Canvas(grid, rng, 0.0 if healthy else float(rng.normal(0, 0.07)))
    build = sample_build(rng)
    _paint_anatomy(canvas, build)
    if not healthy:
        paint_lung_changes(canvas)
    count = int(rng.integers(0, 9)) if nodules is None else nodules
    painted = paint_nodules(canvas, count, nodule_diameters_mm)
    if not healthy:
        with canvas.drawing_from(np.random.default_rng([seed, VARIETY])):
            paint_variety(canvas, build, painted)
    noise = float(np.exp(rng.uniform(np.log(4), np.log(90)))) if noise_hu is None else noise_hu
    hu = reconstruct(canvas, noise, circle=bool(rng.random() < 0.6))
    return ChestPhantom(hu, canvas.label, grid, tuple(painted))


def _paint_anatomy(canvas: Canvas, build: Build) -> None:
    cage = cage_radius(canvas, build)
    paint_surroundings(canvas, build)
    paint_trunk(canvas, build)
    above = canvas.z > dome_height(canvas, build)
    paint_abdomen(canvas, build, (cage < 1) & ~above)
    air = (cage < 1) & above
    middle = air & mediastinum(canvas, build)
    paint_lungs(canvas, build, air, middle)
    paint_mediastinum(canvas, build, middle)
    Skeleton(canvas, build).paint(cage)
    paint_vessel_trees(canvas, build)
