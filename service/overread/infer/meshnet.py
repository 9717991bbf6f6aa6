"""MeshNet: dilated convolutions at full resolution (Fedorov et al., IJCNN 2017), as the brainchop networks use it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU}


class MeshNet(nn.Module):  # type: ignore[misc]
    """One channel in, ``classes`` channels of logits out, on the same grid.

    ``dilations`` has one number for each 3 × 3 × 3 convolution with ``width`` channels; ``norm`` puts an instance norm
    without parameters behind each of them, ``bias`` gives them one. The last layer is a 1 × 1 × 1 convolution.
    """

    def __init__(
        self, dilations: Sequence[int], width: int, classes: int, activation: str = "relu", norm: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for dilation in dilations:
            layers.append(nn.Conv3d(channels, width, 3, padding=dilation, dilation=dilation, bias=not norm))
            if norm:
                layers.append(nn.InstanceNorm3d(width))
            layers.append(ACTIVATIONS[activation]())
            channels = width
        layers.append(nn.Conv3d(channels, classes, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, 1, x, y, z) → (batch, classes, x, y, z)."""
        for layer in self.layers:
            image = layer(image)
        return image
