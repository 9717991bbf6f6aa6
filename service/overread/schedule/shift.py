"""Workers on shift: each slot claims a job under a lease, reads it, and says how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from overread.domain.card import Card
from overread.domain.errors import CardError, OverreadError, Refused, Unfit
from overread.domain.events import JobMoved, Trouble
from overread.domain.job import Job, JobEvent
from overread.domain.result import Result
from overread.ledger import Ledger, deliveries, jobs
from overread.ports import Herald, Progress

IDLE_S = 0.5

Read = Callable[[Job, Card, Progress], Sequence[Result]]


class Shift:
    """Runs ``read`` on claimed jobs, ``slots`` at a time.

    ``kinds`` names, for each destination, the kinds of result it takes. A job whose lease was lost or that was
    superseded meanwhile leaves no trace of this attempt.
    """

    def __init__(
        self,
        ledger: Ledger,
        cards: Mapping[str, Card],
        read: Read,
        kinds: dict[str, tuple[str, ...]],
        herald: Herald,
        *,
        worker: str,
        lease_s: float,
        retry_s: float,
    ) -> None:
        self._ledger, self._cards, self._read = ledger, cards, read
        self._kinds, self._herald = kinds, herald
        self._worker, self._lease_s, self._retry_s = worker, lease_s, retry_s
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._beats: dict[str, float] = {}

    def start(self, slots: int) -> None:
        """Give back what this worker held before it was started again, then begin to claim."""
        for moved in jobs.lapse(self._ledger, time.time(), worker=self._worker):
            self._tell(moved, "its worker was started again")
        for n in range(slots):
            thread = threading.Thread(target=self._slot, args=(f"slot {n}",), name=f"slot-{n}", daemon=True)
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
        while not self._stopping.is_set():
            self._beats[name] = time.monotonic()
            try:
                worked = self._once()
            except Exception as error:
                # The edge of the worker loop: the ledger may be away for a while; the lease guards the job.
                self._herald(Trouble("schedule", type(error).__name__))
                worked = False
            if not worked:
                self._stopping.wait(IDLE_S)

    def _once(self) -> bool:
        claimed = jobs.claim(self._ledger, self._worker, self._lease_s)
        if claimed is None:
            return False
        self._tell(claimed, f"attempt {claimed.job.attempts + 1}")
        job = claimed.job
        lease = _Lease(self._ledger, job.id, self._worker, self._lease_s)
        try:
            with lease:
                results = self._attempt(job, lease)
        except Exception as error:
            # The edge of an attempt: whatever a model, a file or a library throws ends this attempt only.
            self._end(job, error)
            return True
        moved = deliveries.put(self._ledger, job.id, self._worker, results, self._kinds)
        if moved:
            self._tell(moved, "read")
        return True

    def _attempt(self, job: Job, lease: _Lease) -> Sequence[Result]:
        card = self._cards.get(job.model)
        if card is None or card.version != job.model_version:
            raise CardError(f"model {job.model} {job.model_version} is no longer installed")
        return self._read(job, card, lease.progress)

    def _end(self, job: Job, error: Exception) -> None:
        reason = str(error) if isinstance(error, OverreadError) else f"{type(error).__name__} in this attempt"
        card = self._cards.get(job.model)
        allowed = card.runtime.attempts if card else 1
        if self._stopping.is_set():
            self._finish(job, JobEvent.LOST, "the service was stopped")
        elif isinstance(error, Unfit):
            moved = deliveries.put(self._ledger, job.id, self._worker, error.results, self._kinds, unfit=reason)
            if moved:
                self._tell(moved, reason)
        elif isinstance(error, Refused) or job.attempts + 1 >= allowed:
            self._finish(job, JobEvent.GAVE_UP, f"{reason} (attempt {job.attempts + 1} of {allowed})")
        else:
            wait = self._retry_s * 2**job.attempts
            self._finish(job, JobEvent.STUMBLED, reason, attempts=job.attempts + 1, not_before=time.time() + wait)
        if not isinstance(error, OverreadError):
            self._herald(Trouble("journey", type(error).__name__))

    def _finish(self, job: Job, event: JobEvent, reason: str, **values: object) -> None:
        moved = jobs.move(self._ledger, job.id, event, self._worker, reason, **values)
        if moved:
            self._tell(moved, reason)

    def _tell(self, moved: jobs.Move, why: str) -> None:
        job = moved.job
        self._herald(JobMoved(job.id, job.model, job.study_uid, moved.before, moved.after, why))


class _Lease:
    """Renews a claim in the background while a job runs, and carries its progress along."""

    def __init__(self, ledger: Ledger, job_id: int, worker: str, lease_s: float) -> None:
        self._ledger, self._job_id, self._worker, self._lease_s = ledger, job_id, worker, lease_s
        self._done = threading.Event()
        self._progress = 0.0
        self._thread = threading.Thread(target=self._renew, name=f"lease-{job_id}", daemon=True)

    def progress(self, fraction: float) -> None:
        """Remember how far the job is, 0 … 1; written with the next renewal."""
        self._progress = fraction

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(5)

    def _renew(self) -> None:
        beat, renewed, shown = min(1.0, self._lease_s / 5), time.monotonic(), 0.0
        while not self._done.wait(beat):
            moved = abs(self._progress - shown) > 0.02
            if not moved and time.monotonic() - renewed < self._lease_s / 3:
                continue
            try:
                jobs.renew(self._ledger, self._job_id, self._worker, self._lease_s, self._progress)
                renewed, shown = time.monotonic(), self._progress
            except Exception:
                # The edge of this thread: a ledger that is away for a moment must not end the lease; the next beat
                # tries again, and if it stays away the lease runs out, as it should.
                continue
