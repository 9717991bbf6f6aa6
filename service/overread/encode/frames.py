"""Which frames a segmentation has, and their pixels: found by bounding boxes, packed row by row, never a 4-D stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from overread.encode.layers import Layer

MOST_FRACTION = 255

Mask = NDArray[np.uint8]
Probabilities = Mapping[int, NDArray[np.float16]]
Rows = tuple[int, int]


class Frame(NamedTuple):
    """One frame: its segment's number (0 in a label map), its slice, and the rows from … to in which anything is."""

    number: int
    k: int
    rows: Rows


class Piece(NamedTuple):
    """Bytes at their place in the pixel data; what lies between pieces is zero."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class Pixels:
    """The pixels of a layer; ``probabilities`` of its segments' values, (slices, rows, columns) each."""

    layer: Layer
    probabilities: Probabilities

    def frames(self, method: str, *, full: bool) -> list[Frame]:
        """All frames of one method in the order of segments, then of slices; empty ones only when ``full``."""
        if method == "labelmap":
            found = {0: _label_map_rows(self.layer.mask)}
        elif method == "fractional":
            found = {n: self._fraction_rows(n) for n in range(1, len(self.layer.segments) + 1)}
        else:
            found = _segment_rows(self.layer)
        slices = range(len(self.layer.mask))
        return [
            Frame(number, k, rows.get(k, (0, 0)))
            for number, rows in found.items()
            for k in (slices if full else sorted(rows))
        ]

    def rows(self, method: str, frame: Frame) -> Mask:
        """The pixels of ``frame`` in its rows: (rows, columns) uint8, 0 and 1 where binary."""
        first, last = frame.rows
        if method == "fractional":
            value = self.layer.segments[frame.number - 1].value
            return fraction(self.probabilities[value][frame.k, first:last])
        part = self.layer.mask[frame.k, first:last]
        if method == "labelmap":
            return _numbered(part, self.layer)
        found: Mask = (part == self.layer.segments[frame.number - 1].value).view(np.uint8)
        return found

    def plane(self, method: str, frame: Frame) -> Mask:
        """The pixels of ``frame``: (rows, columns) uint8."""
        whole = np.zeros(self.layer.mask.shape[1:], np.uint8)
        whole[slice(*frame.rows)] = self.rows(method, frame)
        return whole

    def pieces(self, method: str, frames: list[Frame]) -> Iterator[Piece]:
        """The pixel data of ``frames``, native: one bit a pixel where binary, bits running on from frame to frame
        (PS3.5 8.1.1), else a byte."""
        rows, columns = self.layer.mask.shape[1:]
        for n, frame in enumerate(frames):
            begin = (n * rows + frame.rows[0]) * columns
            pixels = self.rows(method, frame).ravel()
            if method != "binary":
                yield Piece(begin, pixels.tobytes())
            elif begin % 8:
                shifted = np.concatenate([np.zeros(begin % 8, np.uint8), pixels])
                yield Piece(begin // 8, np.packbits(shifted, bitorder="little").tobytes())
            else:
                yield Piece(begin // 8, np.packbits(pixels, bitorder="little").tobytes())

    def _fraction_rows(self, number: int) -> dict[int, Rows]:
        probabilities = self.probabilities[self.layer.segments[number - 1].value]
        rows: dict[int, NDArray[np.bool_]] = {
            k: np.any(fraction(plane), axis=1) for k, plane in enumerate(probabilities)
        }
        return {k: _span(held) for k, held in rows.items() if held.any()}


def _segment_rows(layer: Layer) -> dict[int, dict[int, Rows]]:
    """For each number: the slices where its segment is, with the rows."""
    boxes = _boxes(layer.mask)
    found: dict[int, dict[int, Rows]] = {}
    for number, segment in enumerate(layer.segments, 1):
        box = boxes[segment.value - 1] if segment.value <= len(boxes) else None
        found[number] = {}
        if box is not None:
            rows = (layer.mask[box] == segment.value).any(axis=2)
            top = box[1].start
            for k in np.flatnonzero(rows.any(axis=1)):
                first, last = _span(rows[k])
                found[number][box[0].start + int(k)] = (top + first, top + last)
    return found


def _boxes(mask: Mask) -> list[tuple[slice, ...] | None]:
    """``ndimage.find_objects``, which looks at every voxel, on the part of the mask in which anything is."""
    slices = np.flatnonzero(_held(mask.reshape(len(mask), -1)))
    first, last = int(slices[0]), int(slices[-1]) + 1
    rows = np.flatnonzero(np.logical_or.reduce([_held(plane) for plane in mask[first:last]]))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    found = ndimage.find_objects(mask[first:last, top:bottom])
    return [None if box is None else (_moved(box[0], first), _moved(box[1], top), box[2]) for box in found]


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _held(lines: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """In which lines (n, length) anything is; eight bytes at a time where they fit."""
    whole = lines.view(np.uint64) if lines.shape[1] % 8 == 0 and lines.flags.c_contiguous else lines
    found: NDArray[np.bool_] = np.any(whole, axis=1)
    return found


def _label_map_rows(mask: Mask) -> dict[int, Rows]:
    rows: NDArray[np.bool_] = np.any(mask, axis=2)
    return {int(k): _span(rows[k]) for k in np.flatnonzero(rows.any(axis=1))}


def _span(rows: NDArray[np.bool_]) -> Rows:
    held = np.flatnonzero(rows)
    return int(held[0]), int(held[-1]) + 1


def fraction(probabilities: NDArray[np.float16]) -> Mask:
    """Probabilities 0 … 1 as 0 … 255."""
    found: Mask = np.rint(probabilities.astype(np.float32) * MOST_FRACTION).astype(np.uint8)
    return found


def _numbered(part: Mask, layer: Layer) -> Mask:
    """Values of the mask as numbers of the segmentation."""
    if all(s.value == n for n, s in enumerate(layer.segments, 1)):
        return part
    numbers = np.zeros(256, np.uint8)
    for n, segment in enumerate(layer.segments, 1):
        numbers[segment.value] = n
    return numbers[part]
