"""Instances in series in studies, and their way through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from overread.domain.study import Instance, group

Headers = Callable[..., list[Instance]]


def test_series_are_sorted_by_number_and_then_uid(ct_headers: Headers) -> None:
    instances = [*ct_headers(2, series=7), *ct_headers(3, series=2), *ct_headers(1, series=9, series_number=None)]
    study = group("1.2", 4, instances)
    assert (study.uid, study.revision) == ("1.2", 4)
    assert [(s.first.series_number, len(s.instances)) for s in study.series] == [(None, 1), (2, 3), (7, 2)]
    assert [s.modality for s in study.series] == ["CT", "CT", "CT"]


def test_a_study_of_nothing_has_no_series() -> None:
    assert group("1.2", 1, []).series == ()


def test_an_instance_comes_back_from_json_as_it_was(ct_headers: Headers) -> None:
    for instance in (
        Instance("1", "2", "3", "4"),
        replace(ct_headers(1)[0], gantry_tilt=1.5, equipment_purposes=("109102",), slice_thickness=0.625),
    ):
        assert Instance.from_json(json.loads(json.dumps(instance.to_json()))) == instance


def test_keys_of_another_version_are_left_out() -> None:
    values = {**Instance("1", "2", "3", "4").to_json(), "colour": "blue"}
    del values["gantry_tilt"]
    assert Instance.from_json(values) == Instance("1", "2", "3", "4")


@pytest.mark.parametrize(
    ("image_type", "localizer"),
    [
        (("ORIGINAL", "PRIMARY", "LOCALIZER"), True),
        (("ORIGINAL", "PRIMARY", "scout"), True),
        (("ORIGINAL", "PRIMARY", "AXIAL"), False),
        ((), False),
    ],
)
def test_a_localizer_is_known_by_its_image_type(image_type: tuple[str, ...], localizer: bool) -> None:
    assert Instance("1", "2", "3", "4", image_type=image_type).is_localizer is localizer
