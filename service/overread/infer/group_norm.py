"""Group normalisation of images whose channels lie together, as exact as that of others.

On a CPU torch adds up values and squares of such an image in float32, one voxel after the other: over a window of 96³ a
layer's answer is off by a thousandth, and by much more where the mean is large beside the deviation. Here parts of an
image are added up in float32, about a value near their mean, and the parts in float64. That gives seven digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

PART = (1 << 15) - 1  # values; they fit in a processor's cache, and torch wakes no threads for so few
KNOWN = (torch.float32, torch.bfloat16)


class GroupNorm(torch.nn.GroupNorm):  # type: ignore[misc]
    """As torch's; only without gradients, on the CPU, of (n, channels, x, y, z) in ``channels_last_3d`` other sums."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        """Normalised, in the same layout."""
        together = input.ndim == 5 and input.is_contiguous(memory_format=torch.channels_last_3d)
        if not together or input.device.type != "cpu" or input.dtype not in KNOWN or torch.is_grad_enabled():
            return super().forward(input)
        answers = [self._one(image) for image in input.split(1)]
        return answers[0] if len(answers) == 1 else torch.cat(answers)

    def _one(self, image: Tensor) -> Tensor:
        mean, variance = self._moments(image[0].permute(1, 2, 3, 0).reshape(-1, self.num_channels))
        return torch.nn.functional.batch_norm(image, mean, variance, self.weight, self.bias, eps=self.eps)

    def _moments(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Of ``values`` (voxels, channels) mean and variance of each channel's group, (channels,) float32."""
        parts = values.split(max(1, PART // self.num_channels))
        near = parts[0].float().mean(dim=0)  # what is left of a value is small, and so its square exact
        totals = [self._sums(part.float() - near) for part in parts]
        total, squares = (torch.stack(one).double().sum(dim=0) / len(values) for one in zip(*totals, strict=True))
        mean = self._of_groups(near + total)
        variance = self._of_groups(squares - total**2 + (near + total - mean) ** 2)
        return mean.float(), variance.float()

    @staticmethod
    def _sums(part: Tensor) -> tuple[Tensor, Tensor]:
        return part.sum(dim=0), part.square_().sum(dim=0)

    def _of_groups(self, channels: Tensor) -> Tensor:
        means = channels.view(self.num_groups, -1).mean(dim=1)
        return means.repeat_interleave(self.num_channels // self.num_groups)


def exchange(network: torch.nn.Module) -> None:
    """Let ``network`` normalise so; a subclass of a bundle's own stays what it is."""
    for module in network.modules():
        if type(module) is torch.nn.GroupNorm:
            module.__class__ = GroupNorm
