"""The number of windows is the one that MONAI really looks at, so that progress ends at the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from overread.infer import windows
from overread.infer.windows import count_windows


@pytest.mark.parametrize("shape", [(16, 16, 16), (17, 30, 9), (5, 40, 64), (8, 8, 8), (33, 21, 16)])
@pytest.mark.parametrize("roi", [(8, 8, 8), (16, 8, 5), (64, 64, 64), 8, (8, -1, 8)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.7, (0.5, 0.25, 0.0)])
def test_windows_are_counted_as_monai_slides_them(monai: Any, shape: tuple, roi: Any, overlap: Any) -> None:
    import torch

    inferer = monai.inferers.SlidingWindowInferer(roi_size=roi, sw_batch_size=3, overlap=overlap)
    seen = [0]

    def network(windows: Any) -> Any:
        seen[0] += windows.shape[0]
        return windows

    inferer(torch.zeros(1, 1, *shape), network)
    assert count_windows(inferer, shape) == seen[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_windows_of_a_network_that_reads_slices_are_counted_too(monai: Any, axis: int) -> None:
    import torch

    inferer = monai.inferers.SliceInferer(spatial_dim=axis, roi_size=(8, 8), sw_batch_size=4, overlap=0.25)
    expected, seen = count_windows(inferer, (12, 9, 20)), [0]

    def network(windows: Any) -> Any:
        seen[0] += windows.shape[0]
        return windows

    inferer(torch.zeros(1, 1, 12, 9, 20), network)
    assert expected == seen[0]


def test_an_inferer_that_does_not_slide_has_one() -> None:
    assert count_windows(SimpleNamespace(), (100, 100, 100)) == 1
    assert count_windows(SimpleNamespace(roi_size=(8,)), (16, 16, 16)) >= 1


def test_an_answer_that_is_no_number_is_found_and_an_infinity_left_alone() -> None:
    numbers = windows.Numbers()
    whole = torch.ones(2, dtype=torch.int64)
    numbers(None, None, [torch.zeros(2, 2), {"x": torch.tensor([0.0, float("-inf")])}, whole])
    numbers.require()
    numbers(None, None, torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="no numbers"):
        numbers.require()
    numbers.require()


def test_batches_are_smaller_while_memory_is_short_and_as_before_afterwards() -> None:
    inferer = SlidingWindowInferer(8, 4, 0.25)
    with windows.smaller(4), windows.thinned(inferer):
        assert (inferer.sw_batch_size, windows.batch(2), windows.batch(8)) == (1, 1, 2)
    assert (inferer.sw_batch_size, windows.batch(8)) == (4, 8)
    with windows.thinned(object()):
        assert windows.batch(4) == 4
