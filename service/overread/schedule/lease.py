"""A claim on a job while it runs: renewed, watched, and given up when the job is no longer ours."""

from __future__ import annotations

import threading
import time

from overread.domain.errors import Canceled
from overread.ledger import Ledger, jobs

BEAT_S = 0.25  # a job that is canceled must be left alone within a second


class Lease:
    """Renews a claim in the background while a job runs, carries its progress along, and notices when it is lost."""

    def __init__(self, ledger: Ledger, job_id: int, worker: str, lease_s: float) -> None:
        self._ledger, self._job_id, self._worker, self._lease_s = ledger, job_id, worker, lease_s
        self._done, self._lost = threading.Event(), threading.Event()
        self._progress = 0.0
        self._thread = threading.Thread(target=self._renew, name=f"lease-{job_id}", daemon=True)

    def progress(self, fraction: float) -> None:
        """Remember how far the job is, 0 … 1; written with the next renewal. Raises Canceled when the job is no longer
        this worker's: it was canceled, superseded, or given to another."""
        if self._lost.is_set():
            raise Canceled("the job was canceled or superseded, or its lease was lost")
        self._progress = fraction

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(5)

    def _renew(self) -> None:
        renewed, shown = time.monotonic(), 0.0
        while not self._done.wait(min(BEAT_S, self._lease_s / 5)):
            try:
                moved = abs(self._progress - shown) > 0.02 and time.monotonic() - renewed > 1.0
                if moved or time.monotonic() - renewed >= self._lease_s / 3:
                    ours = jobs.renew(self._ledger, self._job_id, self._worker, self._lease_s, self._progress)
                    renewed, shown = time.monotonic(), self._progress
                else:
                    ours = jobs.held(self._ledger, self._job_id, self._worker)
            except Exception:
                # The edge of this thread: a ledger that is away for a moment must not end the lease; the next beat
                # tries again, and if it stays away the lease runs out, as it should.
                continue
            if not ours:
                self._lost.set()
                return
