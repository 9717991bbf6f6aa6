"""The keeper's side of one worker process: start it, feed it, watch it, end it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import CardError, Stumbled, Unfit, WorkerLost
from overread.domain.reading import Reading
from overread.domain.volume import Volume
from overread.infer.parcel import clear, unpack
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
        start = Start(card, device, threads)
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

    def read(self, volumes: Sequence[Volume], progress: Callable[[float], None]) -> Reading:
        """Read one input within the card's time-out; raises WorkerLost, Stumbled, Unfit or CardError."""
        first, answer = volumes[0], f"overread-{uuid4().hex}-"
        with ExitStack() as stack:
            stack.callback(clear, answer)
            blocks = [stack.enter_context(_shared(v.voxels)) for v in volumes]
            dtypes = tuple(v.voxels.dtype.str for v in volumes)
            names = tuple(block.name for block in blocks)
            paths = tuple(v.paths for v in volumes)
            self._send(Task(names, dtypes, _shape(volumes), first.affine, answer, paths))
            done: Done = self._expect(Done, self.card.runtime.timeout_s, progress)
            self.used_at = time.monotonic()
            return unpack(done.parcel)

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
    if message.kind == "unfit":
        return Unfit(message.reason)
    if message.kind == "memory":
        return WorkerLost(f"out of memory: {message.reason}", "memory")
    return Stumbled(f"the model failed: {message.reason}")


def _shape(volumes: Sequence[Volume]) -> tuple[int, int, int]:
    first, *others = volumes
    if any(v.voxels.shape != first.voxels.shape or not np.allclose(v.affine, first.affine) for v in others):
        raise Unfit("the model's input series do not lie on one grid")
    slices, rows, columns = first.voxels.shape
    return slices, rows, columns


@contextmanager
def _shared(voxels: NDArray[Any]) -> Iterator[SharedMemory]:
    block = SharedMemory(create=True, size=voxels.nbytes)
    try:
        np.ndarray(voxels.shape, voxels.dtype, block.buf)[:] = voxels
        yield block
    finally:
        block.close()
        block.unlink()
