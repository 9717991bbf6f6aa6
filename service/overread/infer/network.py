"""A network without a pipeline of its own: the card brings preprocessing, inferer and postprocessing.

The engines for TorchScript, ``torch.export`` and ONNX are this and a way to load their file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Reading
from overread.infer.engines import LPS_TO_RAS, Grid
from overread.infer.feed import Predict, feed
from overread.infer.output import Output
from overread.infer.transforms import build


class Network(ABC):
    """One loaded network on one device. Raises CardError when card or weights do not fit it."""

    def __init__(self, card: Card, device: str) -> None:
        self._card, self._device = card, torch.device(device)
        self._names = [i.name for i in card.inputs] or ["image"]
        self._preprocessing = Compose([build(step, self._names) for step in card.preprocess])
        self._output = Output(card, self._preprocessing, self._names[0])
        self._predict = self.load(card, self._device)

    @abstractmethod
    def load(self, card: Card, device: torch.device) -> Predict:
        """The function from input to output tensor, both on the CPU or ``device``."""

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """Read one volume for each input, stacked as channels in the order of ``card.inputs``."""
        if len(volumes) != len(self._names):
            raise CardError(f"the card has {len(self._names)} inputs, {len(volumes)} volumes were given")
        with torch.inference_mode():
            images = self._prepare(volumes)
            first = images[self._names[0]]
            stacked = torch.cat([torch.as_tensor(images[name]).float() for name in self._names])
            answer = feed(stacked.to(self._device), self._card.inferer, self._predict, progress)
            reading = self._output.reading(answer, first, volumes[0])
        progress(1.0)
        return reading

    def _prepare(self, volumes: Sequence[Grid]) -> dict[str, Any]:
        item = {name: _image(volume) for name, volume in zip(self._names, volumes, strict=True)}
        made: dict[str, Any] = self._preprocessing(item)
        if len({tuple(made[name].shape[1:]) for name in self._names}) > 1:
            raise CardError("after preprocessing the inputs differ in size; steps in space must be for all of them")
        return made


def _image(volume: Grid) -> MetaTensor:
    """(1, x, y, z) float32 with its affine in RAS, as MONAI has it."""
    array = np.ascontiguousarray(volume.voxels.transpose(2, 1, 0), np.float32)
    affine = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
    return MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))
