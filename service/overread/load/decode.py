"""Compressed and coloured pixels: decoded frame by frame, in a process that may die.

Decoders crash, hang and eat memory on crafted streams; this module runs in a child process, and only there.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from os import cpu_count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import UID

from overread.domain.errors import Stumbled, Unfit

DECODE_S = 600.0
MOST_BYTES = 4 << 30
FRAMES_AT_ONCE = 8
FRAMES_A_PROCESS = 32
MOST_PROCESSES = 4
# Rec. ITU-R BT.601, as YBR_FULL of PS3.3 C.7.6.3.1.2.
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# The best behaved decoder of each family first; GDCM knows the lossless and twelve bit JPEGs that no other here does.
PLUGINS = ("pylibjpeg", "pyjpegls", "pydicom", "pillow", "gdcm")

# Younger than the dictionary that names the others (PS3.6 Table A-1).
YOUNG = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}

# A file and the frames of it that are wanted, counted from 0.
Task = tuple[str, tuple[int, ...]]


def decode_all(files: Sequence[tuple[str, Sequence[int]]]) -> Iterator[list[NDArray[Any]]]:
    """Decode frames of files, in their order, some at a time.

    Each is (rows, columns) of stored values; colour comes as luminance. Raises Unfit when a stream cannot be decoded,
    Stumbled when the process died or took too long over it.
    """
    tasks = [task for path, frames in files for task in _tasks(path, frames)]
    processes = min(MOST_PROCESSES, cpu_count() or 1, -(-sum(len(f) for _, f in tasks) // FRAMES_A_PROCESS))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_modest) as pool:
        try:
            yield from pool.map(_decode, tasks, chunksize=1 if len(tasks) < 64 else 4, timeout=DECODE_S)
        except BrokenProcessPool as error:
            raise Stumbled("the decoder process died while decoding compressed pixels") from error
        except TimeoutError as error:
            for process in list(pool._processes.values()):
                process.kill()
            raise Stumbled(f"compressed pixels were not decoded within {DECODE_S:g} s") from error


def _tasks(path: str, frames: Sequence[int]) -> list[Task]:
    return [(path, tuple(frames[n : n + FRAMES_AT_ONCE])) for n in range(0, len(frames), FRAMES_AT_ONCE)]


def _modest() -> None:
    """A tiny stream can ask for gigabytes; better that it fails than that the machine does."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _decode(task: Task) -> list[NDArray[Any]]:
    path, frames = task
    try:
        dataset = dcmread(path)
        return [_plane(array, dataset, meta) for array, meta in _arrays(dataset, list(frames))]
    except Unfit:
        raise
    except OSError as error:
        if error.errno is None:  # pydicom's own word for a file that ends too soon
            raise Unfit(f"a slice cannot be decoded ({type(error).__name__})") from None
        raise Stumbled(f"a slice is gone from the spool ({type(error).__name__})") from None
    except BaseException as error:
        # The edge to decoders, which raise whatever they like on broken streams; a panic in Rust is no Exception.
        raise Unfit(f"a slice cannot be decoded ({type(error).__name__})") from None


def _arrays(dataset: Dataset, frames: list[int]) -> Iterator[tuple[NDArray[Any], dict[str, Any]]]:
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Unfit(f"its compression ({_named(syntax)}) cannot be decoded here") from None
    if not decoder.is_available:
        raise Unfit(f"its compression ({_named(syntax)}) cannot be decoded here")
    plugin = next((p for p in PLUGINS if p in decoder.available_plugins), "")
    yield from decoder.iter_array(dataset, indices=frames, decoding_plugin=plugin)


def _plane(array: NDArray[Any], dataset: Dataset, meta: dict[str, Any]) -> NDArray[Any]:
    if str(meta.get("photometric_interpretation", "")) == "PALETTE COLOR":
        array = apply_color_lut(array, dataset)
        if array.dtype.itemsize == 2:
            array = array >> 8
    if array.ndim == 3:
        return np.rint(array[..., :3] @ LUMINANCE).astype(np.uint16)
    return np.array(array, array.dtype.newbyteorder("="))


def _named(syntax: UID) -> str:
    return YOUNG.get(str(syntax), str(syntax.name))
