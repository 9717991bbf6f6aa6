"""Claims that nobody renews any more."""

from __future__ import annotations

from overread.domain.events import DeadlineMissed, JobMoved
from overread.ledger import Ledger, jobs
from overread.ports import Herald


def lapse(ledger: Ledger, now: float, herald: Herald) -> int:
    """Give back the jobs whose lease ran out; returns how many."""
    moves = jobs.lapse(ledger, now)
    for m in moves:
        herald(JobMoved(m.job.id, m.job.model, m.job.study_uid, m.before, m.after, "its lease ran out"))
    return len(moves)


def watch_deadlines(ledger: Ledger, now: float, herald: Herald) -> int:
    """Tell, once of each, the jobs whose results are not at home when they are wanted; returns how many."""
    missed = jobs.miss_deadlines(ledger, now)
    for job in missed:
        herald(DeadlineMissed(job.model))
    return len(missed)
