"""The inside of a worker process: one model, loaded once, reading one volume after another."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from overread.domain.errors import CardError, Unfit
from overread.domain.lock import LOCK, require_trusted
from overread.infer.engines import Grid, Loaded, engine
from overread.infer.parcel import pack
from overread.infer.protocol import Done, Failed, Progressed, Ready, Start, Task


def main(pipe: Connection, start: Start) -> None:
    """Entry point of the spawned process; ends when the pipe closes."""
    _die_with_keeper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = time.monotonic()
    try:
        model, device = _load(start)
    except BaseException as error:
        # The edge of the process: whatever a model throws while loading is told to the keeper, SystemExit included.
        pipe.send(_failure(error))
        return
    pipe.send(Ready(device, time.monotonic() - began))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_read(model, task, pipe))


def _die_with_keeper() -> None:
    # A worker whose keeper was killed must not go on holding the GPU. PR_SET_PDEATHSIG would not do: it fires when the
    # thread that started this process ends, and the thread that warms the models ends long before their keeper.
    keeper = parent_process()

    def follow() -> None:
        if keeper is not None:
            keeper.join()
            os._exit(1)

    threading.Thread(target=follow, name="keeper", daemon=True).start()


def _load(start: Start) -> tuple[Loaded, str]:
    if start.threads:
        os.environ["OMP_NUM_THREADS"] = str(start.threads)
    if (start.card.folder / LOCK).exists():
        require_trusted(start.card.folder)
    load = engine(start.card.engine)
    device = _device(start)
    return load(start.card, device), device


def _device(start: Start) -> str:
    """``auto`` is the first GPU that torch sees, or the CPU; an engine that does not import torch is not made to."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and start.threads:
        torch.set_num_threads(start.threads)
    if start.device != "auto":
        return start.device
    return "cuda:0" if torch is not None and torch.cuda.is_available() else "cpu"


def _read(model: Loaded, task: Task, pipe: Connection) -> Done | Failed:
    began = time.monotonic()
    blocks = [SharedMemory(name) for name in task.voxels]
    try:
        volumes: list[Grid] = [
            Grid(np.ndarray(task.shape, dtype, block.buf), task.affine, paths)
            for dtype, block, paths in zip(task.dtypes, blocks, task.paths, strict=True)
        ]
        reading = model.read(volumes, lambda f: pipe.send(Progressed(f)))
        parcel = pack(reading, task.answer)
        del volumes
    except BaseException as error:
        # The edge of an attempt: the keeper decides what to do next.
        return _failure(error)
    finally:
        _close(*blocks)
    return Done(parcel, time.monotonic() - began)


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
    text = f"{type(root).__name__}: {root}".splitlines()[0][:300]
    if isinstance(error, CardError):
        return Failed("card", str(error))
    if isinstance(error, Unfit):
        return Failed("unfit", str(error))
    out_of_memory = isinstance(root, MemoryError) or "OutOfMemory" in type(root).__name__
    if out_of_memory or "not enough memory" in str(root) or "out of memory" in str(root):
        return Failed("memory", text)
    return Failed("model", text)
