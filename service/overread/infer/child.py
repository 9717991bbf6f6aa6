"""The inside of a worker process: one model, loaded once, reading one volume after another."""

from __future__ import annotations

import os
import pickle
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overread.domain.errors import CardError
from overread.domain.lock import LOCK, require_trusted
from overread.infer import heap, windows
from overread.infer.blocks import mapped
from overread.infer.cage import Walls
from overread.infer.engines import Grid, Loaded, engine
from overread.infer.failures import Stopped, failure
from overread.infer.frames import framed
from overread.infer.parcel import pack, require_placed
from overread.infer.protocol import TASK, Done, Progressed, Ready, Start, Task

STEP = 0.01  # a model with many small windows must not wait for the keeper at each
MOST_VOLUMES = 64


@dataclass(frozen=True)
class Where:
    """The device on which a model is, and the folder in which its code is."""

    device: str
    folder: Path


def main(channel: socket.socket, start: Start, walls: Walls) -> None:
    """Load the model, say so, and read what comes; ends when the channel closes."""
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
        channel.sendall(framed(failure(error, start.card.folder)))
        return
    channel.sendall(framed(Ready(device, time.monotonic() - began, _device_bytes(device), _gpus(), walls)))
    while True:
        word, given, _, _ = socket.recv_fds(channel, 1, MOST_VOLUMES + 2)
        if not word:
            return
        if word == TASK:  # a STOP that came too late is about nothing
            channel.sendall(_read(model, given, channel, Where(device, start.card.folder)))


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


def _read(model: Loaded, given: list[int], channel: socket.socket, where: Where) -> bytes:
    """What is to be said of one task, framed."""
    began = time.monotonic()
    _reset_peak(where.device)
    try:
        task, volumes = _opened(given)
        with windows.smaller(task.share):
            reading = model.read(volumes, _between(channel))
        require_placed(reading, task.shape)
        parcel = pack(reading, given[1])
        return framed(Done(parcel, time.monotonic() - began, _device_peak(where.device)))
    except BaseException as error:
        # The edge of an attempt: the keeper decides what to do next.
        return framed(failure(error, where.folder))
    finally:
        for descriptor in given:
            os.close(descriptor)
        _release(where.device)


def _opened(given: list[int]) -> tuple[Task, list[Grid]]:
    """The task that came with some descriptors, see ``protocol.Task``."""
    with open(given[0], "rb", closefd=False) as block:
        task: Task = pickle.load(block)
    voxels = [mapped(one, task.shape, dtype) for one, dtype in zip(given[2:], task.dtypes, strict=True)]
    return task, [Grid(v, task.affine, paths) for v, paths in zip(voxels, task.paths, strict=True)]


def _between(channel: socket.socket) -> Callable[[float], None]:
    """What is called between two batches of windows: tells how far it is, and hears whether to stop."""
    told = [0.0]
    stop = select.poll()
    stop.register(channel, select.POLLIN)

    def tell(fraction: float) -> None:
        fraction = min(1.0, max(0.0, fraction))
        if fraction - told[0] >= STEP or fraction >= 1.0 > told[0]:
            told[0] = fraction
            channel.sendall(framed(Progressed(fraction)))
        if stop.poll(0):
            raise Stopped

    return tell


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
