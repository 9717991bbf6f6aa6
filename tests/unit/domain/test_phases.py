"""Phases that share their positions are told apart by what a technologist sees, and nothing else is split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from overread.domain.frame import Frame
from overread.domain.phases import phases
from overread.domain.study import Instance

Headers = Callable[..., list[Instance]]


def frames(headers: Headers, count: int = 6, salt: str = "", **values: Any) -> list[Frame]:
    made = headers(count)
    return [
        Frame.of(i, **{"sop_instance_uid": f"{i.sop_instance_uid}{salt}", **{k: _of(v, n) for k, v in values.items()}})
        for n, i in enumerate(made)
    ]


def _of(value: Any, n: int) -> Any:
    return value(n) if callable(value) else value


def name(frame: Frame) -> bytes:
    return frame.sop_instance_uid.encode()


def found(series: list[Frame], picture: Callable[[Frame], bytes] = name) -> list[tuple[str, int, int]]:
    return [(p.title, len(p.frames), p.duplicates) for p in phases(series, picture)]


def test_a_series_without_repeated_positions_is_one_whatever_else_differs(ct_headers: Headers) -> None:
    """A PET has an acquisition number for each bed position."""
    assert found(frames(ct_headers, acquisition_number=lambda n: n // 2)) == [("", 6, 0)]


def test_two_phases_by_acquisition_number(ct_headers: Headers) -> None:
    series = [*frames(ct_headers, acquisition_number=3, salt=".9"), *frames(ct_headers, acquisition_number=2)]
    assert found(series) == [("AcquisitionNumber 2", 6, 0), ("AcquisitionNumber 3", 6, 0)]


def test_echoes_and_time_points_together(ct_headers: Headers) -> None:
    series = [
        frame
        for echo in (4.6, 2.3)
        for time in (1, 2)
        for frame in frames(ct_headers, echo_time=echo, temporal_position=time, salt=f".{time}{echo:g}")
    ]
    assert found(series) == [
        (f"EchoTime {echo:g}, TemporalPosition {time}", 6, 0) for echo in (2.3, 4.6) for time in (1, 2)
    ]


def test_diffusion_directions_are_told_apart_from_the_unweighted(ct_headers: Headers) -> None:
    series = [
        *frames(ct_headers, b_value=0.0),
        *frames(ct_headers, b_value=1000.0, gradient="1/0/0", salt=".1"),
        *frames(ct_headers, b_value=1000.0, gradient="0/1/0", salt=".2"),
    ]
    assert [f[1] for f in found(series)] == [6, 6, 6]


def test_a_clock_that_differs_for_every_slice_splits_nothing(ct_headers: Headers) -> None:
    series = [
        *frames(ct_headers, content_time=lambda n: f"1000{n:02d}"),
        *frames(ct_headers, content_time=lambda n: f"1100{n:02d}", salt=".9"),
    ]
    assert found(series) == [("", 12, 0)]


def test_a_clock_with_as_many_values_as_repetitions_does(ct_headers: Headers) -> None:
    series = [*frames(ct_headers, acquired="100000"), *frames(ct_headers, acquired="100130", salt=".9")]
    assert found(series) == [("AcquisitionTime 100000", 6, 0), ("AcquisitionTime 100130", 6, 0)]


def test_identical_images_are_left_out(ct_headers: Headers) -> None:
    series = frames(ct_headers)
    again = [replace(f, sop_instance_uid=f"{f.sop_instance_uid}.9") for f in series[2:5]]
    assert found([*again, *series], lambda f: bytes([f.instance_number or 0])) == [("", 6, 3)]


def test_other_images_at_one_position_are_not(ct_headers: Headers) -> None:
    series = frames(ct_headers)
    again = [replace(f, sop_instance_uid=f"{f.sop_instance_uid}.9") for f in series[2:5]]
    assert found([*series, *again]) == [("", 9, 0)]


def test_a_phase_with_a_gap_is_still_a_phase(ct_headers: Headers) -> None:
    """It will be refused for itself, and the whole one can be read."""
    second = frames(ct_headers, acquisition_number=2, salt=".9")
    series = [*frames(ct_headers, acquisition_number=1), *second[:3], *second[4:]]
    assert found(series) == [("AcquisitionNumber 1", 6, 0), ("AcquisitionNumber 2", 5, 0)]


def test_stacks_of_an_enhanced_image_are_apart_wherever_they_lie(ct_headers: Headers) -> None:
    series = [*frames(ct_headers, stack_id="2"), *frames(ct_headers, stack_id="1", acquisition_number=1)]
    assert found(series) == [("StackID 1", 6, 0), ("StackID 2", 6, 0)]
