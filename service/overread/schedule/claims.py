"""Claims that nobody renews any more."""

from __future__ import annotations

from overread.domain.events import JobMoved
from overread.ledger import Ledger, jobs
from overread.ports import Herald


def lapse(ledger: Ledger, now: float, herald: Herald) -> int:
    """Give back the jobs whose lease ran out; returns how many."""
    moves = jobs.lapse(ledger, now)
    for m in moves:
        herald(JobMoved(m.job.id, m.job.model, m.job.study_uid, m.before, m.after, "its lease ran out"))
    return len(moves)
