"""The engines: one file and one line of ``ENGINES`` for each kind of model.

An engine runs inside a worker process, which imports the one that its card names and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Reading

ENGINES: dict[str, str] = {
    "monai-bundle": "overread.infer.bundle:Bundle",
    "torchscript": "overread.infer.torchscript:TorchScript",
    "torch-export": "overread.infer.exported:Exported",
    "onnx": "overread.infer.onnx:Onnx",
    "nnunet": "overread.infer.nnunet:NnUnet",
    "sklearn": "overread.infer.sklearn:Classifier",
    "external": "overread.infer.external:Program",
    "stages": "overread.infer.stages:Stages",
}
GROUP = "overread.engines"
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's patient coordinates → those of MONAI and NIfTI


@dataclass(frozen=True)
class Grid:
    """One input volume as an engine sees it: ``voxels`` (slices, rows, columns) in the modality's unit; ``affine``
    (4, 4) float64, (slice, row, column) index → mm, LPS. All inputs of a reading lie on one grid. ``paths``: the
    source files, for engines that read files. ``mask``: the region, when an earlier stage has found one."""

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    paths: tuple[str, ...] = ()
    mask: NDArray[np.bool_] | None = None


class Loaded(Protocol):
    """A model, loaded once, that reads one input after another."""

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """Read one input: one volume for each row of ``card.inputs``. Raises CardError or Unfit when another attempt
        would end the same; whatever else it throws is an attempt that failed."""


class Engine(Protocol):
    """Loads a model: ``Engine(card, device)``; ``device`` is cpu or cuda:N. Raises CardError when it cannot."""

    def __call__(self, card: Card, device: str) -> Loaded: ...


def engine(name: str) -> Engine:
    """The engine that a card names; raises CardError when there is none."""
    if name in ENGINES:
        module, _, attribute = ENGINES[name].partition(":")
        return cast(Engine, getattr(import_module(module), attribute))
    others = {e.name: e for e in entry_points(group=GROUP)}
    if name not in others:
        raise CardError(f"there is no engine {name!r}; known engines: {', '.join([*ENGINES, *sorted(others)])}")
    return cast(Engine, others[name].load())
