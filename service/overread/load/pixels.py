"""The pixels of many planes, read straight into one array.

What is not compressed goes from the file into the array without a copy, several files at a time; no more of a header is
parsed than the pixels need. Everything else is decoded in a process of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import Refused, Stumbled, Unfit
from overread.domain.study import Instance
from overread.load import decode
from overread.load.stored import KEYWORDS, Layout, layout_of, meaningful, rescaled
from overread.spool.elements import PIXEL_DATA
from overread.spool.header import Header
from overread.spool.pixels import Opened, opened

MOST_VOXELS = 1 << 32
THREADS = min(4, os.cpu_count() or 1)
Voxels = NDArray[np.int16] | NDArray[np.float32]


@dataclass(frozen=True)
class Planes:
    """The planes that come from one file: where they go in the volume, and which frame each is."""

    path: str
    members: tuple[tuple[int, Instance], ...]

    @property
    def numbers(self) -> list[int]:
        """Frames of the file, from 0."""
        return [max(getattr(instance, "frame_number", 0) - 1, 0) for _, instance in self.members]


class _Target:
    """The volume while it fills: 16 bits a voxel, and floats beside it once a plane needs them."""

    def __init__(self, shape: tuple[int, int, int], *, colour: bool) -> None:
        self.shape, self.colour = shape, colour
        self.narrow = np.empty(shape, np.int16)
        self._wide: NDArray[np.float32] | None = None
        self._floats: set[int] = set()
        self._lock = threading.Lock()
        self._layouts: dict[object, Layout] = {}
        self.unit = ""

    def layout(self, header: Header, k: int, modality: str) -> Layout:
        """How the file of plane ``k`` is stored, mostly like the last one; raises Unfit when it has another size."""
        key = header.signature()
        layout = self._layouts.get(key)
        if layout is None:
            layout = self._layouts[key] = layout_of(header, modality)
        if (layout.rows, layout.columns) != self.shape[1:]:
            raise Unfit(f"slice {k + 1} has {(layout.rows, layout.columns)} pixels, not {self.shape[1:]}")
        if not layout.grey and not self.colour:
            raise Unfit("a slice is not a single grey image")
        if k == 0:
            self.unit = layout.unit
        return layout

    def put(self, k: int, plane: NDArray[np.float32] | None) -> None:
        """Plane ``k`` is done: it lies in ``narrow``, unless it comes as floats."""
        if plane is None:
            return
        with self._lock:
            if self._wide is None:
                self._wide = np.empty(self.shape, np.float32)
            self._floats.add(k)
        self._wide[k] = plane

    def voxels(self) -> Voxels:
        """All of it, in the narrower type that holds all."""
        if self._wide is None:
            return self.narrow
        for k in range(self.shape[0]):
            if k not in self._floats:
                self._wide[k] = self.narrow[k]
        return self._wide


def read_planes(
    paths: Sequence[str], instances: Sequence[Instance], shape: tuple[int, int, int], *, colour: bool = False
) -> tuple[Voxels, str]:
    """Voxels (slices, rows, columns) and their unit.

    int16 where every slope is 1, every intercept is whole, and all values fit; else float32. With ``colour`` an image
    in colours comes as its luminance. Raises Unfit when pixels are missing, of another size, in colours without that,
    or cannot be decoded; Stumbled when another attempt may do better.
    """
    if np.prod(shape, dtype=np.int64) > MOST_VOXELS:
        raise Unfit(f"it has {shape[0]} planes of {shape[1]} × {shape[2]} pixels, more than a volume may have")
    target = _Target(shape, colour=colour)
    files = _by_file(paths, instances)
    with ThreadPoolExecutor(THREADS) as threads:
        left = [planes for some in threads.map(lambda f: _read_some(f, target), _shares(files)) for planes in some]
    if left:
        _decode(left, target)
    return target.voxels(), target.unit


def _by_file(paths: Sequence[str], instances: Sequence[Instance]) -> list[Planes]:
    members: dict[str, list[tuple[int, Instance]]] = {}
    for k, (path, instance) in enumerate(zip(paths, instances, strict=True)):
        members.setdefault(path, []).append((k, instance))
    return [Planes(path, tuple(found)) for path, found in members.items()]


def _shares(files: Sequence[Planes]) -> list[Sequence[Planes]]:
    """Neighbours stay together: each thread fills a part of the array of its own."""
    size = max(1, -(-len(files) // (4 * THREADS)))
    return [files[n : n + size] for n in range(0, len(files), size)]


def _read_some(files: Sequence[Planes], target: _Target) -> list[tuple[Planes, Layout]]:
    """Read what is not compressed; returns what is left to decode."""
    return [(planes, layout) for planes in files if (layout := _read(planes, target)) is not None]


def _read(planes: Planes, target: _Target) -> Layout | None:
    """Read all planes of a file; returns how they are stored when they must be decoded instead."""
    first, instance = planes.members[0]
    try:
        with opened(planes.path, KEYWORDS) as file:
            layout = target.layout(file.header, first, instance.modality)
            place = file.pixels.get(PIXEL_DATA)
            if place is None:
                raise Unfit("a slice cannot be decoded (it has no pixels)")
            if place.encapsulated or not layout.grey:
                return layout
            size = layout.rows * layout.columns * layout.allocated // 8
            for (k, frame), number in zip(planes.members, planes.numbers, strict=True):
                if (number + 1) * size > place.length:
                    raise Unfit("a slice cannot be decoded (its pixels are cut off)")
                _read_plane(file, layout, place.offset + number * size, frame, target, k=k)
            return None
    except (Unfit, Stumbled):
        raise
    except Refused as error:
        raise Unfit(f"a slice cannot be decoded ({error})") from error
    except OSError as error:
        raise Stumbled(f"a slice is gone from the spool ({type(error).__name__})") from error


def _read_plane(file: Opened, layout: Layout, offset: int, instance: Instance, target: _Target, *, k: int) -> None:
    out = target.narrow[k]
    plain = layout.allocated == 16 and layout.little
    stored = out.view(layout.dtype) if plain else np.empty(out.shape, layout.dtype)
    buffer: memoryview = stored.data.cast("B")
    if file.read_into(buffer, offset) != len(buffer):
        raise Unfit("a slice cannot be decoded (its pixels are cut off)")
    if not plain:
        stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    target.put(k, rescaled(meaningful(stored, layout), layout, instance, out))


def _decode(left: Sequence[tuple[Planes, Layout]], target: _Target) -> None:
    wanted = [(planes.path, planes.numbers) for planes, _ in left]
    order = [(k, instance, layout) for planes, layout in left for k, instance in planes.members]
    done = iter(order)
    for batch in decode.decode_all(wanted):
        for stored in batch:
            k, instance, layout = next(done)
            if stored.shape != target.shape[1:]:
                raise Unfit(f"slice {k + 1} has {stored.shape} pixels, not {target.shape[1:]}")
            if layout.grey:
                values = rescaled(meaningful(stored, layout), layout, instance, target.narrow[k])
            else:
                values = rescaled(stored, _luminance(layout), instance, target.narrow[k])
            target.put(k, values)


def _luminance(layout: Layout) -> Layout:
    return replace(layout, samples=1, photometric="MONOCHROME2", signed=False, stored=16, padding=None)
