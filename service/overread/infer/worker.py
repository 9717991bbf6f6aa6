"""The keeper's side of one worker process: start it, feed it, watch it, end it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import CardError, Stumbled, WorkerLost
from overread.domain.volume import Volume
from overread.infer.protocol import Done, Failed, Progressed, Ready, Start, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADING_S = 300.0


class WorkerProcess:
    """One spawned process with one model. Not thread-safe: one reading at a time."""

    def __init__(self, card: Card, device: str, threads: int) -> None:
        from overread.infer.child import main

        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        start = Start(card.name, str(card.folder), card.weights, card.weights_sha256, device, threads)
        self._process = context.Process(target=main, args=(theirs, start), name=f"model-{card.name}", daemon=True)
        self._process.start()
        theirs.close()
        self.card = card
        self.used_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Process id, for those who watch from outside."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def wait_ready(self) -> Ready:
        """Wait for the model to be loaded; raises CardError or WorkerLost."""
        ready: Ready = self._expect(Ready, LOADING_S, lambda _: None)
        return ready

    def segment(self, volume: Volume, progress: Callable[[float], None]) -> NDArray[np.uint8]:
        """Read one volume within the card's time-out; raises WorkerLost, Stumbled or CardError."""
        shape = volume.stack.shape
        with _shared(volume.voxels.nbytes) as voxels, _shared(int(np.prod(shape))) as mask:
            np.ndarray(shape, volume.voxels.dtype, voxels.buf)[:] = volume.voxels
            self._send(Task(voxels.name, mask.name, shape, volume.voxels.dtype.str, volume.affine))
            self._expect(Done, self.card.runtime.timeout_s, progress)
            self.used_at = time.monotonic()
            return np.ndarray(shape, np.uint8, mask.buf).copy()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.join(10)
        self._pipe.close()

    def _send(self, task: Task) -> None:
        try:
            self._pipe.send(task)
        except OSError:
            raise self._lost() from None

    def _expect(self, kind: type[Any], patience_s: float, progress: Callable[[float], None]) -> Any:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                answered = self._pipe.poll(max(0.0, deadline - time.monotonic()))
                message = self._pipe.recv() if answered else None
            except (EOFError, OSError):
                raise self._lost() from None
            if not answered:
                self.kill()
                raise WorkerLost(f"the model did not answer within {patience_s:g} s; it was ended", "timeout")
            if isinstance(message, Progressed):
                progress(message.fraction)
            elif isinstance(message, Failed):
                raise _error(message)
            elif isinstance(message, kind):
                return message

    def _lost(self) -> WorkerLost:
        self._process.join(10)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (the system may have run out of memory)" if -code == signal.SIGKILL else ""
            return WorkerLost(f"the model's process was ended by {name}{hint}", "memory" if hint else "crash")
        return WorkerLost(f"the model's process ended by itself with exit code {code}")


def _error(message: Failed) -> Exception:
    if message.kind == "card":
        return CardError(message.reason)
    if message.kind == "memory":
        return WorkerLost(f"out of memory: {message.reason}", "memory")
    return Stumbled(f"the model failed: {message.reason}")


@contextmanager
def _shared(size: int) -> Iterator[SharedMemory]:
    block = SharedMemory(create=True, size=size)
    try:
        yield block
    finally:
        block.close()
        block.unlink()
