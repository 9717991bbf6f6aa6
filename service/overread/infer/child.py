"""The inside of a worker process: one model, loaded once, reading one volume after another."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from overread.domain.errors import CardError, Unfit
from overread.domain.lock import LOCK, require_trusted
from overread.infer import heap, windows
from overread.infer.cage import Walls
from overread.infer.engines import Grid, Loaded, engine
from overread.infer.parcel import pack, require_placed
from overread.infer.protocol import Done, Failed, Progressed, Ready, Start, Task

MEMORY_SHORT = ("not enough memory", "out of memory", "bad_alloc", "bad alloc")
# What torch raises when a GPU has failed: its context is broken, and so is every later call in this process.
BROKEN_DEVICE = ("CUDA error", "CUDA driver error", "CUBLAS_STATUS", "CUDNN_STATUS", "device-side assert")
STEP = 0.01  # a model with many small windows must not wait for the pipe at each


class Stopped(BaseException):
    """Nobody wants the answer any more. No Exception, so that a model that catches those cannot go on."""


def main(pipe: Connection, start: Start, walls: Walls) -> None:
    """Load the model, say so, and read what comes; ends when the pipe closes."""
    began = time.monotonic()
    try:
        if walls.open and start.confine == "required" and start.card.engine != "external":
            raise CardError(
                "schedule.confine is required, and this system lets overread take the network from no process: "
                + "; ".join(walls.lacking)
            )
        model, device = _load(start)
    except BaseException as error:
        # The edge of the process: whatever a model throws while loading is told to the keeper, SystemExit included.
        pipe.send(_failure(error))
        return
    pipe.send(Ready(device, time.monotonic() - began, _device_bytes(device), _gpus(), walls))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        if isinstance(task, Task):  # a Stop that came too late is about nothing
            pipe.send(_read(model, task, pipe, device))


def _load(start: Start) -> tuple[Loaded, str]:
    if start.threads:
        os.environ["OMP_NUM_THREADS"] = str(start.threads)
    if (start.card.folder / LOCK).exists():
        require_trusted(start.card.folder)
    load = engine(start.card.engine)
    device = _device(start)
    return load(start.card, device), device


def _device(start: Start) -> str:
    """``auto`` is a GPU that torch sees, or the CPU; an engine that does not import torch is not made to."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and start.threads:
        torch.set_num_threads(start.threads)
    if start.device != "auto":
        return start.device
    return "cuda:0" if _gpus() else "cpu"


def _gpus() -> int:
    torch: Any = sys.modules.get("torch")
    return int(torch.cuda.device_count()) if torch is not None and torch.cuda.is_available() else 0


def _read(model: Loaded, task: Task, pipe: Connection, device: str) -> Done | Failed:
    began = time.monotonic()
    blocks = [SharedMemory(name) for name in task.voxels]
    _reset_peak(device)
    try:
        volumes: list[Grid] = [
            Grid(np.ndarray(task.shape, dtype, block.buf), task.affine, paths)
            for dtype, block, paths in zip(task.dtypes, blocks, task.paths, strict=True)
        ]
        with windows.smaller(task.share):
            reading = model.read(volumes, _between(pipe))
        require_placed(reading, task.shape)
        parcel = pack(reading, task.answer)
        del volumes
    except BaseException as error:
        # The edge of an attempt: the keeper decides what to do next.
        return _failure(error)
    finally:
        _close(*blocks)
        _release(device)
    return Done(parcel, time.monotonic() - began, _device_peak(device))


def _between(pipe: Connection) -> Callable[[float], None]:
    """What is called between two batches of windows: tells how far it is, and hears whether to stop."""
    told = [0.0]

    def tell(fraction: float) -> None:
        if fraction - told[0] >= STEP or fraction >= 1.0:
            told[0] = fraction
            pipe.send(Progressed(fraction))
        if pipe.poll():
            raise Stopped

    return tell


def _close(*blocks: SharedMemory) -> None:
    for block in blocks:
        try:
            block.close()
        except BufferError:
            # A failed reading may still hold a view in its traceback; the block goes with the process or the keeper.
            continue


def _failure(error: BaseException) -> Failed:
    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    said = str(root)
    text = f"{type(root).__name__}: {said}".splitlines()[0][:300]
    if isinstance(error, Stopped):
        return Failed("stopped", "nobody wants the answer any more")
    if isinstance(error, CardError):
        return Failed("card", str(error))
    if isinstance(error, Unfit):
        return Failed("unfit", str(error))
    out_of_memory = isinstance(root, MemoryError) or "OutOfMemory" in type(root).__name__
    if out_of_memory or any(words in said for words in MEMORY_SHORT):
        return Failed("memory", text)
    if type(root).__name__ == "AcceleratorError" or any(words in said for words in BROKEN_DEVICE):
        return Failed("device", text)
    return Failed("model", text)


def _cuda(device: str) -> Any:
    torch: Any = sys.modules.get("torch")
    return torch.cuda if torch is not None and device.startswith("cuda") else None


def _device_bytes(device: str) -> int:
    cuda = _cuda(device)
    return int(cuda.get_device_properties(device).total_memory) if cuda else 0


def _reset_peak(device: str) -> None:
    if cuda := _cuda(device):
        cuda.reset_peak_memory_stats(device)


def _device_peak(device: str) -> int:
    cuda = _cuda(device)
    return int(cuda.max_memory_reserved(device)) if cuda else 0


def _release(device: str) -> None:
    """Give back what torch and the heap keep of memory between two readings: another model may need it."""
    heap.give_back()
    if cuda := _cuda(device):
        try:
            cuda.empty_cache()
        except RuntimeError:
            return  # the device is broken; the failure of the reading says so
