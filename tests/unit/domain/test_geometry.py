"""Slices become a stack, or there is a reason why not."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from overread.domain.errors import Unfit
from overread.domain.geometry import plane_of, stack
from overread.domain.study import Instance

Headers = Callable[..., list[Instance]]
ANGLE = np.radians(20)
OBLIQUE = {"row": (np.cos(ANGLE), np.sin(ANGLE), 0.0), "column": (-np.sin(ANGLE), np.cos(ANGLE), 0.0)}
CORONAL = {"row": (1.0, 0.0, 0.0), "column": (0.0, 0.0, -1.0)}


def field_formula(ordered: tuple[Instance, ...]) -> np.ndarray:
    """The affine as FIELD.md writes it, columns (slice, row, column)."""
    first, last = ordered[0], ordered[-1]
    affine = np.eye(4)
    affine[:3, 0] = (np.array(last.position) - np.array(first.position)) / (len(ordered) - 1)
    affine[:3, 1] = np.array(first.orientation[3:]) * first.pixel_spacing[0]
    affine[:3, 2] = np.array(first.orientation[:3]) * first.pixel_spacing[1]
    affine[:3, 3] = first.position
    return affine


def moved(instances: list[Instance], k: int, by: tuple[float, float, float]) -> list[Instance]:
    position = tuple(map(float, np.array(instances[k].position) + by))
    return [*instances[:k], replace(instances[k], position=position), *instances[k + 1 :]]


def refusal(instances: list[Instance]) -> str:
    with pytest.raises(Unfit) as caught:
        stack(instances)
    return str(caught.value)


@pytest.mark.parametrize("orientation", [{}, OBLIQUE, CORONAL], ids=["axial", "oblique", "coronal"])
@pytest.mark.parametrize("direction", [1, -1, 0], ids=["in order", "reversed", "shuffled"])
def test_slices_in_any_order_give_the_same_affine(ct_headers: Headers, orientation: dict, direction: int) -> None:
    instances = ct_headers(9, **orientation)
    came = instances[::direction] if direction else random.Random(3).sample(instances, 9)
    made = stack(came)
    assert [i.instance_number for i in made.instances] == list(range(1, 10))
    np.testing.assert_allclose(made.affine, field_formula(made.instances), atol=1e-9)


@pytest.mark.parametrize("orientation", [{}, OBLIQUE, CORONAL], ids=["axial", "oblique", "coronal"])
def test_the_affine_puts_a_pixel_where_the_standard_puts_it(ct_headers: Headers, orientation: dict) -> None:
    """PS3.3 Equation C.7.6.2.1-1, with row and column spacings that differ."""
    made = stack(ct_headers(6, pixel=(0.5, 1.5), **orientation))
    for k, row, column in [(0, 0, 0), (3, 4, 1), (5, 1, 4)]:
        source = made.instances[k]
        x, y = np.array(source.orientation[:3]), np.array(source.orientation[3:])
        expected = np.array(source.position) + x * 1.5 * column + y * 0.5 * row
        np.testing.assert_allclose((made.affine @ [k, row, column, 1])[:3], expected, atol=1e-9)
    assert made.spacing_mm == pytest.approx((2.5, 0.5, 1.5))
    assert made.shape == (6, 6, 5)


def test_the_digest_names_content_and_order_of_the_input(ct_headers: Headers) -> None:
    instances = ct_headers(5)
    usual = stack(instances).digest()
    assert stack(instances[::-1]).digest() == usual
    assert stack(instances[:4]).digest() != usual
    assert stack([*instances[:4], replace(instances[4], digest="other")]).digest() != usual


def test_a_gap_is_named_with_its_place(ct_headers: Headers) -> None:
    instances = ct_headers(10)
    assert refusal([*instances[:4], *instances[5:]]) == (
        "slices are missing or the spacing is irregular: 5.00 mm between slices 4 and 5, 2.50 mm elsewhere"
    )


def test_slices_further_apart_than_thick_are_no_gap(ct_headers: Headers) -> None:
    assert stack(ct_headers(8, spacing=8.75, slice_thickness=7.0)).spacing_mm[0] == pytest.approx(8.75)


def test_repeated_positions_are_refused(ct_headers: Headers) -> None:
    again = [replace(i, sop_instance_uid=f"{i.sop_instance_uid}.9") for i in ct_headers(6)]
    assert refusal([*ct_headers(6), *again]) == "6 slices repeat a position (several phases or time points)"


def test_a_tilted_gantry_is_refused_with_its_angle(ct_headers: Headers) -> None:
    lean = np.tan(np.radians(12)) * 2.5
    tilted = [
        replace(i, position=(i.position[0], i.position[1] + k * lean, i.position[2]))
        for k, i in enumerate(ct_headers(8))
    ]
    assert refusal(tilted) == "the stack is sheared by 12.0° (gantry tilt)"


def test_mixed_orientations_are_refused(ct_headers: Headers) -> None:
    assert "ImageOrientationPatient differs between the slices" in refusal(
        [*ct_headers(4), *ct_headers(4, series=3, **CORONAL)]
    )


def test_positions_may_jitter_as_much_as_rounding_makes_them(ct_headers: Headers) -> None:
    assert stack(moved(ct_headers(10), 4, (0.01, -0.01, 0.01))).shape == (10, 6, 5)


def test_a_slice_beside_the_others_is_refused(ct_headers: Headers) -> None:
    """Order and spacing are right; its pixels would land 30 mm off all the same."""
    assert refusal(moved(ct_headers(10), 4, (30.0, 0.0, 0.0))) == (
        "the stack is crooked: slice 5 lies 30.00 mm beside its place"
    )


def test_irregular_spacing_is_refused(ct_headers: Headers) -> None:
    assert refusal(moved(ct_headers(10), 4, (0.0, 0.0, 0.4))).startswith("the spacing is irregular: 2.90 mm")


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ({"position": ()}, "1 of 5 slices have no usable ImagePositionPatient"),
        ({"position": (1.0, 2.0)}, "1 of 5 slices have no usable ImagePositionPatient"),
        ({"orientation": ()}, "1 of 5 slices have no usable ImageOrientationPatient"),
        ({"pixel_spacing": ()}, "1 of 5 slices have no usable PixelSpacing"),
        ({"pixel_spacing": (0.0, 0.9)}, "PixelSpacing is not positive"),
        ({"position": (float("nan"), 0.0, 0.0)}, "a position, orientation or spacing is no finite number"),
        ({"rows": None}, "Rows or Columns is missing"),
        ({"columns": 0}, "Rows or Columns is missing"),
        ({"rows": 7}, "Rows differs between the slices (2 values in 5 slices)"),
        ({"columns": 7}, "Columns differs between the slices (2 values in 5 slices)"),
        ({"pixel_spacing": (0.7, 0.8)}, "PixelSpacing differs between the slices (2 values in 5 slices)"),
        ({"frame_of_reference_uid": "1.2"}, "FrameOfReferenceUID differs between the slices (2 values in 5 slices)"),
        ({"number_of_frames": 4}, "multi-frame instances cannot be stacked slice by slice"),
    ],
)
def test_one_slice_that_does_not_fit_is_named(ct_headers: Headers, lacking: dict, reason: str) -> None:
    instances = ct_headers(5)
    assert refusal([*instances[:2], replace(instances[2], **lacking), *instances[3:]]) == reason


def test_directions_that_are_no_unit_vectors_are_refused(ct_headers: Headers) -> None:
    skewed = [replace(i, orientation=(1.0, 0.0, 0.0, 0.5, 0.5, 0.0)) for i in ct_headers(4)]
    assert refusal(skewed) == "ImageOrientationPatient is not a pair of orthogonal unit vectors"


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_slices_are_no_volume(ct_headers: Headers, count: int) -> None:
    assert refusal(ct_headers(count)) == f"{count} slice is no volume"


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        ((1, 0, 0, 0, 1, 0), "axial"),
        ((-1, 0, 0, 0, -1, 0), "axial"),
        ((1, 0, 0, 0, 0, -1), "coronal"),
        ((0, 1, 0, 0, 0, -1), "sagittal"),
        ((1, 0, 0, 0, np.cos(np.radians(20)), np.sin(np.radians(20))), "axial"),
        ((1, 0, 0, 0, np.cos(np.radians(40)), np.sin(np.radians(40))), "oblique"),
        ((), "unknown"),
    ],
)
def test_the_plane_is_named_within_25_degrees(ct_headers: Headers, orientation: tuple, plane: str) -> None:
    assert plane_of(replace(ct_headers(1)[0], orientation=tuple(map(float, orientation)))) == plane
