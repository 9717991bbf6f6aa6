"""Group normalisation in both layouts: the numbers are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from overread.infer.group_norm import GroupNorm, exchange


def normed(images: Any, *, affine: bool = True) -> tuple[Any, Any]:
    """``images`` normalised by torch in float64, and here in their own kind, their channels together."""
    torch.manual_seed(1)
    plain = torch.nn.GroupNorm(4, images.shape[1], affine=affine)
    for value in plain.parameters():
        torch.nn.init.uniform_(value)
    wanted = plain.double()(images.double()).detach()
    network = torch.nn.Sequential(plain.float())
    exchange(network)
    with torch.inference_mode():
        return wanted, network(images.contiguous(memory_format=torch.channels_last_3d))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("shape", "mean"),
    [((1, 8, 64, 64, 64), 3.0), ((1, 8, 64, 64, 64), 300.0), ((2, 32, 12, 13, 14), -5.0), ((1, 4, 1, 1, 2), 1.0)],
)
def test_numbers_are_right_to_the_sixth_digit(shape: tuple[int, ...], mean: float, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wanted, found = normed(torch.randn(shape) * 2 + mean)
    finally:
        torch.set_num_threads(before)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert float((found.double() - wanted).abs().max()) < 2e-5


def test_without_weights_and_in_bfloat16() -> None:
    images = torch.randn(1, 8, 20, 20, 20) + 2
    wanted, found = normed(images, affine=False)
    assert float((found.double() - wanted).abs().max()) < 2e-6
    wanted, found = normed(images.bfloat16())
    assert found.dtype is torch.bfloat16
    assert float((found.double() - wanted).abs().max()) < 0.03


def test_gradients_are_torchs() -> None:
    network = torch.nn.Sequential(torch.nn.GroupNorm(2, 4))
    images = torch.randn(1, 4, 5, 6, 7, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d)
    exchange(network.double())
    assert torch.autograd.gradcheck(network, images.requires_grad_())


def test_a_subclass_stays_what_it_is() -> None:
    class Own(torch.nn.GroupNorm):  # type: ignore[misc]
        pass

    network = torch.nn.Sequential(Own(2, 4), torch.nn.GroupNorm(2, 4))
    exchange(network)
    assert [type(m) for m in network] == [Own, GroupNorm]
