"""Making room: studies whose every job has ended are removed from the spool after a while."""

from __future__ import annotations

from overread.ledger import Ledger, views
from overread.spool import Spool


def retire(ledger: Ledger, spool: Spool, keep_s: float, now: float) -> int:
    """Remove images and results of finished studies older than ``keep_s`` seconds; returns how many studies.

    The ledger keeps the study, its jobs and their events. A FAILED job keeps its study until a person has decided.
    """
    studies = views.disposable(ledger, now - keep_s)
    for study_uid in studies:
        told = views.story(ledger, study_uid)
        views.purge(ledger, study_uid, now)
        spool.remove_study(study_uid, [job.row.id or 0 for job in told.jobs] if told else [])
    return len(studies)
