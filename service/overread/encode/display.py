"""A slice as a picture for people: windowed, with the outlines of what was found in their colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset

from overread.domain.findings import Segment
from overread.encode.boxes import rectangle
from overread.encode.outline import Points, contours
from overread.encode.sources import Sources
from overread.ports import Read

SIZE = 640  # of the longer side of a slice
NOTICE = "AI result, not a diagnosis"
WHITE, GREY, DARK, BLACK = (255, 255, 255), (160, 160, 160), (40, 40, 40), (0, 0, 0)
HIGHLIGHT = (255, 204, 0)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Drawn:
    """A slice drawn: ``scale`` is (across, down), from the image's pixels to the picture's."""

    k: int
    picture: Image.Image
    scale: tuple[float, float]


def draw(read: Read, sources: Sources, k: int, size: int = SIZE) -> Drawn:
    """Slice ``k`` with the outlines of the segments and boxes on it; its pixels are as wide as they are high."""
    grey = windowed(np.asarray(read.volume.voxels[k], np.float32), read, sources.headers[0])
    rows, columns = grey.shape
    _, between_rows, between_columns = read.volume.spacing_mm
    scale = size / max(rows * between_rows, columns * between_columns)
    across, down = scale * between_columns, scale * between_rows
    shape = (max(1, round(columns * across)), max(1, round(rows * down)))
    picture = Image.fromarray(grey).resize(shape, Image.Resampling.BILINEAR).convert("RGB")
    picture = _heated(picture, read, k)
    pen = ImageDraw.Draw(picture)
    for colour, line in lines(read, k):
        points = [(min(float(x) * across, shape[0] - 1), min(float(y) * down, shape[1] - 1)) for x, y in line]
        pen.line(points, fill=colour, width=2, joint="curve")
    return Drawn(k, picture, (across, down))


def _heated(picture: Image.Image, read: Read, k: int) -> Image.Image:
    """What the model looked at, in its class's colour over the picture, the stronger the more it counted."""
    colours = {label.value: label.color for label in read.card.labels}
    for value, seen in read.findings.saliency.items():
        strength = Image.fromarray((seen[k].astype(np.float32) * 128).astype(np.uint8)).resize(picture.size)
        picture = Image.composite(Image.new("RGB", picture.size, colours.get(value, HIGHLIGHT)), picture, strength)
    return picture


def lines(read: Read, k: int) -> Iterator[tuple[Colour, Points]]:
    """Every line on slice ``k``, with its colour; those of small things last, so that they lie over those of large."""
    found = read.findings
    for box in found.detections:
        if round(box.low[0]) <= k <= round(box.high[0]):
            yield box.label.color, rectangle(box, read.volume.stack.shape)[1]
    colours = {segment.value: segment.label.color for segment in found.segments}
    sizes = sorted(
        ((count, value, layer[k]) for layer in found.layers for value, count in _sizes(layer[k]) if value in colours),
        key=lambda one: -one[0],
    )
    for _, value, plane in sizes:
        yield from ((colours[value], line) for line in contours(plane == value))


def _sizes(plane: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Each value above 0, with the number of its pixels."""
    counts = np.bincount(plane.ravel(), minlength=256)
    return ((value, int(counts[value])) for value in range(1, 256) if counts[value])


def shown(read: Read, k: int) -> list[Segment]:
    """The segments on slice ``k``."""
    held = {int(v) for layer in read.findings.layers for v in np.unique(layer[k])}
    return [segment for segment in read.findings.segments if segment.value in held]


def windowed(plane: NDArray[np.float32], read: Read, header: Dataset) -> NDArray[np.uint8]:
    """Grey values 0 … 255: by the card's window, else by the header's, else from the 1st to the 99th percentile."""
    low, high = _window(plane, read.card.window or _header_window(header))
    grey = np.clip((plane - low) / max(high - low, 1e-6), 0, 1) * 255
    inverted = str(header.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    found: NDArray[np.uint8] = np.rint(255 - grey if inverted else grey).astype(np.uint8)
    return found


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The library's own font, the same on every machine."""
    return ImageFont.load_default(size)


def _window(plane: NDArray[np.float32], window: Sequence[float]) -> tuple[float, float]:
    if len(window) == 2 and window[1] > 0:
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    low, high = np.percentile(plane, (1, 99))
    return float(low), float(high)


def _header_window(header: Dataset) -> tuple[float, ...]:
    """The first window of the header; empty when it names none."""
    found = []
    for keyword in ("WindowCenter", "WindowWidth"):
        value = header.get(keyword)
        values = [value] if isinstance(value, str | float | int) else list(value or [])
        try:
            found.append(float(values[0]))
        except (ValueError, TypeError, IndexError):
            return ()
    return tuple(found)
