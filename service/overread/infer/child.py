"""The inside of a worker process: one model, loaded once, reading one volume after another."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from overread.infer.protocol import Done, Failed, Progressed, Ready, Start, Task


def main(pipe: Connection, start: Start) -> None:
    """Entry point of the spawned process; ends when the pipe closes."""
    _die_with_keeper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = time.monotonic()
    try:
        bundle, device = _load(start)
    except BaseException as error:
        # The edge of the process: whatever a bundle throws while loading is told to the keeper, SystemExit included.
        pipe.send(_failure(error))
        return
    pipe.send(Ready(device, time.monotonic() - began))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_read(bundle, task, pipe))


def _die_with_keeper() -> None:
    # A worker whose keeper was killed must not go on holding the GPU. PR_SET_PDEATHSIG would not do: it fires when the
    # thread that started this process ends, and the thread that warms the models ends long before their keeper.
    keeper = parent_process()

    def follow() -> None:
        if keeper is not None:
            keeper.join()
            os._exit(1)

    threading.Thread(target=follow, name="keeper", daemon=True).start()


def _load(start: Start) -> tuple[Any, str]:
    import torch

    from overread.infer.bundle import Bundle

    if start.threads:
        torch.set_num_threads(start.threads)
    device = start.device
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    return Bundle(start, torch.device(device)), device


def _read(bundle: Any, task: Task, pipe: Connection) -> Done | Failed:
    began = time.monotonic()
    voxels_block, mask_block = SharedMemory(task.voxels), SharedMemory(task.mask)
    try:
        voxels: Any = np.ndarray(task.shape, task.dtype, voxels_block.buf)
        mask: Any = np.ndarray(task.shape, np.uint8, mask_block.buf)
        mask[:] = bundle.segment(voxels, task.affine, lambda f: pipe.send(Progressed(f)))
        del voxels, mask
    except BaseException as error:
        # The edge of an attempt: the keeper decides what to do next.
        return _failure(error)
    finally:
        _close(voxels_block, mask_block)
    return Done(time.monotonic() - began)


def _close(*blocks: SharedMemory) -> None:
    for block in blocks:
        try:
            block.close()
        except BufferError:
            # A failed reading may still hold a view in its traceback; the block goes with the process or the keeper.
            continue


def _failure(error: BaseException) -> Failed:
    from overread.domain.errors import CardError

    root = error
    while root.__cause__ is not None:
        root = root.__cause__
    text = f"{type(root).__name__}: {root}".splitlines()[0][:300]
    if isinstance(error, CardError):
        return Failed("card", str(error))
    out_of_memory = isinstance(root, MemoryError) or "OutOfMemory" in type(root).__name__
    if out_of_memory or "not enough memory" in str(root) or "out of memory" in str(root):
        return Failed("memory", text)
    return Failed("model", text)
