"""The warm models: each in a process of its own on a device, admitted by what it takes, evicted by least use."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from overread.domain.card import Card
from overread.domain.errors import Canceled, Outranked, OverreadError, Stumbled, WorkerLost
from overread.domain.events import (
    MemoryShort,
    ModelLoaded,
    ModelReplaced,
    ModelUnloaded,
    ReadingRested,
    WorkerDied,
    WorkerUnconfined,
)
from overread.domain.pace import Pace
from overread.domain.reading import Reading
from overread.domain.volume import Volume
from overread.domain.warm import Warm
from overread.infer import scratch
from overread.infer.footprints import Footprint, Footprints
from overread.infer.room import SHARE_OF_MACHINE, Room, Seat, machine_bytes
from overread.infer.worker import WorkerProcess
from overread.ports import Herald, Progress

_log = logging.getLogger(__name__)
LOOK_S = 0.2  # how often one that waits for room looks whether it is still wanted
SUM_S = 0.25  # how often a reading looks at what all hold together
LONGEST_REST_S = 600.0  # a reading that has rested for so long goes on beside the urgent ones
SMALLER = 4  # batches of windows of a quarter: one window at a time, of the usual four


@dataclass(frozen=True)
class Terms:
    """How the processes are made: ``threads`` of each (0: torch's choice); ``budget_bytes`` for all of them (0: most of
    the machine); ``confine`` (``cage.Cage``); ``folder`` holds what they write and what was learned of them."""

    threads: int = 0
    budget_bytes: int = 0
    confine: str = "available"
    folder: Path | None = None


@dataclass(frozen=True)
class _Asked:
    """A reading that is asked for."""

    card: Card
    volumes: Sequence[Volume]
    progress: Progress
    pace: Pace

    @property
    def what(self) -> tuple[str, tuple[str, ...]]:
        """The same for the same reading when it is asked for again."""
        return self.card.name, tuple(path for volume in self.volumes for path in volume.paths[:1])


class WorkerPool:
    """An ``Engine`` that keeps up to ``keep_warm`` models loaded, and starts a reading when there is room for it."""

    def __init__(
        self, herald: Herald, *, device: str = "auto", threads: int = 0, keep_warm: int = 2, terms: Terms | None = None
    ) -> None:
        self._herald, self._device, self._keep_warm = herald, device, keep_warm
        self._terms = terms or Terms(threads)
        if self._terms.folder is not None:
            self._terms.folder.mkdir(parents=True, exist_ok=True)
            scratch.clean(self._terms.folder)
        file = self._terms.folder / "footprints.json" if self._terms.folder else None
        self._room = Room(self._terms.budget_bytes or int(machine_bytes() * SHARE_OF_MACHINE) or 1 << 62)
        self._footprints = Footprints(file, self._room.budget_bytes)
        self._turn = threading.Condition()
        self._lean: dict[str, int] = {}
        self._made_way: set[object] = set()
        self._noted: set[str] = set()
        self._closed = False

    def warm(self, card: Card, count: int = 1) -> None:
        """Load a model into ``count`` processes before they are needed; raises CardError or WorkerLost.

        Each can be used as soon as it is loaded. Without room there are fewer, and a reading that needs the room, or is
        urgent, goes first.
        """
        with self._turn:
            here = sum(s.model == card.name for s in self._room.seats)
        for _ in range(count - here):
            try:
                seat = self._take(card, self._where(card), lambda _: None, Pace.SPARE)
            except Outranked:
                return
            try:
                self._load(seat, card, self._watch(seat, lambda _: None))
            except Outranked:
                return
            finally:
                self._give_back(seat)

    def warm_all(self, cards: Sequence[Card], count: int = 1) -> None:
        """Load several; one that cannot be loaded is logged, and its jobs will say why they fail."""
        for card in cards:
            try:
                self.warm(card, count)
            except Canceled:
                return
            except OverreadError as error:
                _log.error("model %s cannot be loaded: %s", card.name, error)

    def read(self, card: Card, volumes: Sequence[Volume], progress: Progress, pace: Pace = Pace.USUAL) -> Reading:
        """One attempt, see ``ports.Engine``. A worker that failed is replaced before the next attempt.

        When it runs out of memory the same is tried with less: the others are evicted, batches of windows get smaller,
        and then it goes to the CPU, or waits for better times, as the card says.
        """
        where, asked = self._where(card), _Asked(card, volumes, progress, pace)
        while True:
            step = self._lean.get(card.name, 0)
            cpu = step >= 2 and card.runtime.out_of_memory == "cpu"
            try:
                reading = self._once(asked, "cpu" if cpu else where, step)
            except WorkerLost as error:
                if error.kind != "memory" or not self._with_less(card, where, died=error.death is not None):
                    raise
                continue
            self._lean.pop(card.name, None)
            self._note(card, reading)
            return reading

    def refused(self, cards: Sequence[Card]) -> frozenset[str]:
        """Names of the models for which there is no room now, even if all that are not at work made way."""
        with self._turn:
            self._bury()
            busy = self._room.claimed()
            places = {c.name: self._room.place(self._where(c)) for c in cards}
            return frozenset(
                c.name
                for c in cards
                if not self._room.fits(self._footprints.need(c, places[c.name]), places[c.name], busy)
            )

    def warm_models(self) -> list[Warm]:
        """How the warm models stand."""
        with self._turn:
            self._bury()
            seats = [s for s in self._room.seats if s.worker is not None and s.device]
            return [
                Warm(s.model, s.device, s.worker.resident_bytes if s.worker else 0, s.held.device_bytes, s.taken)
                for s in seats
            ]

    def pids(self) -> dict[str, int]:
        """Process ids of the warm models; of several processes the one that was used last."""
        with self._turn:
            seats = sorted(self._room.seats, key=lambda s: s.used_at)
            return {s.model: s.worker.pid for s in seats if s.worker is not None and s.worker.pid is not None}

    def close(self) -> None:
        """End all workers, and whatever waits for one."""
        with self._turn:
            self._closed = True
            seats, self._room.seats = self._room.seats, []
            self._turn.notify_all()
        for seat in seats:
            if seat.worker is not None:
                seat.worker.kill()

    def _where(self, card: Card) -> str:
        return card.runtime.device if card.runtime.device != "auto" else self._device

    # one attempt

    def _once(self, asked: _Asked, where: str, step: int) -> Reading:
        card, progress = asked.card, asked.progress
        seat = self._take(card, where, progress, asked.pace, alone=step > 0)
        seat.stays = asked.pace is Pace.OVERDUE and asked.what in self._made_way
        try:
            beat, rest = self._watch(seat, progress), self._rest(seat)
            worker = self._load(seat, card, beat)
            reading, device_bytes = worker.measured(asked.volumes, beat, share=SMALLER if step else 1, rest=rest)
            self._footprints.learn(card, seat.device, Footprint(worker.peak_bytes, device_bytes))
            self._made_way.discard(asked.what)
            return reading
        except Outranked:
            self._made_way.add(asked.what)
            raise
        except WorkerLost as error:
            if error.death is not None:
                self._died(seat, error)
                if error.kind == "memory":  # so that the next attempt waits until there is room for so much
                    self._footprints.learn(card, seat.device, Footprint(error.death.peak_bytes))
            raise self._explained(card, error) from None
        except Stumbled:
            # What a model has thrown may have left it in any state.
            self._unload(seat)
            self._herald(ModelReplaced(card.name))
            raise
        finally:
            if seat.worker is not None and seat.worker.rested_s > 0.5:
                self._herald(ReadingRested(card.name, seat.worker.rested_s))
            self._give_back(seat)

    def _explained(self, card: Card, error: WorkerLost) -> WorkerLost:
        """With the key that says how much memory it may hold, where it was that which was short."""
        if error.kind != "memory" or (error.death is None and self._room.gpus):
            return error
        key = "runtime.memory_mb of its card" if card.runtime.memory_mb else "schedule.memory_gb"
        most = (card.runtime.memory_mb << 20 or self._room.budget_bytes) >> 20
        return WorkerLost(f"{error}; {key} says how much it may hold ({most} MB)", error.kind, error.death)

    def _watch(self, seat: Seat, progress: Progress) -> Progress:
        """What is called while a process loads or reads: whether that is still wanted, and whether it must make way."""
        looked = [time.monotonic()]

        def beat(fraction: float) -> None:
            progress(fraction)
            process = seat.worker or seat.newborn
            if seat.outranked:
                if seat.worker is not None:  # else it is loading, and whoever waits for that ends it
                    seat.worker.kill()
                raise Outranked("the reading made room for an urgent one")
            if time.monotonic() - looked[0] > SUM_S:
                looked[0] = time.monotonic()
                if process is not None and self._must_end(seat):
                    raise process.ended(self._too_much(seat), "memory")

        return beat

    def _must_end(self, seat: Seat) -> bool:
        """Whether this is the one to end, for all together hold too much; one that is idle is ended instead of it."""
        with self._turn:
            for one in self._room.idle():
                one.held = Footprint(one.worker.resident_bytes if one.worker else 0, one.held.device_bytes)
            last = self._room.overfull()
            if last is not None and last.is_idle:
                self._evict(last)
                self._herald(ModelUnloaded(last.model))
            seat.doomed = last is seat
            return seat.doomed

    def _too_much(self, seat: Seat) -> str:
        return (
            f"all models together held more than the {self._room.budget_bytes >> 20} MB that they may, and of them "
            f"this one, with {seat.seen_bytes >> 20} MB, was furthest beyond the {seat.held.host_bytes >> 20} MB it "
            "was given room for; it was ended"
        )

    def _rest(self, seat: Seat) -> Callable[[], bool]:
        began = [0.0]

        def rest() -> bool:
            if seat.pace is Pace.URGENT or not self._room.urgent_on(seat.device):
                return False
            began[0] = began[0] or time.monotonic()
            return time.monotonic() - began[0] < LONGEST_REST_S

        return rest

    def _with_less(self, card: Card, where: str, *, died: bool) -> bool:
        """Whether there is less to try with at once; when its process has died, that is the next attempt's."""
        step = self._lean.get(card.name, 0) + 1
        on_cpu = where == "cpu" or not self._room.gpus
        last = 1 if card.runtime.out_of_memory == "patience" or on_cpu else 2
        self._lean[card.name] = min(step, last)
        remedy = "patience" if step > last else ("smaller", "cpu")[step - 1]
        self._herald(MemoryShort(card.name, remedy))
        return step <= last and not died

    def _note(self, card: Card, reading: Reading) -> None:
        if reading.notes and card.name not in self._noted:
            self._noted.add(card.name)
            _log.info("model %s was adapted: %s", card.name, "; ".join(reading.notes))

    # processes

    def _take(self, card: Card, where: str, progress: Progress, pace: Pace, *, alone: bool = False) -> Seat:
        """A seat for one reading: a warm one, or a new one when there is room; waits for room, and for its turn.

        With ``alone`` all that are not at work make way first. What ``progress`` raises ends the waiting. SPARE takes
        nobody's room and waits for none: it raises Outranked.
        """
        waits = Seat(card.name, where, pace=pace, since=time.monotonic())
        try:
            while True:
                with self._turn:
                    seat = self._chosen(waits, where)
                    waits.device, waits.held = seat.device, self._footprints.need(card, seat.device)
                    if pace is not Pace.SPARE:
                        self._make_room(seat, waits, alone=alone)
                    if self._room.fits(waits.held, seat.device, self._room.before(waits, seat)):
                        return self._sit(seat, waits.held, pace)
                    self._line_up(waits)
                    self._turn.wait(LOOK_S)
                progress(0.0)
        finally:
            with self._turn:
                self._room.line = [s for s in self._room.line if s is not waits]

    def _chosen(self, waits: Seat, where: str) -> Seat:
        if self._closed:
            raise Canceled("the service is stopped")
        warm = [s for s in self._room.idle() if s.model == waits.model and s.asked == where]
        mine = next((s for s in reversed(warm) if s.worker and s.worker.alive), None)
        spare = waits.pace is Pace.SPARE
        return mine if mine and not spare else Seat(waits.model, where, self._room.place(where))

    def _line_up(self, waits: Seat) -> None:
        if waits.pace is Pace.SPARE:
            raise Outranked(f"there is no room to load {waits.model} ahead of need")
        if waits not in self._room.line:
            self._room.line.append(waits)
        self._room.outrank(waits)

    def _sit(self, seat: Seat, need: Footprint, pace: Pace) -> Seat:
        if seat not in self._room.seats:
            self._room.seats.append(seat)
        seat.taken, seat.pace, seat.held, seat.outranked = True, pace, need, False
        return seat

    def _make_room(self, seat: Seat, waits: Seat, *, alone: bool) -> None:
        """Unload what is dead, what is too much to keep, and, the least recently used first, what has no room."""
        self._bury()
        others = [s for s in self._room.idle() if s.model != seat.model]
        names = list(dict.fromkeys(s.model for s in others))
        surplus = set(names) if alone else set(names[: max(0, len(names) + 1 - self._keep_warm)])
        for one in (s for s in others if s.model in surplus):
            self._evict(one)
            self._herald(ModelUnloaded(one.model))
        for one in [s for s in self._room.idle() if s is not seat]:
            if self._room.fits(waits.held, seat.device, self._room.before(waits, seat)):
                return
            self._evict(one)
            self._herald(ModelUnloaded(one.model))

    def _bury(self) -> None:
        """What has died while nobody read with it is not there any more."""
        for one in [s for s in self._room.idle() if s.worker and not s.worker.alive]:
            self._evict(one)
            self._herald(WorkerDied(one.model, "crash"))

    def _load(self, seat: Seat, card: Card, progress: Progress) -> WorkerProcess:
        if seat.worker is not None:
            return seat.worker
        t = self._terms
        most = card.runtime.memory_mb << 20 or self._room.budget_bytes
        worker = WorkerProcess(card, seat.device, t.threads, memory_bytes=most, confine=t.confine, folder=t.folder)
        seat.newborn = worker
        try:
            ready = worker.wait_ready(progress)
        except BaseException:
            worker.kill()
            raise
        finally:
            seat.newborn = None
        with self._turn:
            if self._closed:
                worker.kill()
                raise Canceled("the service is stopped")
            seat.worker, seat.device, seat.device_bytes = worker, ready.device, ready.device_bytes
            self._room.gpus = max(self._room.gpus, ready.gpus)
        self._herald(ModelLoaded(card.name, ready.device, ready.seconds))
        if ready.walls.lacking:
            self._herald(WorkerUnconfined(card.name, "; ".join(ready.walls.lacking), ready.walls.open))
        return worker

    def _give_back(self, seat: Seat) -> None:
        """The reading has ended, well or not; a seat without a process goes."""
        with self._turn:
            seat.taken, seat.pace = False, Pace.USUAL
            if seat.worker is None or not seat.worker.alive:
                self._evict(seat)
            else:
                seat.held = Footprint(seat.worker.resident_bytes, seat.held.device_bytes)
            self._turn.notify_all()

    def _evict(self, seat: Seat) -> None:
        if seat in self._room.seats:
            self._room.seats.remove(seat)
        self._unload(seat)

    def _unload(self, seat: Seat) -> None:
        worker, seat.worker = seat.worker, None
        if worker is not None:
            worker.kill()

    def _died(self, seat: Seat, error: WorkerLost) -> None:
        self._unload(seat)
        death = error.death
        signal, peak = (death.signal, death.peak_bytes) if death else ("", 0)
        self._herald(WorkerDied(seat.model, error.kind, signal, peak))
