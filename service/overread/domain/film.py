"""Planes that are no volume: a film, where the first axis is time, and a single image.

What has no position in the patient (projections, ultrasound) is only scaled, never placed: its affine is in mm of its
own plane, or in pixels where no attribute tells their size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from overread.domain.errors import Unfit
from overread.domain.frame import Frame
from overread.domain.geometry import Affine, Stack
from overread.domain.study import Instance

SAME_PLACE_MM = 0.01


def film(frames: Sequence[Frame]) -> Stack:
    """Frames in their order as one film. Raises Unfit when there are fewer than two, or of several sizes.

    The first column of its affine is one unit along the normal, because no axis of an affine can be time.
    """
    if len(frames) < 2:
        raise Unfit(f"{len(frames)} frame is no film")
    affine, spacing, source = _plane(frames)
    times = _times(frames)
    placed = _one_place(frames)
    return Stack(tuple(frames), affine if placed else _flat(spacing), spacing, "frames", placed, times, source)


def image(frame: Frame) -> Stack:
    """One plane on its own. Raises Unfit when it has no size."""
    affine, spacing, source = _plane([frame])
    placed = _one_place([frame])
    return Stack((frame,), affine if placed else _flat(spacing), spacing, "image", placed, (), source)


def _plane(frames: Sequence[Frame]) -> tuple[Affine, tuple[float, float, float], str]:
    first = frames[0]
    if not first.rows or not first.columns:
        raise Unfit("Rows or Columns is missing")
    if len({(f.rows, f.columns) for f in frames}) > 1:
        raise Unfit("Rows or Columns differs between the frames")
    source, (between_rows, between_columns) = _pixel_size(first)
    spacing = (1.0, between_rows, between_columns)
    affine = _flat(spacing)
    if _has_place(first):
        row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
        affine[:3, 0] = np.cross(row, column)
        affine[:3, 1], affine[:3, 2] = column * between_rows, row * between_columns
        affine[:3, 3] = first.position
    return affine, spacing, source


def _pixel_size(frame: Frame) -> tuple[str, tuple[float, float]]:
    """In the patient if calibrated, else at the detector, else one."""
    for source, given in (("PixelSpacing", frame.pixel_spacing), ("ImagerPixelSpacing", frame.imager_pixel_spacing)):
        if len(given) == 2 and min(given) > 0 and np.isfinite(given).all():
            return source, (float(given[0]), float(given[1]))
    return "", (1.0, 1.0)


def _flat(spacing: tuple[float, float, float]) -> Affine:
    return np.diag([*spacing, 1.0])


def _has_place(instance: Instance) -> bool:
    return len(instance.position) == 3 and len(instance.orientation) == 6 and bool(instance.pixel_spacing)


def _one_place(frames: Sequence[Frame]) -> bool:
    if not all(_has_place(f) for f in frames):
        return False
    places = np.array([(*f.position, *f.orientation) for f in frames])
    return bool(np.abs(places - places[0]).max() < SAME_PLACE_MM)


def _times(frames: Sequence[Frame]) -> tuple[float, ...]:
    times = [f.time if f.time is not None else f.trigger_time for f in frames]
    known = [t for t in times if t is not None]
    if len(known) < len(times):
        return ()
    return tuple((t - known[0]) / 1000.0 for t in known)
