"""Several series on one grid: exactly, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from overread.domain.errors import Unfit
from overread.domain.geometry import stack
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.load.align import align, resample

Headers = Callable[..., list[Instance]]


def ramp(headers: list[Instance]) -> Volume:
    """Each voxel has the value x + 10 y + 100 z of its place in the patient, in mm."""
    stacked = stack(headers)
    index = np.moveaxis(np.indices(stacked.shape), 0, -1)
    points = index @ stacked.affine[:3, :3].T + stacked.affine[:3, 3]
    return Volume((points @ [1.0, 10.0, 100.0]).astype(np.float32), stacked, tuple(i.path for i in headers))


def test_a_ramp_stays_a_ramp(ct_headers: Headers) -> None:
    """Other spacing, other origin, other orientation: linear interpolation of a linear function is exact."""
    first = ramp(ct_headers(8, spacing=2.0, pixel=(1.0, 1.0), rows=10, columns=12))
    lean = np.radians(10)
    other = ramp(
        ct_headers(
            30,
            spacing=1.5,
            pixel=(0.9, 0.8),
            origin=(-25.0, -35.0, 90.0),
            row=(float(np.cos(lean)), float(np.sin(lean)), 0.0),
            column=(float(-np.sin(lean)), float(np.cos(lean)), 0.0),
            rows=60,
            columns=60,
            series=3,
        )
    )
    _, moved = align([first, other], ["CT", "PET"])
    assert moved.voxels.shape == first.voxels.shape
    np.testing.assert_allclose(moved.affine, first.affine)
    np.testing.assert_allclose(moved.voxels, first.voxels, rtol=1e-4, atol=0.02)


def test_what_lies_on_the_grid_already_is_left_alone(ct_headers: Headers) -> None:
    first, other = ramp(ct_headers(8)), ramp(ct_headers(8, series=3))
    assert align([first, other])[1] is other


@pytest.mark.parametrize("uid", ["", "1.2.3"])
def test_another_frame_of_reference_is_refused(ct_headers: Headers, uid: str) -> None:
    """Also an empty one: nothing says that two of them are the same."""
    first = ramp(ct_headers(8, frame_of_reference_uid=uid and "1.2.4"))
    other = ramp(ct_headers(8, series=3, frame_of_reference_uid=uid))
    with pytest.raises(Unfit, match="CT and PET do not share a frame of reference"):
        align([first, other], ["CT", "PET"])


def test_a_film_has_no_place_among_others(ct_headers: Headers) -> None:
    first = ramp(ct_headers(8))
    film = replace(first, stack=replace(first.stack, placed=False))
    with pytest.raises(Unfit, match="frame of reference"):
        align([first, film])


def test_series_that_hardly_overlap_are_refused(ct_headers: Headers) -> None:
    far = ramp(ct_headers(8, origin=(-10.0, -20.0, 300.0), series=3))
    with pytest.raises(Unfit, match=r"CT and PET hardly overlap: 0% of the first lies within the second"):
        align([ramp(ct_headers(8)), far], ["CT", "PET"])


def test_a_mask_keeps_its_values() -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    mask[1:3] = 7
    half = np.diag([0.5, 0.5, 0.5, 1.0])
    found = resample(mask, half, (8, 8, 8), order=0)
    assert (found.dtype, set(np.unique(found))) == (np.uint8, {0, 7})
