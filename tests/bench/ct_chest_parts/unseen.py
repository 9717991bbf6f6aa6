"""Phantoms the model never saw, plain and as other scanners would show them; how well it reads them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from overread.simulate.phantom import LABELS, NODULE, ChestPhantom, Grid, chest_phantom

HOLD_OUT_SEED = 900_000_000
MODEL = Path(__file__).parents[3] / "models" / "ct_chest"
# Classes of diameter of a sphere of the nodule's volume, in mm.
SIZES: tuple[tuple[float, float], ...] = ((5, 8), (8, 12), (12, 20), (20, 70))
LEAST_MM = 5.0
Labels = NDArray[np.integer[Any]]


@dataclass
class Score:
    """Sums over phantoms: ``found`` and ``painted`` by class of SIZES; ``false`` marks, ``false_shown`` from 8 mm."""

    dice: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LABELS.values()})
    found: list[int] = field(default_factory=lambda: [0] * len(SIZES))
    painted: list[int] = field(default_factory=lambda: [0] * len(SIZES))
    false: int = 0
    false_shown: int = 0
    scans: int = 0

    def add(self, seen: Labels, truth: Labels, voxel_mm3: float) -> None:
        """One phantom: two label maps of the same shape."""
        self.scans += 1
        for value, name in LABELS.items():
            if (truth == value).any():
                self.dice[name].append(overlap(seen == value, truth == value))
        self._nodules(seen == NODULE, truth == NODULE, voxel_mm3)

    def _nodules(self, seen: NDArray[np.bool_], truth: NDArray[np.bool_], voxel_mm3: float) -> None:
        real, diameters = _parts(truth, voxel_mm3)
        for number, diameter in enumerate(diameters, 1):
            for index, (low, high) in enumerate(SIZES):
                if low <= diameter < high:
                    self.painted[index] += 1
                    self.found[index] += bool(seen[real == number].any())
        marks, sizes = _parts(seen, voxel_mm3)
        for number, diameter in enumerate(sizes, 1):
            if not truth[marks == number].any():
                self.false += diameter >= LEAST_MM
                self.false_shown += diameter >= 8.0

    def row(self) -> dict[str, str]:
        """As a row of a table."""
        said = {name: f"{np.mean(values):.3f}" for name, values in self.dice.items() if values}
        for (low, high), found, painted in zip(SIZES, self.found, self.painted, strict=True):
            said[f"nodules {low:g}–{high:g} mm"] = f"{found} of {painted}"
        scans = max(1, self.scans)
        return said | {"false a scan": f"{self.false / scans:.1f}", "of 8 mm": f"{self.false_shown / scans:.1f}"}


def overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Dice of two masks."""
    return 2 * int((a & b).sum()) / max(1, int(a.sum()) + int(b.sum()))


def phantoms(count: int, grid: Grid) -> Iterator[tuple[int, ChestPhantom]]:
    """``count`` phantoms of seeds that no training uses, with nodules of 6 to 40 mm."""
    for seed in range(HOLD_OUT_SEED, HOLD_OUT_SEED + count):
        yield seed, chest_phantom(seed, grid, nodule_diameters_mm=(6.0, 40.0))


def varied(phantom: ChestPhantom, seed: int) -> ChestPhantom:
    """The same patient as another scanner shows it: kernel, slices, metal, field of view, breathing, dose."""
    vary, rng = _vary(), np.random.default_rng(seed)
    hu = vary(phantom.hu.transpose(2, 1, 0)[::-1, ::-1], rng)
    back = np.clip(np.rint(hu[::-1, ::-1].transpose(2, 1, 0)), -1024, 3071).astype(np.int16)
    return ChestPhantom(back, phantom.truth, phantom.grid, phantom.nodules)


def _vary() -> Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]:
    """The bundle's own; by its path, for every bundle has a package ``scripts``."""
    spec = importlib.util.spec_from_file_location("ct_chest_vary", MODEL / "scripts" / "vary.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.vary  # type: ignore[no-any-return]


def _parts(mask: NDArray[np.bool_], voxel_mm3: float) -> tuple[Labels, list[float]]:
    parts, count = ndimage.label(mask)
    volumes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * voxel_mm3
    return parts, [float(np.cbrt(6 * volume / np.pi)) for volume in volumes]
