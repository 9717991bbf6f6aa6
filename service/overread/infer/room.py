"""Who has how much of the machine: the places of warm models, and whether there is room for another reading."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from overread.domain.pace import Pace
from overread.infer.footprints import Footprint
from overread.infer.worker import WorkerProcess

SHARE_OF_MACHINE, SHARE_OF_DEVICE = 0.8, 0.95
LONGEST_PASS_S = 600.0  # so long an overdue reading that waits for room lets urgent ones go before it
CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(eq=False)
class Seat:
    """One process of a model: what was ``asked`` for (auto, cpu, cuda:N) and the ``device`` that it is on; ``taken``
    while somebody reads with it, at ``pace``: ``held`` is what it may take. ``outranked``: it is to make way.
    ``newborn`` is the process while it loads. ``stays``: it makes way for no urgent reading.
    ``doomed``: it is being ended, and what it holds will be free."""

    model: str
    asked: str
    device: str = ""
    worker: WorkerProcess | None = None
    newborn: WorkerProcess | None = None
    taken: bool = True
    pace: Pace = Pace.USUAL
    held: Footprint = field(default_factory=Footprint)
    outranked: bool = False
    device_bytes: int = 0
    since: float = 0.0
    stays: bool = False
    doomed: bool = False

    @property
    def rank(self) -> tuple[int, float]:
        """Who waits for room gets it in this order. An overdue one lets the urgent ones pass, but not for ever."""
        patient = time.monotonic() - self.since < LONGEST_PASS_S
        order = {Pace.URGENT: 1, Pace.OVERDUE: 2 if patient else 0, Pace.USUAL: 3, Pace.SPARE: 4}
        return order[self.pace], self.since

    @property
    def beyond(self) -> int:
        """How many bytes it holds beyond what it may take; below 0 what is left of that."""
        return self.seen_bytes - self.held.host_bytes

    @property
    def seen_bytes(self) -> int:
        """What its process held when it was looked at last."""
        process = self.worker or self.newborn
        return process.seen_bytes if process else 0

    @property
    def is_idle(self) -> bool:
        return not self.taken and self.worker is not None

    @property
    def used_at(self) -> float:
        return self.worker.used_at if self.worker else 0.0


class Room:
    """The budget of one machine. Not thread-safe: the pool holds its lock."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.seats: list[Seat] = []
        self.line: list[Seat] = []
        self.gpus = 0

    def fits(self, need: Footprint, device: str, besides: Iterable[Seat]) -> bool:
        """Whether ``need`` fits beside some seats; alone everything fits, for what else could be waited for."""
        others = list(besides)
        if not others:
            return True
        if sum(s.held.host_bytes for s in others) + need.host_bytes > self.budget_bytes:
            return False
        there = [s for s in others if s.device == device]
        most = max((s.device_bytes for s in self.seats if s.device == device), default=0) * SHARE_OF_DEVICE
        return not (most and there) or sum(s.held.device_bytes for s in there) + need.device_bytes <= most

    def before(self, waits: Seat, seat: Seat | None = None) -> list[Seat]:
        """What one that ``waits`` must fit beside: all seats but the one that it would take, and whom it lets pass.

        So room is saved for a large model: nobody who came later takes what has become free of it.
        """
        passing = [s for s in self.line if s is not waits and s.rank < waits.rank]
        return [s for s in self.seats if s is not seat] + passing

    def claimed(self) -> list[Seat]:
        """Who reads, and who waits for room: what comes now must fit beside all of them."""
        return [s for s in self.seats if s.taken and s.pace is not Pace.SPARE] + self.line

    def outrank(self, waits: Seat) -> None:
        """Have one make way, if that gives ``waits`` room: what is loaded ahead of need (but for what it may itself
        use soon), then, for an urgent reading, the usual one that began last, which is read again later, then one that
        is overdue."""
        spare = [s for s in self.taken() if s.pace is Pace.SPARE and s.model != waits.model]
        readings = [s for s in self.taken() if not s.stays] if waits.pace is Pace.URGENT else []
        lesser = [s for pace in (Pace.OVERDUE, Pace.USUAL) for s in readings if s.pace is pace] + spare
        stay = [s for s in self.before(waits) if s not in lesser]
        if lesser and not any(s.outranked for s in lesser) and self.fits(waits.held, waits.device, stay):
            lesser[-1].outranked = True

    def place(self, asked: str) -> str:
        """On which device another process goes: of several GPUs on the one that has the fewest. Before the first model
        has been loaded nobody knows how many there are, and ``auto`` stays what it is."""
        if asked != "auto" or not self.seats:
            return asked
        if not self.gpus:
            return "auto"
        devices = [f"cuda:{n}" for n in range(self.gpus)]
        return min(devices, key=lambda device: sum(s.device == device for s in self.seats))

    def taken(self) -> list[Seat]:
        """Those that are read with, or are loading."""
        return [s for s in self.seats if s.taken]

    def idle(self) -> list[Seat]:
        """Those that nobody reads with, the one that was not used for longest first."""
        return sorted((s for s in self.seats if s.is_idle), key=lambda s: s.used_at)

    def overfull(self) -> Seat | None:
        """Who has to end when all together hold more than the budget: one that is idle; else the one that is furthest
        beyond what it may take, for somebody is: room was given for no more than there is. None when all is well.

        A single one is held to its own limit instead.
        """
        several = [s for s in self.seats if s.seen_bytes and not s.doomed]
        if len(several) < 2 or sum(s.seen_bytes for s in several) <= self.budget_bytes:
            return None
        return next(iter(self.idle()), max(several, key=lambda s: s.beyond))

    def urgent_on(self, device: str) -> bool:
        """Whether an urgent reading is at work on a device."""
        urgent = [s for s in self.taken() if s.pace is Pace.URGENT and s.worker is not None]
        return any(s.device == device for s in urgent)


def machine_bytes() -> int:
    """The memory of this machine, or what its control group may take; 0 when neither is known."""
    total = 0
    for line in _text("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    limits = [int(text) for path in CGROUPS if (text := _text(path).strip()).isdigit()]
    return min([total, *limits]) if total else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
