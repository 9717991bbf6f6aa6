"""Parametric maps, derived images, presentation states and structure sets: valid, in place, the same each time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from overread.domain.result import Result
from overread.encode import encoders
from overread.encode.keyhole import joined
from overread.encode.outline import contours
from overread.encode.structures import _filled
from overread.ports import Read

from .conftest import SHAPE, complaints, mask

Reading = Callable[..., Read]
KINDS = ("map", "image", "gsps", "rtstruct")


def with_maps(reading: Reading) -> Read:
    read = reading()
    probable = np.where(mask() == 1, 0.75, 0).astype(np.float16)
    derived = np.linspace(-3, 9, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    found = replace(read.findings, image=derived, probabilities={1: probable}, saliency={3: probable})
    return replace(read, findings=found, card=replace(read.card, saliency="grad-cam"))


def encode(read: Read, out: Path, kind: str) -> list[Result]:
    (encoder,) = encoders([kind])
    return list(encoder.encode(read, out, []))


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_valid_and_the_same_each_time(reading: Reading, out: Path, kind: str) -> None:
    read = with_maps(reading)
    results = encode(read, out, kind)
    assert len(results) == {"map": 2, "image": SHAPE[0]}.get(kind, 1)
    for result in results:
        assert complaints(out / result.path) == []
    assert [r.digest for r in encode(read, out, kind)] == [r.digest for r in results]


def test_maps_say_what_they_are_of_and_by_which_quantity(reading: Reading, out: Path) -> None:
    first, second = [dcmread(out / r.path) for r in encode(with_maps(reading), out, "map")]
    told = [
        ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0].QuantityDefinitionSequence[0]
        for ds in (first, second)
    ]
    meanings = [item.ConceptCodeSequence[0].CodeMeaning for item in told]
    assert meanings == ["Probability", "Gradient-weighted class activation"]
    assert int(first.NumberOfFrames) == 4
    assert float(first.pixel_array.max()) == 0.75


def test_a_derived_image_has_the_values_of_the_model(reading: Reading, out: Path) -> None:
    read = with_maps(reading)
    for k, result in enumerate(encode(read, out, "image")):
        ds = dcmread(out / result.path)
        back = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
        assert np.abs(back - read.findings.image[k]).max() < 12 / 65535
        assert ds.ImageType[:2] == ["DERIVED", "SECONDARY"]


def test_holes_are_joined_to_what_they_are_in() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        plane = rng.random((7, 9)) < rng.uniform(0.2, 0.8)
        for lines in (contours(plane), joined(contours(plane))):
            filled = np.zeros(plane.shape, bool)
            for line in lines:
                filled ^= _filled(line[:-1, ::-1] - 0.5, plane.shape)
            assert np.array_equal(filled, plane)
