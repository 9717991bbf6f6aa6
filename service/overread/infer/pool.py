"""The warm models: at most so many processes, the one unused for longest goes first."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from overread.domain.card import Card
from overread.domain.errors import OverreadError, Stumbled, WorkerLost
from overread.domain.events import ModelLoaded, ModelUnloaded, WorkerDied
from overread.domain.reading import Reading
from overread.domain.volume import Volume
from overread.infer.worker import WorkerProcess
from overread.ports import Herald, Progress

_log = logging.getLogger(__name__)


@dataclass
class _Seat:
    """One model's place: its lock lets one reading in at a time; ``noted`` when its notes were logged."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    worker: WorkerProcess | None = None
    noted: bool = False


class WorkerPool:
    """An ``Engine`` that keeps up to ``keep_warm`` models loaded, each in a process of its own."""

    def __init__(self, herald: Herald, *, device: str = "auto", threads: int = 0, keep_warm: int = 2) -> None:
        self._herald = herald
        self._device, self._threads, self._keep_warm = device, threads, keep_warm
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.Lock()

    def warm(self, card: Card) -> None:
        """Load a model before it is needed; raises CardError or WorkerLost."""
        seat = self._seat(card)
        with seat.lock:
            self._ready(seat, card)

    def warm_all(self, cards: Sequence[Card]) -> None:
        """Load several; one that cannot be loaded is logged, and its jobs will say why they fail."""
        for card in cards:
            try:
                self.warm(card)
            except OverreadError as error:
                _log.error("model %s cannot be loaded: %s", card.name, error)

    def read(self, card: Card, volumes: Sequence[Volume], progress: Progress) -> Reading:
        """One attempt, see ``ports.Engine``. A worker that failed is replaced before the next attempt."""
        seat = self._seat(card)
        with seat.lock:
            worker = self._ready(seat, card)
            try:
                reading = worker.read(volumes, progress)
            except Stumbled as error:
                self._discard(seat, card, error.kind if isinstance(error, WorkerLost) else "crash")
                raise
            if reading.notes and not seat.noted:
                seat.noted = True
                _log.info("model %s was adapted: %s", card.name, "; ".join(reading.notes))
            return reading

    def pids(self) -> dict[str, int]:
        """Process ids of the warm models."""
        with self._lock:
            workers = {name: seat.worker for name, seat in self._seats.items() if seat.worker}
        return {name: w.pid for name, w in workers.items() if w.pid is not None}

    def close(self) -> None:
        """End all workers."""
        for seat in list(self._seats.values()):
            worker, seat.worker = seat.worker, None
            if worker is not None:
                worker.kill()

    def _seat(self, card: Card) -> _Seat:
        with self._lock:
            return self._seats.setdefault(card.name, _Seat())

    def _ready(self, seat: _Seat, card: Card) -> WorkerProcess:
        if seat.worker is not None and not seat.worker.alive:
            self._discard(seat, card, "crash")
        if seat.worker is None:
            self._make_room(card)
            worker = WorkerProcess(card, _device(card, self._device), self._threads)
            try:
                ready = worker.wait_ready()
            except OverreadError:
                worker.kill()
                raise
            seat.worker = worker
            self._herald(ModelLoaded(card.name, ready.device, ready.seconds))
        return seat.worker

    def _make_room(self, card: Card) -> None:
        with self._lock:
            idle = [s for name, s in self._seats.items() if name != card.name and s.worker and not s.lock.locked()]
            idle.sort(key=lambda s: s.worker.used_at if s.worker else 0.0)
            surplus = idle[: max(0, len(idle) + 1 - self._keep_warm)]
        for seat in surplus:
            if seat.lock.acquire(blocking=False):
                try:
                    if seat.worker is not None:
                        seat.worker.kill()
                        self._herald(ModelUnloaded(seat.worker.card.name))
                        seat.worker = None
                finally:
                    seat.lock.release()

    def _discard(self, seat: _Seat, card: Card, reason: str) -> None:
        if seat.worker is not None:
            seat.worker.kill()
            seat.worker = None
        self._herald(WorkerDied(card.name, reason))


def _device(card: Card, configured: str) -> str:
    return card.runtime.device if card.runtime.device != "auto" else configured
