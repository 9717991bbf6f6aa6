"""What came home, seen from outside: a SEG read by its own bytes alone, against the truth, and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colors = dict[int, tuple[int, int, int]]
FALLBACK_COLOR = (255, 220, 0)


@dataclass(frozen=True)
class Overlay:
    """A segmentation on its source images.

    ``hu`` (slices, rows, columns) float32, HU; ``segments`` the same shape, uint8, numbers of ``names``; slices in the
    order of increasing position along the normal. ``aspect`` is slice spacing over row spacing.
    """

    hu: NDArray[np.float32]
    segments: NDArray[np.uint8]
    names: dict[int, str]
    aspect: float


def read_overlay(segmentation: Path, images: Sequence[Path]) -> Overlay:
    """Put a BINARY segmentation on its images by patient position alone (PS3.3 C.7.6.16.2.3).

    Raises ValueError when a frame lies on none of the images.
    """
    seg = pydicom.dcmread(segmentation)
    slices = sorted((pydicom.dcmread(p) for p in images), key=_along)
    slices = [s for s in slices if s.SeriesInstanceUID == seg.ReferencedSeriesSequence[0].SeriesInstanceUID]
    hu = np.stack([_hu(s) for s in slices])
    segments = np.zeros(hu.shape, np.uint8)
    frames = np.atleast_3d(seg.pixel_array) if seg.NumberOfFrames > 1 else seg.pixel_array[None]
    shared = seg.SharedFunctionalGroupsSequence[0]
    heights = np.array([_along(s) for s in slices])
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        height = float(position @ _normal(slices[0]))
        at = int(np.abs(heights - height).argmin())
        if not np.allclose(position, np.array(slices[at].ImagePositionPatient, float), atol=0.01):
            raise ValueError("a frame of the segmentation lies on none of the images")
        number = (groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence)[0]
        segments[at][frame > 0] = number.ReferencedSegmentNumber
    names = {int(s.SegmentNumber): str(s.SegmentLabel) for s in seg.SegmentSequence}
    aspect = float(abs(heights[-1] - heights[0]) / max(1, len(heights) - 1) / float(slices[0].PixelSpacing[0]))
    return Overlay(hu, segments, names, aspect)


def dice(overlay: Overlay, truth: NDArray[np.uint8], labels: dict[int, str]) -> dict[str, float]:
    """Dice of each truth label against all segments whose name begins with it; labels that nobody has are left out.

    ``truth`` (slices, rows, columns) uint8 on the same slices.
    """
    found = {}
    for value, name in labels.items():
        numbers = [n for n, title in overlay.names.items() if title.lower().startswith(name)]
        mask, real = np.isin(overlay.segments, numbers), truth == value
        total = int(mask.sum()) + int(real.sum())
        if total:
            found[name] = 2 * int((mask & real).sum()) / total
    return found


def montage(
    overlay: Overlay,
    colors: dict[str, tuple[int, int, int]],
    path: Path,
    *,
    count: int = 8,
    window: tuple[float, float] = (-1000.0, 400.0),
) -> None:
    """Write a PNG: ``count`` slices through what was segmented, images above overlays; ``window``: black and white."""
    tint = {n: _color(title, colors) for n, title in overlay.names.items()}
    inhabited = np.flatnonzero(overlay.segments.any(axis=(1, 2)))
    if not len(inhabited):
        inhabited = np.arange(len(overlay.hu))
    chosen = inhabited[np.linspace(0, len(inhabited) - 1, min(count, len(inhabited))).round().astype(int)]
    tiles = [_pair(overlay.hu[k], overlay.segments[k], tint, window) for k in chosen]
    columns = 4
    rows = [np.concatenate(tiles[n : n + columns], 1) for n in range(0, len(tiles), columns)]
    width = max(r.shape[1] for r in rows)
    sheet = np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows])
    picture = Image.fromarray(sheet)
    draw = ImageDraw.Draw(picture)
    for line, (name, color) in enumerate(sorted({_stem(t): _color(t, colors) for t in overlay.names.values()}.items())):
        draw.text((6, 4 + 12 * line), name, fill=color)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _pair(
    hu: NDArray[np.float32], segments: NDArray[np.uint8], tint: Colors, window: tuple[float, float]
) -> NDArray[np.uint8]:
    step = max(1, hu.shape[0] // 256)
    hu, segments = hu[::step, ::step], segments[::step, ::step]
    low, high = window
    grey = np.clip((hu - low) / max(high - low, 1e-6), 0, 1)[..., None] * np.array([255.0, 255.0, 255.0])
    painted = grey.copy()
    for number, color in tint.items():
        inside = segments == number
        painted[inside] = painted[inside] * 0.55 + np.array(color) * 0.45
    return np.concatenate([grey, painted]).astype(np.uint8)


def _stem(title: str) -> str:
    return title.rstrip("0123456789 ")


def _color(title: str, colors: dict[str, tuple[int, int, int]]) -> tuple[int, int, int]:
    return colors.get(_stem(title), FALLBACK_COLOR)


def _hu(image: pydicom.Dataset) -> NDArray[np.float32]:
    values = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    return np.asarray(values, np.float32)


def _normal(image: pydicom.Dataset) -> NDArray[np.float64]:
    orientation = np.array(image.ImageOrientationPatient, float)
    return np.cross(orientation[:3], orientation[3:])


def _along(image: pydicom.Dataset) -> float:
    if "ImageOrientationPatient" not in image:
        return 0.0
    return float(np.array(image.ImagePositionPatient, float) @ _normal(image))
