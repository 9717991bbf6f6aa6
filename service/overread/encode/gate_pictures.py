"""The gate for pictures: what was drawn reads back, and outlines are where the segments are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import Misplaced
from overread.encode.display import Drawn, lines
from overread.encode.reread import Reread
from overread.encode.sources import Reference
from overread.ports import Read

NEAR = 3  # pixels of the picture in which a segment's colour must be found around its own border


@dataclass(frozen=True)
class Expected:
    """What a picture must be: its ``pixels`` (rows, columns, 3), the slices that it shows, and the one that is
    ``drawn`` in its top left corner, if it is one."""

    read: Read
    pixels: NDArray[np.uint8]
    references: Sequence[Reference]
    drawn: Drawn | None = None


def check(found: Reread, expected: Expected) -> None:
    """Raise Misplaced, saying what differs."""
    header = found.header
    if header.ConversionType != "WSD" or header.BurnedInAnnotation not in ("YES", "NO"):
        raise Misplaced("the picture does not say how it was made, or whether a patient can be read in it")
    named = {str(i.ReferencedSOPInstanceUID) for i in header.SourceImageSequence}
    if named != {r.sop_instance_uid for r in expected.references}:
        raise Misplaced("the picture does not refer to exactly the slices that it shows")
    rows, columns, samples = expected.pixels.shape
    whole = np.zeros((rows, columns * samples), np.uint8)
    for first, part in found.frames:
        whole[first : first + len(part)] = part
    if not np.array_equal(whole, expected.pixels.reshape(rows, -1)):
        raise Misplaced("the picture is not what was drawn")
    if expected.drawn is not None:
        _outlines(whole.reshape(expected.pixels.shape), expected.drawn, expected.read)


def _outlines(picture: NDArray[np.uint8], drawn: Drawn, read: Read) -> None:
    """The first and last row and column of each segment, as the mask has them, lie where its colour begins and ends."""
    colours = np.array(sorted({colour for colour, _ in lines(read, drawn.k)}), np.uint8)
    for mask in read.findings.layers:
        plane = mask[drawn.k]
        for segment in read.findings.segments:
            where = np.argwhere(plane == segment.value)
            if len(where) and not _bordered(picture, where, drawn, colours):
                raise Misplaced(f"the outline of segment {segment.value} is not drawn where the segment is")


def _bordered(picture: NDArray[np.uint8], where: NDArray[np.intp], drawn: Drawn, colours: NDArray[np.uint8]) -> bool:
    """Whether an outline is near the outer edge of the segment's uppermost, lowest, leftmost and rightmost pixel; in
    whatever colour, because that of a neighbour may lie over it."""
    across, down = drawn.scale
    for axis, end in ((0, False), (0, True), (1, False), (1, True)):
        row, column = where[where[:, axis].argmax() if end else where[:, axis].argmin()]
        y, x = (row + (end if axis == 0 else 0.5)) * down, (column + (end if axis == 1 else 0.5)) * across
        near = picture[_span(y, drawn.picture.height), _span(x, drawn.picture.width)].reshape(-1, 1, 3)
        if not (near == colours).all(axis=2).any():
            return False
    return True


def _span(at: float, size: int) -> slice:
    return slice(max(int(at) - NEAR, 0), min(int(at) + NEAR + 1, size))
