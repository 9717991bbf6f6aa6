"""Workers on shift: each slot claims a job under a lease, reads it, and says how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from overread.domain.card import Card
from overread.domain.errors import Canceled, CardError, Outranked, OverreadError, Refused, Unfit, WorkerLost
from overread.domain.events import JobClaimed, JobMoved, Trouble
from overread.domain.job import Job, JobEvent
from overread.domain.result import Result
from overread.ledger import Ledger, deaths, deliveries, jobs
from overread.ledger.jobs import Wanted
from overread.ports import Herald, Progress
from overread.schedule.lease import Lease

IDLE_S = 0.5
EXPRESS_IDLE_S = 0.2
MOST_KILLS = 3  # a job that has taken down so many processes goes to the dead letters, whatever its card allows

Read = Callable[[Job, Card, Progress], Sequence[Result]]


def _everything() -> Collection[str]:
    return ()


@dataclass(frozen=True)
class Terms:
    """How a shift works: under which name, with which lease, and how patiently.

    With ``express`` there is a further slot for STAT jobs while all others are taken. ``crowded`` names the models for
    which there is no room now.
    """

    worker: str
    lease_s: float
    retry_s: float
    longest_wait_s: float = 3600.0
    express: bool = False
    crowded: Callable[[], Collection[str]] = _everything


class Shift:
    """Runs ``read`` on claimed jobs, ``slots`` at a time.

    ``kinds`` names, for each destination, the kinds of result it takes. A job whose lease was lost, or that was
    canceled or superseded meanwhile, leaves no trace of this attempt.
    """

    def __init__(
        self,
        ledger: Ledger,
        cards: Mapping[str, Card],
        read: Read,
        kinds: dict[str, tuple[str, ...]],
        herald: Herald,
        *,
        terms: Terms,
    ) -> None:
        self._ledger, self._cards, self._read = ledger, cards, read
        self._kinds, self._herald, self._terms = kinds, herald, terms
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._beats: dict[str, float] = {}
        self._claiming = threading.Lock()
        self._slots = self._busy = 0

    def start(self, slots: int) -> None:
        """Give back what this worker held before it was started again, then begin to claim."""
        for moved in jobs.lapse(self._ledger, time.time(), worker=self._terms.worker):
            self._tell(moved, "its worker was started again")
        self._slots = slots
        names = [f"slot {n}" for n in range(slots)] + (["express"] if self._terms.express else [])
        for name in names:
            thread = threading.Thread(target=self._slot, args=(name,), name=name.replace(" ", "-"), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self, timeout_s: float, interrupt: Callable[[], None]) -> None:
        """Claim nothing more; ``interrupt`` ends the running attempts, whose jobs are given back."""
        self._stopping.set()
        interrupt()
        for thread in self._threads:
            thread.join(timeout_s)

    def stuck(self) -> list[str]:
        """Slots that have not moved for twice the longest time-out of any card."""
        limit = 2 * max((c.runtime.timeout_s for c in self._cards.values()), default=600.0) + 60
        return [name for name, beat in self._beats.items() if time.monotonic() - beat > limit]

    def _slot(self, name: str) -> None:
        express, claims = name == "express", 0
        while not self._stopping.is_set():
            self._beats[name] = time.monotonic()
            try:
                # Every second claim takes what has waited too long, so that neither kind waits for ever for the other.
                worked = self._once(express, overdue_first=claims % 2 == 1)
                claims += worked
            except Exception as error:
                # The edge of the worker loop: the ledger may be away for a while; the lease guards the job.
                self._herald(Trouble("schedule", type(error).__name__))
                worked = False
            if not worked:
                self._stopping.wait(EXPRESS_IDLE_S if express else IDLE_S)

    def _once(self, express: bool, *, overdue_first: bool) -> bool:
        job = self._claim(express, overdue_first)
        if job is None:
            return False
        try:
            lease = Lease(self._ledger, job.id, self._terms.worker, self._terms.lease_s)
            try:
                with lease:
                    results = self._attempt(job, lease)
            except Exception as error:
                # The edge of an attempt: whatever a model, a file or a library throws ends this attempt only.
                self._end(job, error)
                return True
            moved = deliveries.put(self._ledger, job.id, self._terms.worker, results, self._kinds)
            if moved:
                self._tell(moved, "read")
            return True
        finally:
            with self._claiming:
                self._busy -= not express

    def _claim(self, express: bool, overdue_first: bool) -> Job | None:
        """One slot claims at a time, so that no two count on the same room."""
        t = self._terms
        with self._claiming:
            if express and self._busy < self._slots:
                return None  # a slot that is free takes it
            # The crowd keeps neither STAT jobs back, for which others make way, nor those that have waited too long,
            # for which room is saved from now on.
            wanted = Wanted(express, () if express else t.crowded(), t.longest_wait_s, overdue_first)
            claimed = jobs.claim(self._ledger, t.worker, t.lease_s, wanted)
            if claimed is None:
                return None
            self._busy += not express
        job = claimed.job
        self._tell(claimed, f"attempt {job.attempts + 1}")
        self._herald(JobClaimed(job.model, job.urgency, max(0.0, time.time() - job.created_at), job.overdue))
        return job

    def _attempt(self, job: Job, lease: Lease) -> Sequence[Result]:
        card = self._cards.get(job.model)
        if card is None or card.version != job.model_version:
            raise CardError(f"model {job.model} {job.model_version} is no longer installed")
        return self._read(job, card, lease.progress)

    def _end(self, job: Job, error: Exception) -> None:
        reason = str(error) if isinstance(error, OverreadError) else f"{type(error).__name__} in this attempt"
        if self._stopping.is_set():
            self._finish(job, JobEvent.LOST, "the service was stopped")
        elif isinstance(error, Outranked):
            self._finish(job, JobEvent.LOST, reason)
        elif isinstance(error, Unfit):
            moved = deliveries.put(self._ledger, job.id, self._terms.worker, error.results, self._kinds, unfit=reason)
            if moved:
                self._tell(moved, reason)
        elif not isinstance(error, Canceled):  # whoever canceled it has moved it
            self._stumble(job, error, reason)
        if not isinstance(error, OverreadError):
            self._herald(Trouble("journey", type(error).__name__))

    def _stumble(self, job: Job, error: Exception, reason: str) -> None:
        card = self._cards.get(job.model)
        allowed = card.runtime.attempts if card else 1
        kills = job.kills
        if isinstance(error, WorkerLost) and error.death is not None:
            deaths.record(self._ledger, job, error.death)
            kills += 1
        if kills >= MOST_KILLS:
            self._finish(job, JobEvent.GAVE_UP, f"{reason}; it has taken down {kills} processes", kills=kills)
        elif isinstance(error, Refused) or job.attempts + 1 >= allowed:
            self._finish(job, JobEvent.GAVE_UP, f"{reason} (attempt {job.attempts + 1} of {allowed})", kills=kills)
        else:
            again = {"attempts": job.attempts + 1, "not_before": time.time() + self._terms.retry_s * 2**job.attempts}
            self._finish(job, JobEvent.STUMBLED, reason, kills=kills, **again)

    def _finish(self, job: Job, event: JobEvent, reason: str, **values: object) -> None:
        moved = jobs.move(self._ledger, job.id, event, self._terms.worker, reason, **values)
        if moved:
            self._tell(moved, reason)

    def _tell(self, moved: jobs.Move, why: str) -> None:
        job = moved.job
        self._herald(JobMoved(job.id, job.model, job.study_uid, moved.before, moved.after, why))
