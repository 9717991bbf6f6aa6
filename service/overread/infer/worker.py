"""The keeper's side of one worker process: start it, feed it, watch it, let it rest, end it."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from overread.domain.card import Card
from overread.domain.errors import Canceled, CardError, Stumbled, Unfit, WorkerLost
from overread.domain.reading import Reading
from overread.domain.volume import Volume
from overread.infer import blocks, family, nursery
from overread.infer.cage import Cage
from overread.infer.discreet import discreet
from overread.infer.frames import Inbox, Nonsense
from overread.infer.parcel import unpack
from overread.infer.protocol import STOP, TASK, Done, Failed, Message, Progressed, Ready, Start, Task
from overread.infer.scratch import Scratch
from overread.infer.witness import Witness

LOADING_S = 300.0
GLANCE_S = 0.1  # how often a process that is at work is looked at
POLITE_S = 0.5  # within which a reading that nobody wants must end by itself, so that its model stays loaded
STEP = 0.01  # a part of a reading that is worth telling
MANY = 1000  # messages in one reading; an honest process says how far it is a hundred times
LAST_WORDS = 200  # characters of what a model wrote that are told with its error
MB = 1 << 20
SCRATCH_BYTES = 4096 * MB  # of the disk, which is that of the spool: a model that fills it would end receiving


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
        self._scratch = Scratch(folder)
        # An external program is confined by its engine, see ``confine``; it gets copies of all that it reads.
        confine, self._scratch_bytes = ("off", 0) if card.engine == "external" else (confine, SCRATCH_BYTES)
        born = _born(Start(card, device, threads, confine), memory_bytes, self._scratch)
        self._guard, self._pid, self._channel = born.guard, born.pid, born.channel
        self._inbox, self._tray = Inbox(born.channel), -1
        self._witness = Witness(born.pid, born.guard.pid, born.said, self._filled)
        self._sources: Sequence[str] = ()
        self._household, self._heard, self._ending = 0, 0, False
        self._resting_since, self.rested_s, self._fraction = 0.0, 0.0, 0.0
        self.used_at = time.monotonic()

    @property
    def pid(self) -> int:
        """Process id, for those who watch from outside."""
        return self._pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._guard.poll() is None

    @property
    def peak_bytes(self) -> int:
        """The most memory that it was seen to hold in this reading, or the last one."""
        return self._witness.peak_bytes

    @property
    def seen_bytes(self) -> int:
        """How much memory it held when it was looked at last."""
        return self._witness.resident_bytes

    @property
    def resident_bytes(self) -> int:
        """How much memory it holds now, with all that it has started."""
        return self._witness.look()

    def wait_ready(self, beat: Callable[[float], None] = lambda _: None) -> Ready:
        """Wait for the model to be loaded; raises CardError or WorkerLost, or what ``beat`` raises."""
        ready: Ready = self._expect(Ready, LOADING_S, beat, _never)
        self._witness.look()
        self._household = len(self._witness.children())
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
        self._sources = volumes[0].paths[:1]
        self._witness.begin()
        self.rested_s, self._fraction, self._heard = 0.0, 0.0, 0
        with ExitStack() as stack:
            self._tray = _held(stack, blocks.empty())
            stack.callback(self._forget_tray)
            self._give(_task(volumes, share), [_held(stack, blocks.shared(v.voxels)) for v in volumes])
            done: Done = self._expect(Done, self.card.runtime.timeout_s, progress, rest)
            self.used_at = time.monotonic()
            self._witness.look()
            try:
                return unpack(done.parcel, self._tray, volumes[0].voxels.shape), done.device_peak_bytes
            except ValueError:
                raise self._broken() from None

    def kill(self) -> None:
        """End the process, and what it has started, at once."""
        self._ending = True
        if self.alive:
            family.end(self._guard.pid)
            with suppress(subprocess.TimeoutExpired):
                self._guard.wait(5)
        self._guard.kill()
        self._guard.wait()
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()
        self._scratch.remove()

    def _give(self, task: Task, voxels: list[int]) -> None:
        book = blocks.written(pickle.dumps(task))
        try:
            self._say(TASK, [book, self._tray, *voxels])
        except OSError:
            raise self._lost() from None
        finally:
            os.close(book)

    def _say(self, word: bytes, descriptors: Sequence[int] = ()) -> None:
        """One byte, which finds room even where nobody listens, so that this waits for nothing."""
        socket.send_fds(self._channel, [word], list(descriptors))

    def _filled(self) -> int:
        """How much of its answer it has written."""
        with suppress(OSError):
            return blocks.held_bytes(self._tray)
        return 0

    def _forget_tray(self) -> None:
        self._tray = -1

    def _expect(
        self, kind: type[Any], patience_s: float, progress: Callable[[float], None], rest: Callable[[], bool]
    ) -> Any:
        began = time.monotonic()
        try:
            while True:
                message = self._next()
                if isinstance(message, Failed):
                    raise self._error(message)
                if isinstance(message, kind):
                    progress(self._fraction if kind is Ready else 1.0)
                    return message
                if message is not None:
                    raise self._broken()
                self._watch(time.monotonic() - began - self._rested(), patience_s)
                self._let_rest(rest())
                progress(self._fraction)
        except Canceled:
            self._stop()
            raise
        finally:
            self._let_rest(False)

    def _next(self) -> Message | None:
        """The next message but how far it is, or None when there is none for a moment, or it has got further."""
        try:
            message = self._inbox.next(GLANCE_S)
        except Nonsense:
            raise self._broken() from None
        except (EOFError, OSError):
            raise self._lost() from None
        if not isinstance(message, Progressed):
            return message
        self._heard += 1
        if self._heard > MANY:
            raise self._broken()
        self._fraction = message.fraction
        return None

    def _watch(self, passed_s: float, patience_s: float) -> None:
        if passed_s > patience_s:
            raise self.ended(f"the model did not answer within {patience_s:g} s; it was ended", "timeout")
        resident = self._witness.look()
        if self._memory_bytes and resident > self._memory_bytes:
            most = self._memory_bytes / MB
            raise self.ended(f"the model took more than its {most:.0f} MB of memory and was ended", "memory")
        if self._scratch_bytes and self._scratch.held_bytes() > self._scratch_bytes:
            most = self._scratch_bytes / MB
            raise self.ended(f"the model wrote more than {most:.0f} MB into its folder and was ended", "disk")

    def _stop(self) -> None:
        """Ask it to stop between two batches of windows, and end it when it does not soon, or leaves others behind."""
        deadline = time.monotonic() + POLITE_S
        with suppress(OSError, EOFError, Nonsense):
            self._let_rest(False)
            self._say(STOP)
            while (left := deadline - time.monotonic()) > 0:
                if isinstance(self._inbox.next(left), Failed | Done):
                    self._end_what_is_left()
                    return
        self.kill()

    def _end_what_is_left(self) -> None:
        """After a reading that came to nothing: with more children than it was loaded with, all of them end."""
        if len(self._witness.children()) > self._household:
            self.kill()

    def _let_rest(self, wanted: bool) -> None:
        # Stopped by a signal, at once and whatever it does, rather than asked between two batches of windows: engines
        # that see the whole volume at once, and programs of others, rest as well.
        if wanted == bool(self._resting_since):
            return
        if self.alive:  # and its guard is awake in any case
            family.tell(family.descendants(self._guard.pid), signal.SIGSTOP if wanted else signal.SIGCONT)
        if not wanted:
            self.rested_s = self._rested()
        self._resting_since = time.monotonic() if wanted else 0.0

    def _rested(self) -> float:
        return self.rested_s + (time.monotonic() - self._resting_since if self._resting_since else 0.0)

    def ended(self, text: str, kind: str) -> WorkerLost:
        """End it for a reason of ours, ``kind`` as in ``domain.death``; returns what is to be raised."""
        self.kill()
        return WorkerLost(text, kind, self._witness.death(kind, self._guard.returncode, self._sources))

    def _broken(self) -> WorkerLost:
        """It says what no process of ours says: somebody else speaks there, and nothing of it counts."""
        return self.ended("what the model's process sent is no message of ours; it was ended", "crash")

    def _lost(self) -> WorkerLost:
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(2)
        if self.alive:  # it has closed its channel and lives on: nothing good will come of it
            return self.ended("the model's process closed its channel and was ended", "crash")
        code, by_us = self._guard.returncode, self._ending
        self.kill()
        short = code == -signal.SIGKILL and not by_us and self._witness.killed_for_memory()
        kind = "memory" if short else "crash"
        death = self._witness.death(kind, code, self._sources)
        if not death.signal:
            return WorkerLost(f"the model's process ended by itself with exit code {code}", kind, death)
        stranger = "" if by_us or code != -signal.SIGKILL else ", and not by overread"
        why = ": the system ran out of memory" if short else stranger
        return WorkerLost(f"the model's process was ended by {death.signal}{why}", kind, death)

    def _error(self, message: Failed) -> Exception:
        """What the process says of its failure, cleaned, for a model may put into words whatever it has seen."""
        sources = [Path(source) for source in self._sources]
        reason, place = discreet(message.reason, sources), discreet(message.place, sources)
        reason += f" ({place})" if place else ""
        if message.kind == "device":
            # The device's context is broken for good in that process.
            return self.ended(f"the device failed: {reason}", "device")
        self._end_what_is_left()
        if message.kind == "card":
            return CardError(reason)
        if message.kind == "unfit":
            return Unfit(reason)
        if message.kind == "memory":
            return WorkerLost(f"out of memory: {reason}", "memory")
        if message.kind == "stopped":
            return Canceled(reason)
        said = self._witness.said(self._sources)[-LAST_WORDS:]
        return Stumbled(f"the model failed: {reason}{f'; it said last: {said}' if said else ''}")


def _born(start: Start, memory_bytes: int, scratch: Scratch) -> nursery.Newborn:
    # A GPU's driver maps far more than it uses; there the watch over what is resident must do.
    data_bytes = memory_bytes if start.device == "cpu" else 0
    try:
        return nursery.start(Cage(scratch.path, _readable(start.card), data_bytes, start.confine), start)
    except BaseException:
        scratch.remove()
        raise


def _held(stack: ExitStack, block: int) -> int:
    stack.callback(os.close, block)
    return block


def _task(volumes: Sequence[Volume], share: int) -> Task:
    dtypes = tuple(v.voxels.dtype.str for v in volumes)
    return Task(dtypes, _shape(volumes), volumes[0].affine, tuple(v.paths for v in volumes), share)


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
