"""Making room: studies whose every job has ended are removed from the spool after a while."""

from __future__ import annotations

from overread.ledger import Ledger, views
from overread.spool import Spool


def retire(ledger: Ledger, spool: Spool, keep_s: float, now: float) -> int:
    """Remove images and results of finished studies older than ``keep_s`` seconds; returns how many studies.

    What lies in quarantine for as long goes too. The ledger keeps the study, its jobs and their events. A FAILED job
    keeps its study until a person has decided.
    """
    before, retired = now - keep_s, 0
    for study_uid in views.disposable(ledger, before):
        told = views.story(ledger, study_uid)
        paths = views.purge(ledger, study_uid, before, now)
        if told is None or paths is None:
            continue
        spool.remove_study(study_uid, [job.row.id or 0 for job in told.jobs], paths, before)
        retired += 1
    spool.clear_quarantine(before)
    return retired
