"""From slice headers to a stack in patient space: order, spacing and affine, or the reason why there is none.

The patient coordinate system is DICOM's: x to the patient's left, y to the back, z to the head (LPS), in mm
(PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import Unfit
from overread.domain.study import Instance

Affine = NDArray[np.float64]

ORIENTATION_TOLERANCE = 1e-3
SPACING_TOLERANCE = 0.02
SHEAR_TOLERANCE = 0.02
WANDER_TOLERANCE = 0.5


@dataclass(frozen=True)
class Stack:
    """Slices in the order of increasing position along their normal.

    ``affine`` (4, 4) float64 maps (slice, row, column) indices to mm, LPS. ``spacing_mm`` is (between slices, between
    rows, between columns). Of a multi-frame instance each frame stands for itself. A ``kind`` other than ``volume`` has
    time, or nothing, along the first axis: such a stack is not ``placed`` in patient space unless every frame is at one
    place; ``times_s`` are those of its frames. ``spacing_from`` is the attribute that gave the pixels' size, empty when
    none did and a pixel counts as 1 mm.
    """

    instances: tuple[Instance, ...]
    affine: Affine
    spacing_mm: tuple[float, float, float]
    kind: str = "volume"
    placed: bool = True
    times_s: tuple[float, ...] = ()
    spacing_from: str = "PixelSpacing"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        first = self.instances[0]
        return len(self.instances), int(first.rows or 0), int(first.columns or 0)

    def digest(self) -> str:
        """SHA-256 that names this input: UIDs and contents of its slices, in order."""
        return digest_of(self.instances)


def digest_of(instances: Sequence[Instance]) -> str:
    """SHA-256 over UIDs and contents of slices, in their order; of a frame its number, too."""
    lines = (f"{i.sop_instance_uid} {i.digest}{_frame(i)}\n" for i in instances)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def series_digest(instances: Sequence[Instance]) -> str:
    """The same for a whole series that is no stack, whatever the order of its instances."""
    return digest_of(sorted(instances, key=lambda i: i.sop_instance_uid))


def _frame(instance: Instance) -> str:
    number = getattr(instance, "frame_number", 0)
    return f" {number}" if number else ""


def stack(instances: Sequence[Instance], *, max_tilt_deg: float = 0.0) -> Stack:
    """Order slices into a regular stack.

    Raises Unfit, saying why, when the slices are not one regular parallel stack: geometry missing, sizes,
    orientations or frames of reference mixed, positions repeated, a gap, a crooked stack, or one that is sheared by
    more than ``max_tilt_deg``. The affine of a sheared stack is exact: it is sheared, too.
    """
    _require_geometry(instances)
    _require_one(instances, "Rows", {i.rows for i in instances})
    _require_one(instances, "Columns", {i.columns for i in instances})
    _require_one(instances, "FrameOfReferenceUID", {i.frame_of_reference_uid for i in instances})
    _require_one(instances, "PixelSpacing", {tuple(round(v, 4) for v in i.pixel_spacing) for i in instances})
    row, column, normal = _directions(instances)
    positions = np.array([i.position for i in instances], np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    ordered = tuple(instances[k] for k in order)
    step = _regular_step(positions[order], normal)
    _require_upright(step, normal, max_tilt_deg)
    between_rows, between_columns = ordered[0].pixel_spacing[:2]
    _require_straight(positions[order], step, min(between_rows, between_columns))
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = column * between_rows
    affine[:3, 2] = row * between_columns
    affine[:3, 3] = positions[order[0]]
    return Stack(ordered, affine, (float(np.linalg.norm(step)), between_rows, between_columns))


def plane_of(instance: Instance) -> str:
    """``axial``, ``coronal``, ``sagittal`` (within 25° of it) or ``oblique``; ``unknown`` without an orientation."""
    if len(instance.orientation) != 6:
        return "unknown"
    normal = np.abs(np.cross(instance.orientation[:3], instance.orientation[3:]))
    axis = int(np.argmax(normal))
    if normal[axis] < np.cos(np.radians(25)):
        return "oblique"
    return ("sagittal", "coronal", "axial")[axis]


def _require_geometry(instances: Sequence[Instance]) -> None:
    if len(instances) < 2:
        raise Unfit(f"{len(instances)} slice is no volume")
    for name, size in (("position", 3), ("orientation", 6), ("pixel_spacing", 2)):
        lacking = sum(len(getattr(i, name)) != size for i in instances)
        if lacking:
            keyword = {"position": "ImagePositionPatient", "orientation": "ImageOrientationPatient"}
            raise Unfit(f"{lacking} of {len(instances)} slices have no usable {keyword.get(name, 'PixelSpacing')}")
    if not all(math.isfinite(v) for i in instances for v in (*i.position, *i.orientation, *i.pixel_spacing)):
        raise Unfit("a position, orientation or spacing is no finite number")
    if any(v <= 0 for i in instances for v in i.pixel_spacing):
        raise Unfit("PixelSpacing is not positive")
    if not all(i.rows and i.columns for i in instances):
        raise Unfit("Rows or Columns is missing")
    if any(i.number_of_frames > 1 and not _frame(i) for i in instances):
        raise Unfit("multi-frame instances cannot be stacked slice by slice")


def _require_one(instances: Sequence[Instance], keyword: str, values: set[object]) -> None:
    if len(values) > 1:
        raise Unfit(f"{keyword} differs between the slices ({len(values)} values in {len(instances)} slices)")


def _directions(instances: Sequence[Instance]) -> tuple[Affine, Affine, Affine]:
    orientations = np.array([i.orientation for i in instances], np.float64)
    spread = float(np.abs(orientations - orientations[0]).max())
    if spread > ORIENTATION_TOLERANCE:
        raise Unfit(f"ImageOrientationPatient differs between the slices (by up to {spread:.3f})")
    row, column = orientations[0, :3], orientations[0, 3:]
    if abs(np.linalg.norm(row) - 1) > 0.01 or abs(np.linalg.norm(column) - 1) > 0.01 or abs(row @ column) > 0.01:
        raise Unfit("ImageOrientationPatient is not a pair of orthogonal unit vectors")
    return row, column, np.cross(row, column)


def _regular_step(positions: Affine, normal: Affine) -> Affine:
    steps = np.diff(positions, axis=0)
    along = steps @ normal
    usual = float(np.median(along))
    if along.min() < 1e-3:
        raise Unfit(f"{int((along < 1e-3).sum())} slices repeat a position (several phases or time points)")
    worst = float(np.abs(along - usual).max())
    if worst > max(SPACING_TOLERANCE * usual, 0.01):
        where = int(np.abs(along - usual).argmax()) + 1
        kind = "slices are missing or " if along.max() > 1.5 * usual else ""
        raise Unfit(
            f"{kind}the spacing is irregular: {along[where - 1]:.2f} mm between slices {where} and {where + 1}, "
            f"{usual:.2f} mm elsewhere{_other_gaps(along, usual, where - 1)}"
        )
    return np.asarray((positions[-1] - positions[0]) / (len(positions) - 1), np.float64)


def _other_gaps(along: Affine, usual: float, named: int) -> str:
    """Where else slices are missing, for whoever has to send them again."""
    gaps = [int(k) for k in np.flatnonzero(along > 1.5 * usual) if k != named]
    if not gaps:
        return ""
    places = ", ".join(f"{k + 1} and {k + 2}" for k in gaps[:5])
    more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
    return f" but for gaps between slices {places}{more}"


def _require_upright(step: Affine, normal: Affine, max_tilt_deg: float) -> None:
    shear = float(np.linalg.norm(step - (step @ normal) * normal)) / float(step @ normal)
    tilt = float(np.degrees(np.arctan(shear)))
    if shear > SHEAR_TOLERANCE and tilt > max_tilt_deg:
        raise Unfit(f"the stack is sheared by {tilt:.1f}° (gantry tilt)")


def _require_straight(positions: Affine, step: Affine, pixel_mm: float) -> None:
    # The affine knows one line through all slices: each must lie on it to within half a pixel and half a slice.
    away = np.linalg.norm(positions - positions[0] - np.arange(len(positions))[:, None] * step, axis=1)
    worst, limit = float(away.max()), WANDER_TOLERANCE * min(pixel_mm, float(np.linalg.norm(step)))
    if worst > max(limit, 0.01):
        raise Unfit(f"the stack is crooked: slice {int(away.argmax()) + 1} lies {worst:.2f} mm beside its place")
