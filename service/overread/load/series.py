"""Slices in the spool → voxels in the modality's unit, slice by slice with its own rescale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from overread.domain.errors import Stumbled, Unfit
from overread.domain.geometry import Stack, stack
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.spool import Spool

LOWEST_HU = -1024.0
DECODE_S = 600.0


def load(spool: Spool, instances: Sequence[Instance]) -> Volume:
    """Load one series.

    Returns a volume whose voxels are (slices, rows, columns) int16 where every rescaled value is a whole number that
    fits, else float32. Raises Unfit when the slices are not one regular stack or a slice cannot be decoded.
    """
    stacked = stack([i for i in instances if not i.is_localizer])
    paths = [spool.absolute(i.path) for i in stacked.instances]
    voxels = np.empty(stacked.shape, np.float32)
    for n, plane in enumerate(_planes(paths, stacked)):
        if plane.shape != stacked.shape[1:]:
            raise Unfit(f"slice {n + 1} has {plane.shape} pixels, not {stacked.shape[1:]}")
        voxels[n] = plane
    if stacked.instances[0].modality == "CT":
        np.maximum(voxels, LOWEST_HU, out=voxels)
    return Volume(_compact(voxels), stacked, tuple(str(p) for p in paths))


def _planes(paths: Sequence[Path], stacked: Stack) -> Iterator[NDArray[np.float32]]:
    syntaxes = {UID(i.transfer_syntax_uid) for i in stacked.instances}
    if not any(s.is_encapsulated or s == DeflatedExplicitVRLittleEndian for s in syntaxes):
        yield from map(_plane, paths)
        return
    # Decoders of compressed pixels crash and hang on crafted streams: they run in a process that may die.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(_plane, paths, chunksize=8, timeout=DECODE_S)
        except BrokenProcessPool as error:
            raise Stumbled("the decoder process died while decoding compressed pixels") from error
        except TimeoutError as error:
            for process in list(pool._processes.values()):
                process.kill()
            raise Stumbled(f"compressed pixels were not decoded within {DECODE_S:g} s") from error


def _plane(path: Path) -> NDArray[np.float32]:
    try:
        dataset = pydicom.dcmread(path)
        pixels = dataset.pixel_array
        slope = float(dataset.get("RescaleSlope", 1) or 1)
        intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    except OSError as error:
        if error.errno is None:  # pydicom's own word for a file that ends too soon
            raise Unfit(f"a slice cannot be decoded ({type(error).__name__})") from error
        raise Stumbled(f"a slice is gone from the spool ({type(error).__name__})") from error
    except Exception as error:
        # The edge to decoders, which raise whatever they like on broken streams.
        raise Unfit(f"a slice cannot be decoded ({type(error).__name__})") from error
    if pixels.ndim != 2:
        raise Unfit("a slice is not a single grey image")
    if not math.isfinite(slope) or not math.isfinite(intercept):
        raise Unfit("RescaleSlope or RescaleIntercept is no finite number")
    outside = _padding(dataset, pixels)
    plane: NDArray[np.float32] = pixels.astype(np.float32)
    if slope != 1.0:
        plane *= np.float32(slope)
    plane += np.float32(intercept)
    if outside is not None and dataset.get("Modality") == "CT":
        plane[outside] = LOWEST_HU
    return plane


def _padding(dataset: pydicom.Dataset, pixels: NDArray[Any]) -> NDArray[np.bool_] | None:
    first = dataset.get("PixelPaddingValue")
    last = dataset.get("PixelPaddingRangeLimit", first)
    if not isinstance(first, int) or not isinstance(last, int):
        return None
    # Some write −2000 as 63536: what counts are the bits.
    low, high = sorted(np.array([first, last]).astype(pixels.dtype).tolist())
    outside: NDArray[np.bool_] = (pixels >= low) & (pixels <= high)
    return outside


def _compact(voxels: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.int16]:
    if voxels.min() < -32768 or voxels.max() > 32767:
        return voxels
    small = voxels.astype(np.int16)
    return small if np.array_equal(small, voxels) else voxels
