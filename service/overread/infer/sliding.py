"""A sliding window whose sums are let go of, row by row, as soon as no window will add to them.

Windows, batches, weights and the order of additions are those of MONAI's ``SlidingWindowInferer``, so that the numbers
are, bit for bit; only a volume of the size of the image for each class is never there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.utils import BlendMode, fall_back_tuple, look_up_option
from monai.utils.enums import PytorchPadMode
from torch import Tensor

from overread.infer import heap, windows

Predict = Callable[[Tensor], Iterator[Any]]
Box = tuple[slice, ...]
LEAST = 1e-30  # where no window looked
TIDY = 3  # batches of windows; pages that were given back are paid for when they are asked for again


class Odd(Exception):
    """The network's answer is none that can be summed up row by row."""


@dataclass(frozen=True)
class Row:
    """Row ``x`` of the image: the mean of the windows' answers, (classes, y, z) float32, on the device; ``blank``
    (y, z) where a window was left out because nothing was in it, None where none was."""

    x: int
    answer: Tensor
    blank: Tensor | None


@dataclass(frozen=True)
class Look:
    """How an image is looked at. ``roi`` has -1 for the image's own size; ``empty_at_most``: windows in which no value
    is higher are left out, None leaves out none."""

    roi: tuple[int, ...]
    batch: int
    overlap: tuple[float, ...]
    mode: str
    sigma: Any
    padding: str
    fill: float
    empty_at_most: float | None = None

    def rows(self, image: Tensor, predict: Predict) -> Iterator[Row]:
        """All rows of ``image`` (channels, x, y, z) in turn. Raises Odd before the first when ``predict`` answers with
        anything but tensors (windows, classes, x, y, z) of the windows' size, together as many as there are windows."""
        roi = fall_back_tuple(self.roi, image.shape[1:])
        padded, before = _padded(image, roi, self)
        boxes = _boxes(tuple(padded.shape[1:]), roi, self.overlap)
        weight = self._weight(roi, image.device)
        keep, blank = self._worth(padded, boxes)
        sums = _Sums(tuple(padded.shape[2:]), weight, keep, blank)
        inside = tuple(slice(b, b + size) for b, size in zip(before, image.shape[1:], strict=True))
        at_once = windows.batch(self.batch)
        for n in range(0, len(keep), at_once):
            some = keep[n : n + at_once]
            answers = self._answers(padded, some, roi, predict)
            for box in some:
                yield from sums.done(box[0].start, inside)
                sums.add(box, next(answers))
            if n // at_once % TIDY == 0:
                heap.give_back()
            ahead = keep[n + at_once][0].start if n + at_once < len(keep) else padded.shape[1]
            yield from sums.done(ahead, inside)

    def _answers(
        self, padded: Tensor, boxes: Sequence[Box], roi: Sequence[int], predict: Predict
    ) -> Iterator[Tensor]:
        """(classes, x, y, z) for each of ``boxes``."""
        lacking = len(boxes)
        for some in predict(torch.cat([padded[(None, slice(None), *box)] for box in boxes])):
            if not isinstance(some, Tensor) or some.ndim != 5 or tuple(some.shape[2:]) != tuple(roi):
                raise Odd
            lacking -= len(some)
            if lacking < 0:
                raise Odd
            yield from some.float().contiguous()
            del some
        if lacking:
            raise Odd

    def _weight(self, roi: tuple[int, ...], device: torch.device) -> Tensor | None:
        """(x, y, z); None where all weigh 1."""
        if look_up_option(self.mode, BlendMode) == BlendMode.CONSTANT:
            return None
        weight: Tensor = compute_importance_map(roi, mode=self.mode, sigma_scale=self.sigma, device=device)
        return weight

    def _worth(self, padded: Tensor, boxes: list[Box]) -> tuple[list[Box], list[Box]]:
        """The windows to look at, and those that are empty; one is always looked at, for it tells the classes."""
        if self.empty_at_most is None:
            return boxes, []
        full = [bool(padded[(slice(None), *box)].max() > self.empty_at_most) for box in boxes]
        full[0] = full[0] or not any(full)
        chosen = list(zip(boxes, full, strict=True))
        return [box for box, worth in chosen if worth], [box for box, worth in chosen if not worth]


def look(inferer: Any, empty_at_most: float | None = None) -> Look | None:
    """How ``inferer`` looks at a volume; None when it is another kind, or asked for what is not done here."""
    if type(inferer) is SimpleInferer:
        return Look((-1,) * 3, 1, (0.0,) * 3, "constant", 0.125, "constant", 0.0)
    if type(inferer) is not SlidingWindowInferer or inferer.buffer_steps or inferer.with_coord or inferer.cpu_thresh:
        return None
    roi = (inferer.roi_size,) * 3 if isinstance(inferer.roi_size, int) else tuple(inferer.roi_size)
    overlap = (inferer.overlap,) * 3 if isinstance(inferer.overlap, int | float) else tuple(inferer.overlap)
    if len(roi) != 3 or len(overlap) != 3:
        return None
    padding = str(look_up_option(inferer.padding_mode, PytorchPadMode).value)
    made = (roi, inferer.sw_batch_size, overlap, str(inferer.mode.value), inferer.sigma_scale, padding, inferer.cval)
    return Look(*made, empty_at_most)


class _Sums:
    """The rows that windows still add to, in blocks between which windows begin and end."""

    def __init__(self, plane: tuple[int, ...], weight: Tensor | None, boxes: Sequence[Box], blank: list[Box]) -> None:
        self._plane, self._weight, self._blank = plane, weight, blank
        ends = {end for box in (*boxes, *blank) for end in (box[0].start, box[0].stop)}
        self._ends = sorted(ends)
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, Tensor] = {}
        self._like = torch.empty(0)
        self._next = 0

    def add(self, box: Box, answer: Tensor) -> None:
        """The answer (classes, x, y, z) to the window ``box``, which is used up."""
        self._like = torch.empty_like(answer[:, 0, 0, 0])
        if self._weight is not None:
            answer *= self._weight
        xs, ys, zs = box
        for start, stop in pairwise(e for e in self._ends if xs.start <= e <= xs.stop):
            self._open(start, stop)
            part = slice(start - xs.start, stop - xs.start)
            self._sums[start][:, :, ys, zs] += answer[:, part]
            self._counts[start][:, ys, zs] += 1 if self._weight is None else self._weight[part]

    def done(self, ahead: int, inside: Box) -> Iterator[Row]:
        """The rows before ``ahead``, where a window begins or all end, without what was padded; none as long as no
        answer has told how many classes there are."""
        if not len(self._like):
            return
        xs, ys, zs = inside
        for start, stop in pairwise(e for e in self._ends if self._next <= e <= ahead):
            self._open(start, stop)
            total, count = self._sums.pop(start), self._counts.pop(start)
            if self._blank:
                count.clamp_(min=LEAST)
            total /= count
            for x in range(max(start, xs.start), min(stop, xs.stop)):
                yield Row(x - xs.start, total[:, x - start, ys, zs], self._left_out(x, ys, zs))
        self._next = max(self._next, ahead)

    def _open(self, start: int, stop: int) -> None:
        if start not in self._sums:
            shape = (stop - start, *self._plane)
            self._sums[start] = torch.zeros((len(self._like), *shape), device=self._like.device)
            self._counts[start] = torch.zeros(shape, device=self._like.device)

    def _left_out(self, x: int, ys: slice, zs: slice) -> Tensor | None:
        through = [box for box in self._blank if box[0].start <= x < box[0].stop]
        if not through:
            return None
        blank = torch.zeros(self._plane, dtype=torch.bool, device=self._like.device)
        for box in through:
            blank[box[1], box[2]] = True
        return blank[ys, zs]


def _padded(image: Tensor, roi: Sequence[int], look: Look) -> tuple[Tensor, list[int]]:
    """The image, no smaller than a window, and how much was put before it along each axis."""
    lacking = [max(size - here, 0) for size, here in zip(roi, image.shape[1:], strict=True)]
    before = [size // 2 for size in lacking]
    if not any(lacking):
        return image, before
    pads = [part for size in reversed(lacking) for part in (size // 2, size - size // 2)]
    padded: Tensor = torch.nn.functional.pad(image[None], pads, mode=look.padding, value=look.fill)
    return padded[0], before


def _boxes(shape: tuple[int, ...], roi: tuple[int, ...], overlap: Sequence[float]) -> list[Box]:
    steps = [
        size if size == here else max(1, int(size * (1 - share)))
        for size, here, share in zip(roi, shape, overlap, strict=True)
    ]
    return [tuple(box) for box in dense_patch_slices(shape, roi, steps)]
