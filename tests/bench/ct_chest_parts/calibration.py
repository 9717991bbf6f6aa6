"""Is the network as sure as it is right? Its probabilities against the truth, voxel by voxel, at its own 2 mm."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from numpy.typing import NDArray

from overread.simulate.phantom import LABELS, ChestPhantom

BINS = 10


class Calibration:
    """Voxels by class and tenth of probability: how many, how probable in the mean, how many true."""

    def __init__(self) -> None:
        self._sums = np.zeros((max(LABELS) + 1, BINS, 3))

    def add(self, probabilities: NDArray[np.float32], truth: NDArray[np.uint8]) -> None:
        """``probabilities`` (classes, …), ``truth`` (…); what is clearly nothing (below 0.01) is not counted."""
        for value in LABELS:
            p, hit = probabilities[value].ravel(), (truth == value).ravel()
            keep = p > 0.01
            where = np.minimum((p[keep] * BINS).astype(int), BINS - 1)
            for column, weights in enumerate((None, p[keep], hit[keep].astype(np.float64))):
                self._sums[value, :, column] += np.bincount(where, weights, BINS)

    def rows(self) -> Iterable[tuple[str, dict[str, str]]]:
        """For each label: true share in each tenth of probability, and the expected calibration error."""
        for value, name in LABELS.items():
            count, probable, true = self._sums[value].T
            share = np.divide(true, count, out=np.zeros(BINS), where=count > 0)
            error = float(np.abs(probable - true).sum() / max(1.0, count.sum()))
            tenths = {f"{b / BINS:.1f}": f"{share[b]:.2f}" for b in range(BINS)}
            yield name, {**tenths, "calibration error": f"{error:.3f}"}


class Network:
    """The bundle's network and inferer, without resampling: input at 2 mm in RAS order."""

    def __init__(self, model: Path) -> None:
        parser = ConfigParser()
        parser.read_config(str(model / "configs" / "inference.json"))
        self._net = parser.get_parsed_content("network_def").eval()
        state = torch.load(model / "models" / "model.pt", weights_only=True)
        self._net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
        self._infer = parser.get_parsed_content("inferer")

    def probabilities(self, phantom: ChestPhantom) -> NDArray[np.float32]:
        """(classes, slices, rows, columns), for a phantom of 2 mm voxels."""
        ras = np.ascontiguousarray(phantom.hu.transpose(2, 1, 0)[::-1, ::-1]).astype(np.float32)
        image = torch.from_numpy(np.clip(ras / 1000, -1, 1))[None, None]
        with torch.inference_mode():
            seen = self._infer(image, self._net).softmax(1)[0].numpy()
        return np.ascontiguousarray(seen[:, ::-1, ::-1].transpose(0, 3, 2, 1))
