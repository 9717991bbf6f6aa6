"""Every voxel lies where its header says: all 48 axis orders and flips, oblique, anisotropic, in one file or many."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from slices import CT, ENHANCED_CT, base, groups, place, placed, stored

from overread.load.series import load
from overread.spool import Spool

SHAPE = (3, 4, 5)  # slices, rows, columns
PIXEL_MM, SLICE_MM = (0.7, 1.3), 2.9
ORIGIN = np.array([-31.5, 12.25, 101.0])
AXES = np.eye(3)
ORDERS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]


def turned() -> np.ndarray:
    a, b, c = 0.3, -0.5, 0.2
    x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    return x @ y @ z


def positions(row: np.ndarray, column: np.ndarray, along: np.ndarray) -> list[np.ndarray]:
    return [ORIGIN + k * SLICE_MM * along for k in range(SHAPE[0])]


def check(spool: Spool, instances: list, origins: list[np.ndarray], row: np.ndarray, column: np.ndarray) -> None:
    """Each voxel has a value of its own, which says which pixel of which slice it was."""
    volume = load(spool, instances)
    values = volume.voxels.astype(int)
    assert sorted(values.ravel()) == list(range(math.prod(SHAPE)))
    for index in np.ndindex(*volume.voxels.shape):
        k, r, c = np.unravel_index(values[index], SHAPE)
        expected = origins[k] + row * PIXEL_MM[1] * c + column * PIXEL_MM[0] * r
        found = (volume.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("oblique", [False, True], ids=["upright", "oblique"])
@pytest.mark.parametrize("enhanced", [False, True], ids=["single frames", "enhanced"])
@pytest.mark.parametrize(("order", "signs"), ORDERS)
def test_the_volume_lands_exactly(
    tmp_path: Path, spool: Spool, order: tuple, signs: tuple, *, enhanced: bool, oblique: bool
) -> None:
    turn = turned() if oblique else np.eye(3)
    row, column, along = (turn @ (AXES[axis] * sign) for axis, sign in zip(order, signs, strict=True))
    origins = positions(row, column, along)
    pixels = np.arange(math.prod(SHAPE), dtype="<u2").reshape(SHAPE)
    shuffled = [2, 0, 1]  # neither files nor frames come in order
    if enhanced:
        ds = base(1, pixels[shuffled], ENHANCED_CT, "CT", NumberOfFrames=SHAPE[0])
        ds.PerFrameFunctionalGroupsSequence = groups([placed(origins[k], row, column, PIXEL_MM) for k in shuffled])
        datasets = [ds]
    else:
        datasets = [base(k + 1, pixels[k], CT, "CT") for k in shuffled]
        for ds, k in zip(datasets, shuffled, strict=True):
            place(ds, origins[k], row, column, PIXEL_MM)
    check(spool, stored(tmp_path / "in", datasets), origins, row, column)


@pytest.mark.parametrize("enhanced", [False, True], ids=["single frames", "enhanced"])
def test_a_tilted_gantry_lands_exactly_where_a_card_allows_it(tmp_path: Path, spool: Spool, enhanced: bool) -> None:
    """The affine is sheared like the scan: no voxel is moved."""
    from overread.domain.card import Accepts

    lean = math.tan(math.radians(14))
    along = np.array([0.0, lean, 1.0])
    origins = positions(AXES[0], AXES[1], along)
    pixels = np.arange(math.prod(SHAPE), dtype="<u2").reshape(SHAPE)
    if enhanced:
        ds = base(1, pixels, ENHANCED_CT, "CT", NumberOfFrames=SHAPE[0])
        ds.PerFrameFunctionalGroupsSequence = groups([placed(p, AXES[0], AXES[1], PIXEL_MM) for p in origins])
        datasets = [ds]
    else:
        datasets = [base(k + 1, pixels[k], CT, "CT") for k in range(3)]
        for ds, origin in zip(datasets, origins, strict=True):
            place(ds, origin, AXES[0], AXES[1], PIXEL_MM)
    volume = load(spool, stored(tmp_path / "in", datasets), Accepts("CT", max_tilt_deg=20))
    for index in np.ndindex(*SHAPE):
        expected = origins[index[0]] + [PIXEL_MM[1] * index[2], PIXEL_MM[0] * index[1], 0]
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], expected, atol=2e-6)
