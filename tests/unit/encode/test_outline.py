"""Outlines follow pixel edges, close, stay in the image and are short enough to draw."""

from __future__ import annotations

import numpy as np
import pytest

from overread.encode.outline import key_outlines, outline


def area(points: np.ndarray) -> float:
    x, y = points.T
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1])) / 2


def test_one_pixel_is_its_four_corners() -> None:
    plane = np.zeros((5, 7), bool)
    plane[2, 4] = True
    assert outline(plane).tolist() == [[4, 2], [5, 2], [5, 3], [4, 3], [4, 2]]


def test_a_whole_image_is_outlined_by_its_border() -> None:
    assert outline(np.ones((5, 7), bool)).tolist() == [[0, 0], [7, 0], [7, 5], [0, 5], [0, 0]]


@pytest.mark.parametrize("seed", range(8))
def test_the_outline_encloses_the_largest_part_and_its_holes(seed: int) -> None:
    from scipy import ndimage

    plane = np.random.default_rng(seed).random((24, 31)) > 0.45
    numbered, _ = ndimage.label(plane)
    largest = numbered == np.bincount(numbered.ravel())[1:].argmax() + 1
    filled = ndimage.binary_fill_holes(largest, np.ones((3, 3)))  # what is outside may slip in at corners
    assert area(outline(plane, 10_000)) == filled.sum()


def test_a_hole_is_not_drawn_and_a_smaller_part_is_left_out() -> None:
    plane = np.zeros((12, 12), bool)
    plane[1:8, 1:8] = True
    plane[3:5, 3:5] = False
    plane[10:12, 10:12] = True
    assert area(outline(plane)) == 49


def test_pixels_that_touch_at_a_corner_are_two_parts() -> None:
    plane = np.zeros((6, 6), bool)
    plane[0:2, 0:2] = plane[2, 2] = True
    assert area(outline(plane)) == 4


def test_a_long_outline_is_thinned_and_keeps_its_shape() -> None:
    rows, columns = np.ogrid[:400, :400]
    radius = np.hypot(rows - 200, columns - 200)
    plane = radius < 150 + 25 * np.sin(7 * np.arctan2(rows - 200, columns - 200))
    full, thinned = outline(plane, 10_000), outline(plane)
    assert len(full) > 600
    assert len(thinned) <= 200
    assert (thinned[0] == thinned[-1]).all()
    assert {tuple(p) for p in thinned} <= {tuple(p) for p in full}
    assert area(thinned) == pytest.approx(plane.sum(), rel=0.01)


def test_key_outlines_lie_on_the_slice_with_the_largest_area() -> None:
    mask = np.zeros((4, 8, 9), np.uint8)
    mask[1, 2:4, 3:6] = 2
    mask[3, 5:8, 5:9] = 2
    mask[0, 0, 0] = 1
    found = key_outlines(mask)
    assert sorted(found) == [1, 2]
    k, points = found[2]
    assert k == 3
    assert points.tolist() == [[5, 5], [9, 5], [9, 8], [5, 8], [5, 5]]
