"""Endless generated training data: each item is a batch of random crops of one new phantom."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from overread.simulate.phantom import NODULE, Grid, chest_phantom
from scripts.vary import vary
from torch.utils.data import Dataset

BATCHES_PER_PHANTOM = 3


class PhantomCrops(Dataset):
    """``steps`` batches; items are ``(image, label)``.

    ``image`` (batch, 1, x, y, z) float32 in [-1, 1] for [-1000, 1000] HU, ``label`` (batch, 1, x, y, z) int64; axes run
    right to left, back to front and feet to head reversed into RAS, as the inference config orients its input.
    """

    def __init__(self, steps: int, batch_size: int, patch: Sequence[int], spacing_mm: float, seed: int) -> None:
        self.phantoms = -(-steps // BATCHES_PER_PHANTOM)
        self.batch_size = batch_size
        self.patch = tuple(patch)
        self.spacing_mm = spacing_mm
        self.seed = seed

    def __len__(self) -> int:
        return self.phantoms

    def __getitem__(self, index: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if index >= self.phantoms:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        shape = (int(rng.integers(100, 150)), 150, int(rng.integers(176, 222)))
        sizes = (5.0, float(rng.uniform(20, 70)))
        phantom = chest_phantom(self.seed + index, Grid(shape, (self.spacing_mm,) * 3), nodule_diameters_mm=sizes)
        hu, truth = vary(to_ras(phantom.hu), rng), to_ras(phantom.truth)
        return [self._batch(rng, hu, truth) for _ in range(BATCHES_PER_PHANTOM)]

    def _batch(self, rng: np.random.Generator, hu: np.ndarray, truth: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        crops = [self._crop(rng, hu, truth) for _ in range(self.batch_size)]
        image = torch.stack([torch.from_numpy(a)[None] for a, _ in crops])
        label = torch.stack([torch.from_numpy(b.astype(np.int64))[None] for _, b in crops])
        return image, label

    def _crop(self, rng: np.random.Generator, hu: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centre = [int(rng.integers(0, n)) for n in truth.shape]
        nodule = np.argwhere(truth == NODULE) if rng.random() < 0.4 else ()
        if len(nodule):
            jitter = rng.integers(-30, 31, 3)
            centre = (nodule[int(rng.integers(len(nodule)))] + jitter).tolist()
        parts = []
        for middle, size, n in zip(centre, self.patch, truth.shape, strict=True):
            low = int(np.clip(middle - size // 2, 0, max(0, n - size)))
            parts.append(slice(low, low + size))
        image = hu[tuple(parts)].astype(np.float32) * float(rng.uniform(0.93, 1.07)) + float(rng.normal(0, 12))
        short = [(0, size - part) for size, part in zip(self.patch, image.shape, strict=True)]
        image = np.pad(image, short, constant_values=-1000)
        return np.clip(image / 1000, -1, 1), np.pad(truth[tuple(parts)], short)


def to_ras(volume: np.ndarray) -> np.ndarray:
    """(slices, rows, columns) in LPS order → contiguous (x, y, z) in RAS order."""
    return np.ascontiguousarray(volume.transpose(2, 1, 0)[::-1, ::-1])
