"""The keeper's side of one worker process: start it, feed it, watch it, let it rest, end it."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import Canceled, CardError, Stumbled, Unfit, WorkerLost
from overread.domain.reading import Reading
from overread.domain.volume import Volume
from overread.infer import segments
from overread.infer.cage import Cage
from overread.infer.confine import descendants
from overread.infer.entry import begin
from overread.infer.parcel import clear, unpack
from overread.infer.protocol import Done, Failed, Progressed, Ready, Start, Stop, Task
from overread.infer.witness import Witness

LOADING_S = 300.0
GLANCE_S = 0.1  # how often a process that is at work is looked at
POLITE_S = 0.5  # within which a reading that nobody wants must end by itself, so that its model stays loaded
MB = 1 << 20


def _never() -> bool:
    return False


class WorkerProcess:
    """One spawned process with one model. Not thread-safe: one reading at a time; ``kill`` may come from any thread.

    It may hold ``memory_bytes`` (0: unlimited); what surrounds it is ``confine`` (``cage.Cage``), with a folder of its
    own in ``folder`` to write to.
    """

    def __init__(
        self,
        card: Card,
        device: str,
        threads: int,
        *,
        memory_bytes: int = 0,
        confine: str = "available",
        folder: Path | None = None,
    ) -> None:
        self.card, self._memory_bytes = card, memory_bytes
        self._scratch = tempfile.mkdtemp(prefix="overread-model-", dir=folder)
        # A GPU's driver maps far more than it uses; there the watch over what is resident must do.
        data_bytes = memory_bytes if device == "cpu" else 0
        confine = "off" if card.engine == "external" else confine  # it confines its program itself, see ``confine``
        cage = Cage(self._scratch, _readable(card), data_bytes, confine)
        start = Start(card, device, threads, confine)
        self._pipe, self._process, said = _started(cage, start, f"model-{card.name}")
        self._witness = Witness(self._process.pid or 0, said)
        self._sources: Sequence[str] = ()
        self._resting_since, self.rested_s, self._fraction = 0.0, 0.0, 0.0
        self.used_at = time.monotonic()

    @property
    def pid(self) -> int | None:
        """Process id, for those who watch from outside."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    @property
    def peak_bytes(self) -> int:
        """The most memory that it was seen to hold in this reading, or the last one."""
        return self._witness.peak_bytes

    @property
    def resident_bytes(self) -> int:
        """How much memory it holds now."""
        return self._witness.look()

    def wait_ready(self, beat: Callable[[float], None] = lambda _: None) -> Ready:
        """Wait for the model to be loaded; raises CardError or WorkerLost, or what ``beat`` raises."""
        ready: Ready = self._expect(Ready, LOADING_S, beat, _never)
        self._witness.look()
        return ready

    def read(
        self,
        volumes: Sequence[Volume],
        progress: Callable[[float], None],
        *,
        share: int = 1,
        rest: Callable[[], bool] = _never,
    ) -> Reading:
        """Read one input within the card's time-out; raises WorkerLost, Stumbled, Unfit or CardError.

        ``progress`` is called several times a second; what it raises ends the reading. While ``rest`` says so the
        process is stopped, and its time does not count. ``share`` divides the batches of windows.
        """
        reading, _ = self.measured(volumes, progress, share=share, rest=rest)
        return reading

    def measured(
        self,
        volumes: Sequence[Volume],
        progress: Callable[[float], None],
        *,
        share: int = 1,
        rest: Callable[[], bool] = _never,
    ) -> tuple[Reading, int]:
        """The same, with the most that the model held of its device's memory, in bytes."""
        name = segments.prefix()
        self._sources = volumes[0].paths[:1]
        self._witness.begin()
        self.rested_s, self._fraction = 0.0, 0.0
        with ExitStack() as stack:
            stack.callback(clear, name)
            blocks = [stack.enter_context(_shared(v.voxels, f"{name}in{n}")) for n, v in enumerate(volumes)]
            dtypes = tuple(v.voxels.dtype.str for v in volumes)
            paths = tuple(v.paths for v in volumes)
            names = tuple(block.name for block in blocks)
            self._send(Task(names, dtypes, _shape(volumes), volumes[0].affine, name, paths, share))
            done: Done = self._expect(Done, self.card.runtime.timeout_s, progress, rest)
            self.used_at = time.monotonic()
            self._witness.look()
            return unpack(done.parcel), done.device_peak_bytes

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        for pid in descendants(self._process.pid or -1):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.join(10)
        with suppress(OSError):
            self._pipe.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _send(self, message: Task | Stop) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._lost() from None

    def _expect(
        self, kind: type[Any], patience_s: float, progress: Callable[[float], None], rest: Callable[[], bool]
    ) -> Any:
        began = time.monotonic()
        try:
            while True:
                message = self._next()
                if message is None:
                    self._watch(time.monotonic() - began - self._rested(), patience_s)
                elif isinstance(message, Progressed):
                    self._fraction = message.fraction
                elif isinstance(message, Failed):
                    raise self._error(message)
                elif isinstance(message, kind):
                    progress(self._fraction if kind is Ready else 1.0)
                    return message
                self._let_rest(rest())
                progress(self._fraction)
        except Canceled:
            self._stop()
            raise
        finally:
            self._let_rest(False)

    def _next(self) -> Any:
        """The next message, or None when there is none for a moment."""
        try:
            return self._pipe.recv() if self._pipe.poll(GLANCE_S) else None
        except (EOFError, OSError):
            raise self._lost() from None

    def _watch(self, passed_s: float, patience_s: float) -> None:
        if passed_s > patience_s:
            raise self._ended(f"the model did not answer within {patience_s:g} s; it was ended", "timeout")
        resident = self._witness.look()
        if self._memory_bytes and resident > self._memory_bytes:
            most = self._memory_bytes / MB
            raise self._ended(f"the model took more than its {most:.0f} MB of memory and was ended", "memory")

    def _stop(self) -> None:
        """Ask it to stop between two batches of windows, and end it when it does not soon."""
        deadline = time.monotonic() + POLITE_S
        with suppress(OSError, EOFError, Stumbled):
            self._let_rest(False)
            self._pipe.send(Stop())
            while (left := deadline - time.monotonic()) > 0:
                if self._pipe.poll(left) and isinstance(self._pipe.recv(), Failed | Done):
                    return
        self.kill()

    def _let_rest(self, wanted: bool) -> None:
        # Stopped by a signal, at once and whatever it does, rather than asked between two batches of windows: engines
        # that see the whole volume at once, and programs of others, rest as well.
        if wanted == bool(self._resting_since):
            return
        for pid in (self._process.pid or -1, *descendants(self._process.pid or -1)):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP if wanted else signal.SIGCONT)
        if not wanted:
            self.rested_s = self._rested()
        self._resting_since = time.monotonic() if wanted else 0.0

    def _rested(self) -> float:
        return self.rested_s + (time.monotonic() - self._resting_since if self._resting_since else 0.0)

    def _ended(self, text: str, kind: str) -> WorkerLost:
        """End it for a reason of ours."""
        self.kill()
        return WorkerLost(text, kind, self._witness.death(kind, self._process.exitcode, self._sources))

    def _lost(self) -> WorkerLost:
        self._process.join(10)
        code = self._process.exitcode
        if code is None:  # it has closed its pipe and lives on: nothing good will come of it
            self.kill()
            code = self._process.exitcode
        kind = "memory" if code == -signal.SIGKILL else "crash"
        death = self._witness.death(kind, code, self._sources)
        hint = " (the system may have run out of memory)" if kind == "memory" else ""
        if death.signal:
            return WorkerLost(f"the model's process was ended by {death.signal}{hint}", kind, death)
        return WorkerLost(f"the model's process ended by itself with exit code {code}", kind, death)

    def _error(self, message: Failed) -> Exception:
        if message.kind == "card":
            return CardError(message.reason)
        if message.kind == "unfit":
            return Unfit(message.reason)
        if message.kind == "memory":
            return WorkerLost(f"out of memory: {message.reason}", "memory")
        if message.kind == "device":
            # The device's context is broken for good in that process.
            return self._ended(f"the device failed: {message.reason}", "device")
        if message.kind == "stopped":
            return Canceled(message.reason)
        return Stumbled(f"the model failed: {message.reason}")


@cache
def _nursery() -> ThreadPoolExecutor:
    # A process dies with the thread that has started it (PR_SET_PDEATHSIG), so that this one starts them all.
    return ThreadPoolExecutor(1, thread_name_prefix="nursery")


def _started(cage: Cage, start: Start, name: str) -> tuple[Any, BaseProcess, Any]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    said, saying = context.Pipe(duplex=False)
    arguments = (theirs, saying, cage, os.getpid(), pickle.dumps(start))
    process = context.Process(target=begin, args=arguments, name=name, daemon=True)
    if threading.current_thread() is threading.main_thread():
        process.start()
    else:
        _nursery().submit(process.start).result()
    theirs.close()
    saying.close()
    return ours, process, said


def _readable(card: Card) -> tuple[str, ...]:
    """The model's own folder, and what links in it lead to."""
    links = [path.resolve() for path in card.folder.rglob("*") if path.is_symlink()]
    return tuple(str(path) for path in (card.folder, card.folder.resolve(), *links))


def _shape(volumes: Sequence[Volume]) -> tuple[int, int, int]:
    first, *others = volumes
    if any(v.voxels.shape != first.voxels.shape or not np.allclose(v.affine, first.affine) for v in others):
        raise Unfit("the model's input series do not lie on one grid")
    slices, rows, columns = first.voxels.shape
    return slices, rows, columns


@contextmanager
def _shared(voxels: NDArray[Any], name: str) -> Iterator[SharedMemory]:
    block = SharedMemory(name, create=True, size=voxels.nbytes)
    try:
        np.ndarray(voxels.shape, voxels.dtype, block.buf)[:] = voxels
        yield block
    finally:
        block.close()
        block.unlink()
