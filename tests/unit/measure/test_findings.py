"""From label maps to segments: components, noise, numbering, and numbers that can be worked out by hand."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from overread.domain.card import Accepts, Card, Label
from overread.domain.codes import ATTENUATION, HOUNSFIELD, INTENSITY, NO_UNITS, Code
from overread.domain.errors import CardError
from overread.domain.findings import Findings, Segment
from overread.domain.geometry import Stack
from overread.domain.reading import Box, Likelihood, Reading
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.measure import MEASURERS, measurers
from overread.measure.diameter import axes_mm
from overread.measure.findings import crop, find

SPACING_MM = (2.5, 0.5, 0.8)
LUNG = Label(1, "Lung", Code("39607008", "SCT", "Lung"))
NODULE = Label(4, "Nodule", Code("27925004", "SCT", "Nodule"), instances=True, diameters=True, most=3)


def volume_of(voxels: np.ndarray, modality: str = "CT") -> Volume:
    instances = tuple(
        Instance(f"1.2.{k}", "1.2", "1.3", "1.4", modality=modality, rows=voxels.shape[1], columns=voxels.shape[2])
        for k in range(len(voxels))
    )
    affine = np.diag([*SPACING_MM, 1.0])[[2, 1, 0, 3]]
    return Volume(voxels, Stack(instances, affine, SPACING_MM), tuple(f"/{k}" for k in range(len(voxels))))


def card_of(*labels: Label) -> Card:
    return Card("m", "1", "M", "us", "monai", "w", "00", Accepts("CT"), labels, Path("/m"))


def longest_of_chords(plane: np.ndarray, pixel_mm: tuple[float, float]) -> float:
    """The longest chord perpendicular to the long axis, by cutting the convex outline at many places."""
    centres = np.argwhere(plane)
    points = np.concatenate([centres + step for step in ((0, 0.5), (0, -0.5), (0.5, 0), (-0.5, 0))]) * pixel_mm
    corners = points[ConvexHull(points).vertices]
    a, b = max(itertools.combinations(corners, 2), key=lambda pair: float(np.linalg.norm(pair[0] - pair[1])))
    direction = (b - a) / np.linalg.norm(b - a)
    u, v = corners @ direction, corners @ np.array([-direction[1], direction[0]])
    longest = 0.0
    for cut in np.linspace(u.min(), u.max(), 4001)[1:-1]:
        ends = [
            v[i - 1] + (cut - u[i - 1]) / (u[i] - u[i - 1]) * (v[i] - v[i - 1])
            for i in range(len(u))
            if (u[i - 1] - cut) * (u[i] - cut) < 0
        ]
        longest = max(longest, max(ends, default=0.0) - min(ends, default=0.0))
    return longest


def read(label_map: np.ndarray, *labels: Label, modality: str = "CT") -> Findings:
    voxels = np.arange(label_map.size, dtype=np.int16).reshape(label_map.shape)
    return find(Reading(label_map), volume_of(voxels, modality), card_of(*labels))


def values(segment: Segment, code_value: str) -> list[float]:
    return [m.value for m in segment.measurements if m.name.value == code_value]


def test_volume_is_voxels_times_voxel_volume() -> None:
    label_map = np.zeros((4, 8, 8), np.uint8)
    label_map[1:3, 2:5, 1:7] = 1
    (segment,) = read(label_map, LUNG).segments
    assert values(segment, "118565006") == [pytest.approx(36 * 2.5 * 0.5 * 0.8 / 1000, rel=1e-12)]


@pytest.mark.parametrize(("modality", "name", "unit"), [("CT", ATTENUATION, HOUNSFIELD), ("MR", INTENSITY, NO_UNITS)])
def test_intensity_has_the_unit_of_its_modality(modality: str, name: Code, unit: Code) -> None:
    label_map = np.zeros((2, 4, 4), np.uint8)
    label_map[1, 2, :3] = 1
    (segment,) = read(label_map, LUNG, modality=modality).segments
    inside = [24.0, 25.0, 26.0]
    numbers = {m.derivation.meaning: m for m in segment.measurements if m.derivation}
    assert {(m.name, m.unit) for m in numbers.values()} == {(name, unit)}
    assert numbers["Mean"].value == np.mean(inside)
    assert numbers["Standard Deviation"].value == round(float(np.std(inside)), 2)
    assert (numbers["Minimum"].value, numbers["Maximum"].value) == (24.0, 26.0)


def test_a_mean_over_many_voxels_does_not_lose_digits() -> None:
    label_map = np.ones((8, 256, 256), np.uint8)
    voxels = np.full(label_map.shape, -1000.1, np.float32)
    (segment,) = find(Reading(label_map), volume_of(voxels), card_of(LUNG)).segments
    mean, spread, low, high = values(segment, "112031")
    assert (mean, spread) == (-1000.1, 0.0)
    assert low == high == -1000.1


def test_components_are_numbered_by_size_and_the_mask_without_gaps() -> None:
    label_map = np.zeros((6, 20, 20), np.uint8)
    label_map[0, 0, 0:2] = 4
    label_map[2:4, 5:9, 5:9] = 4
    label_map[5, 12:15, 12:15] = 4
    label_map[0, 18:, :] = 1
    found = read(label_map, LUNG, NODULE)
    assert [s.title for s in found.segments] == ["Lung", "Nodule 1", "Nodule 2", "Nodule 3"]
    assert [s.value for s in found.segments] == [1, 2, 3, 4]
    assert [int((found.mask == v).sum()) for v in (1, 2, 3, 4)] == [40, 32, 9, 2]
    assert found.mask.dtype == np.uint8
    assert (found.mask > 0).tolist() == (label_map > 0).tolist()


def test_voxels_that_touch_at_a_corner_are_one_component() -> None:
    label_map = np.zeros((2, 4, 4), np.uint8)
    label_map[0, 1, 1] = label_map[1, 2, 2] = 4
    assert len(read(label_map, NODULE).segments) == 1


def test_equal_components_keep_the_order_of_their_first_voxel() -> None:
    label_map = np.zeros((3, 9, 9), np.uint8)
    for k, row in ((0, 7), (1, 1), (2, 4)):
        label_map[k, row, 2:4] = 4
    found = read(label_map, NODULE)
    firsts = [int(np.flatnonzero(found.mask == s.value)[0]) for s in found.segments]
    assert firsts == sorted(firsts)
    assert read(label_map, NODULE).segments == found.segments


def test_noise_and_all_but_the_largest_are_dropped() -> None:
    label_map = np.zeros((2, 30, 30), np.uint8)
    for n in range(5):
        label_map[0, 5 * n, 0 : 3 + n] = 4
    keep = [s.title for s in read(label_map, NODULE).segments]
    assert keep == ["Nodule 1", "Nodule 2", "Nodule 3"]
    long = replace(NODULE, smallest_mm=6 * 0.8)
    found = read(label_map, long)
    assert [values(s, "103339001")[0] for s in found.segments] == [pytest.approx(7 * 0.8), pytest.approx(6 * 0.8)]
    assert set(np.unique(found.mask)) == {0, 1, 2}


def test_what_the_card_says_to_ignore_is_background() -> None:
    label_map = np.full((2, 4, 4), 9, np.uint8)
    found = find(Reading(label_map), volume_of(np.zeros((2, 4, 4), np.int16)), replace(card_of(LUNG), ignored=(9,)))
    assert found.segments == ()
    assert not found.mask.any()


@pytest.mark.parametrize(
    "reading",
    [
        Reading(np.array([[[0, 1], [9, 7]]], np.uint8)),
        Reading(np.array([[[0, 1], [9, 7]]], np.uint16)),
        Reading(masks={1: np.ones((1, 2, 2), bool), 7: np.ones((1, 2, 2), bool), 9: np.eye(2, dtype=bool)[None]}),
        Reading(boxes=tuple(Box(n, 0.9, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) for n in (7, 9))),
        Reading(classes=(Likelihood(1, 0.1), Likelihood(7, 0.5, chosen=True), Likelihood(9, 0.4, chosen=True))),
    ],
    ids=["label map", "label map of 16 bits", "masks", "boxes", "classes"],
)
def test_what_the_card_does_not_know_is_refused_never_told_as_nothing_found(reading: Reading) -> None:
    volume = volume_of(np.zeros((1, 2, 2), np.int16))
    with pytest.raises(CardError, match=r"holds the values 7, 9, .* has labels for 1: add .* or ignored = \[7, 9\]"):
        find(reading, volume, card_of(LUNG))
    assert find(reading, volume, replace(card_of(LUNG), ignored=(9, 7)))


def test_empty_masks_and_classes_that_are_not_chosen_are_no_answer() -> None:
    volume = volume_of(np.zeros((1, 2, 2), np.int16))
    empty = Reading(masks={7: np.zeros((1, 2, 2), bool)}, classes=(Likelihood(7, 0.2),))
    assert find(empty, volume, card_of(LUNG)).segments == ()


def test_a_map_on_another_grid_is_refused() -> None:
    with pytest.raises(CardError, match="the answer of"):
        find(Reading(np.zeros((2, 4, 5), np.uint8)), volume_of(np.zeros((2, 4, 4), np.int16)), card_of(LUNG))


def test_more_segments_than_a_byte_can_name_are_refused() -> None:
    label_map = np.zeros((1, 64, 64), np.uint8)
    label_map[0, ::3, ::3] = 4
    with pytest.raises(CardError, match="most"):
        read(label_map, replace(NODULE, most=1000))


def test_a_crop_stays_where_it_was_in_the_patient() -> None:
    voxels = np.arange(4 * 6 * 8, dtype=np.int16).reshape(4, 6, 8)
    whole = volume_of(voxels)
    part = crop(whole, (slice(1, 3), slice(2, 5), slice(4, 8)))
    assert part.voxels[0, 0, 0] == voxels[1, 2, 4]
    assert np.allclose(part.affine @ [0, 0, 0, 1], whole.affine @ [1, 2, 4, 1])
    assert part.paths == ("/1", "/2")


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [(1, 1, (1.0, 1.0)), (1, 7, (7.0, 1.0)), (5, 1, (5.0, 1.0))],
)
def test_a_row_of_pixels_is_as_long_as_its_pixels(rows: int, columns: int, expected: tuple[float, float]) -> None:
    mask = np.zeros((3, 12, 12), bool)
    mask[1, 3 : 3 + rows, 2 : 2 + columns] = True
    assert axes_mm(mask, (1.0, 1.0)) == pytest.approx(expected)


@pytest.mark.parametrize("radius", [4.0, 7.5, 15.0])
@pytest.mark.parametrize("pixel_mm", [(0.7, 0.7), (1.2, 0.6)])
def test_a_disc_measures_its_diameter_both_ways(radius: float, pixel_mm: tuple[float, float]) -> None:
    rows, columns = np.ogrid[:80, :80]
    inside = ((rows - 40.3) * pixel_mm[0]) ** 2 + ((columns - 39.8) * pixel_mm[1]) ** 2 <= radius**2
    measured = axes_mm(inside[None], pixel_mm)
    assert measured == pytest.approx((2 * radius, 2 * radius), abs=max(pixel_mm))


def test_an_oblique_ellipse_measures_its_axes() -> None:
    rows, columns = np.ogrid[:120, :120]
    u = (rows - 60) * np.cos(0.6) + (columns - 60) * np.sin(0.6)
    v = -(rows - 60) * np.sin(0.6) + (columns - 60) * np.cos(0.6)
    inside = (u / 40) ** 2 + (v / 15) ** 2 <= 1
    assert axes_mm(inside[None], (1.0, 1.0)) == pytest.approx((80, 30), abs=1.0)


def test_diameters_are_those_of_the_slice_with_the_longest_axis() -> None:
    mask = np.zeros((3, 20, 20), bool)
    mask[0, 2:12, 2:12] = True  # a large square
    mask[2, 5, 1:19] = True  # a longer, thinner line
    assert axes_mm(mask, (1.0, 1.0)) == pytest.approx((18.0, 1.0))


def test_the_short_axis_is_the_longest_of_many_chords() -> None:
    rng = np.random.default_rng(5)
    for _ in range(5):
        mask = rng.random((1, 9, 9)) > 0.6
        long_mm, short_mm = axes_mm(mask, (0.9, 0.6))
        assert 0 < short_mm <= long_mm + 1e-9
        assert short_mm == pytest.approx(longest_of_chords(mask[0], (0.9, 0.6)), abs=0.02)


def test_the_lung_of_a_whole_chest_is_quick() -> None:
    label_map = np.zeros((120, 256, 256), np.uint8)
    label_map[10:110, 40:220, 30:230] = 1
    volume = volume_of(np.zeros(label_map.shape, np.int16))
    start = time.process_time()
    find(Reading(label_map), volume, card_of(LUNG))
    assert time.process_time() - start < 2


@pytest.mark.parametrize("name", MEASURERS)
def test_each_listed_measurer_measures(name: str) -> None:
    assert name in MEASURERS
    volume, mask = volume_of(np.zeros((1, 3, 3), np.int16)), np.ones((1, 3, 3), bool)
    assert all(m.name.value for measure in measurers() for m in measure(volume, mask, NODULE))
    assert len(measurers()) == len(MEASURERS)
