"""Which class wins, on the network's grid or, of probabilities brought back linearly, on the source's: row by row.

Nothing of the size of all classes on a grid is ever there. Most of a source grid lies between voxels that agree; the
rest is interpolated in the cheapest way, and computed as MONAI would, sums and rounding, only where two classes come so
close that this could make a difference. So the labels are those of MONAI's Invertd and argmax, voxel for voxel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from overread.domain.errors import CardError
from overread.infer.respaced import Along
from overread.infer.sampling import Places, nearest
from overread.infer.sliding import Row

SURE = 0.5 + 1e-4  # who has more than half has won
CLOSE = 1e-5  # more than sums of parts of 1 in float32 can be wrong, as a share of their value
LATE = 8  # rows on their way from a GPU
BEHIND = 2  # rows that wait to be brought back; each has all classes
Labels = NDArray[Any]


@dataclass(frozen=True)
class Slab:
    """One decided row on the CPU: ``likely`` (classes, y, z) float32, and ``label`` (y, z), the class that wins, the
    first of equals."""

    x: int
    likely: NDArray[np.float32]
    label: NDArray[Any]

    def sure(self) -> NDArray[np.int32]:
        """(y, z) the winner where it has more than half, else -1."""
        return np.where(self.likely.max(axis=0) > SURE, self.label, -1).astype(np.int32)

    def chances(self) -> NDArray[np.bool_]:
        """(classes,) whether one may win anywhere: as they sum up to 1, the winner has at least its even share."""
        found: NDArray[np.bool_] = self.likely.max(axis=(1, 2)) > 1 / len(self.likely) - 1e-4
        return found


def slabs(rows: Iterator[Row], *, softmax: bool, labels_only: bool = False) -> Iterator[Slab]:
    """Each row decided; a blank place is background. Raises CardError when the network's answer is no number.

    From a GPU they come a few rows late, through pinned memory, so that it need not wait for the copies.
    """
    late: deque[tuple[int, list[torch.Tensor], Any]] = deque()
    for row in rows:
        likely = torch.softmax(row.answer, dim=0) if softmax else row.answer
        if row.blank is not None:
            likely = likely.masked_fill(row.blank, 0.0 if softmax else -torch.inf)
            likely[0].masked_fill_(row.blank, 1.0)
        best, label = likely.max(dim=0)
        parts = [torch.isfinite(best).all(), label] + ([] if labels_only else [likely])
        late.append((row.x, *_leave(parts)))
        while len(late) > (LATE if row.answer.is_cuda else 0):
            yield _arrived(*late.popleft())
    while late:
        yield _arrived(*late.popleft())


def decided(
    rows: Iterator[Row], way: Along | None, *, softmax: bool, linear: bool, threads: int | None = None
) -> Labels:
    """(x, y, z) labels of the rows of an image: on its own grid where there is no ``way`` to the source's, or there,
    with the probabilities brought back (``linear``) or the labels."""
    threads = threads or torch.get_num_threads()
    if linear and way is not None:
        return there(slabs(rows, softmax=softmax), way, threads)
    labels = here(slabs(rows, softmax=softmax, labels_only=True))
    if way is None:
        return labels
    found: Labels = np.empty(way.shape, labels.dtype)
    nearest(labels, way.coordinates, found, threads)
    return found


def here(found: Iterator[Slab]) -> Labels:
    """(x, y, z) labels on the network's own grid."""
    labels: Labels = np.stack([slab.label.astype(np.int16) for slab in found])
    return labels if labels.max() > 255 else labels.astype(np.uint8)


def there(found: Iterator[Slab], way: Along, threads: int) -> Labels:
    """(x, y, z) labels on the source's grid, of softmax probabilities brought back along ``way``, linearly.

    It is done beside the network, by ``threads``: while the next windows are read, the rows before are brought back.
    """
    xs, ys, zs = way.places()
    turns = [np.flatnonzero(xs.low == x) for x in range(way.sizes[0])]
    labels: Labels = np.zeros(0)
    last: Slab | None = None
    with ThreadPoolExecutor(threads) as beside:
        waiting: deque[Future[None]] = deque()
        for slab in found:
            if last is None:
                labels = np.zeros(way.shape, np.uint8 if len(slab.likely) <= 256 else np.int16)
            pairs = [(last, slab)] if last is not None else []
            pairs += [(slab, slab)] if slab.x == way.sizes[0] - 1 else []
            for low, high in pairs:
                places = turns[low.x]
                if len(places):
                    out = labels[places[0] : places[-1] + 1]
                    waiting.append(beside.submit(_between, low, high, [xs.part(places), ys, zs], out))
            while len(waiting) > threads + BEHIND:
                waiting.popleft().result()
            last = slab
        for job in waiting:
            job.result()
    return labels


def _leave(parts: list[torch.Tensor]) -> tuple[list[torch.Tensor], Any]:
    """On their way to the CPU, and what tells when they are there."""
    if not parts[0].is_cuda:
        return parts, None
    kept = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
    for ours, part in zip(kept, parts, strict=True):
        ours.copy_(part, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return kept, event


def _arrived(x: int, parts: list[torch.Tensor], event: Any) -> Slab:
    if event is not None:
        event.synchronize()
    finite, label, *likely = parts
    if not bool(finite):
        raise CardError("the bundle's output has values that are no numbers")
    return Slab(x, likely[0].numpy() if likely else np.empty((0, 0, 0), np.float32), label.numpy())


def _between(low: Slab, high: Slab, axes: list[Places], out: Labels) -> None:
    """The planes of the source between two rows, into ``out`` (planes, y, z)."""
    xs, ys, zs = axes
    agreed = _alike(low.sure(), high.sure())
    for axis in (0, 1):
        following = np.minimum(np.arange(agreed.shape[axis]) + 1, agreed.shape[axis] - 1)
        agreed = _alike(agreed, np.take(agreed, following, axis))
    known = np.take(agreed[ys.low], zs.low, axis=1)
    out[:] = np.maximum(known, 0)
    open_rows, open_columns = np.flatnonzero((known < 0).any(axis=1)), np.flatnonzero((known < 0).any(axis=0))
    if not len(open_rows):
        return
    classes = np.flatnonzero(low.chances() | high.chances())
    part = [ys.part(open_rows), zs.part(open_columns)]
    for n in range(len(xs)):
        x = xs.part(slice(n, n + 1))
        out[n][np.ix_(open_rows, open_columns)] = _contest(low.likely, high.likely, classes, [x, *part])


def _alike(one: NDArray[np.int32], other: NDArray[np.int32]) -> NDArray[np.int32]:
    """What both say, -1 where they differ."""
    return np.where(one == other, one, -1).astype(np.int32)


def _contest(low: Labels, high: Labels, classes: NDArray[np.intp], axes: list[Places]) -> NDArray[np.intp]:
    """(y, z) which of ``classes`` wins on one plane between the rows ``low`` and ``high``."""
    x, ys, zs = axes
    shape = len(ys), len(zs)
    if len(classes) == 2:
        ahead = _cheap(low[classes[1]] - low[classes[0]], high[classes[1]] - high[classes[0]], x, ys, zs)
        winner = classes[(ahead > 0).astype(np.intp)]
        return _settled(winner, np.abs(ahead) < CLOSE, (low, high), classes=classes, axes=axes)
    best, second = np.full(shape, -1, np.float32), np.full(shape, -1, np.float32)
    winner = np.zeros(shape, np.intp)
    for k in classes:
        found = _cheap(low[k], high[k], x, ys, zs)
        winner[found > best] = k
        np.maximum(second, np.minimum(found, best), out=second)
        np.maximum(best, found, out=best)
    return _settled(winner, best - second < CLOSE * best, (low, high), classes=classes, axes=axes)


def _settled(
    winner: NDArray[np.intp],
    close: NDArray[np.bool_],
    rows: tuple[Labels, Labels],
    *,
    classes: NDArray[np.intp],
    axes: list[Places],
) -> NDArray[np.intp]:
    """``winner`` with what is ``close`` computed anew, as MONAI does."""
    if close.any():
        y, z = np.nonzero(close)
        winner[y, z] = classes[_exact(rows, classes, [axes[0], axes[1].part(y), axes[2].part(z)])]
    return winner


def _cheap(low: Labels, high: Labels, x: Places, ys: Places, zs: Places) -> NDArray[np.float32]:
    """One class on one plane, axis after axis in float32."""
    before, after = np.float32(x.weight_low[0]), np.float32(x.weight_high[0])
    row = low * before + high * after
    columns = row[ys.low] * ys.weight_low.astype(np.float32)[:, None]
    columns += row[ys.high] * ys.weight_high.astype(np.float32)[:, None]
    found = np.take(columns, zs.low, axis=1) * zs.weight_low.astype(np.float32)
    found += np.take(columns, zs.high, axis=1) * zs.weight_high.astype(np.float32)
    return np.asarray(found, np.float32)


def _exact(rows: tuple[Labels, Labels], classes: NDArray[np.intp], axes: list[Places]) -> NDArray[np.intp]:
    """Which of ``classes`` wins at single places, as ``sampling`` sums and rounds."""
    total = np.zeros((len(classes), len(axes[1])), axes[0].weight_low.dtype)
    for corner in product((0, 1), repeat=3):
        weights = [axis.corner(c) for axis, c in zip(axes, corner, strict=True)]
        weight = (weights[2][1] * weights[1][1]) * weights[0][1]
        values = rows[corner[0]][classes[:, None], weights[1][0], weights[2][0]]
        total += values.astype(total.dtype) * weight
    return np.asarray(total.astype(np.float32).argmax(axis=0), np.intp)
