"""A series as a volume in patient space, as a film, or as one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.domain.geometry import Affine, Stack


@dataclass(frozen=True)
class Volume:
    """Voxels of one series on their source slices.

    ``voxels`` (slices, rows, columns) float32 or int16, in the modality's unit (HU for CT); slices in the order of
    ``stack.instances``. ``paths`` are the absolute paths of the source files in the same order. Of a film the first
    axis is time, of one image it has length 1. ``unit`` is HU, what PET says in Units (0054,1001), or empty.
    """

    voxels: NDArray[np.float32] | NDArray[np.int16]
    stack: Stack
    paths: tuple[str, ...]
    unit: str = ""

    @property
    def affine(self) -> Affine:
        """(4, 4) float64: (slice, row, column) index → mm, LPS; only if ``placed``."""
        return self.stack.affine

    @property
    def kind(self) -> str:
        """``volume``; ``frames``: the first axis is time; ``image``: there is one plane."""
        return self.stack.kind

    @property
    def placed(self) -> bool:
        """Whether the affine leads into patient space. Else it only scales, in mm if the pixels' size is known."""
        return self.stack.placed

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(between slices, between rows, between columns)."""
        return self.stack.spacing_mm

    @property
    def frame_times_s(self) -> tuple[float, ...]:
        """When each frame of a film was, from the first; empty when nobody knows."""
        return self.stack.times_s

    @property
    def frame_of_reference_uid(self) -> str:
        """Of patient space; empty when the source names none, and then nothing else lies in the same."""
        return self.stack.instances[0].frame_of_reference_uid if self.placed else ""

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        """(SOP Instance UID, frame number) of each slice; 0 where the instance has only one."""
        return tuple((i.sop_instance_uid, getattr(i, "frame_number", 0)) for i in self.stack.instances)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0
