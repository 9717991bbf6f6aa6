"""The evidence of processes that died of a job."""

from __future__ import annotations

import time

from sqlmodel import col, select

from overread.domain.death import Death
from overread.domain.job import Job
from overread.ledger.store import Ledger
from overread.ledger.tables import DeathRow

LONGEST = 2000


def record(ledger: Ledger, job: Job, death: Death) -> None:
    """Keep what is left of a process that died in this attempt."""
    row = DeathRow(job_id=job.id, at=time.time(), attempt=job.attempts + 1, **vars(death))
    row.said = row.said[-LONGEST:]
    with ledger.write() as session:
        session.add(row)


def of_job(ledger: Ledger, job_id: int) -> list[tuple[int, Death]]:
    """Of each the number of the attempt, and the evidence; oldest first."""
    with ledger.read() as session:
        rows = session.exec(select(DeathRow).where(DeathRow.job_id == job_id).order_by(col(DeathRow.id))).all()
        return [(r.attempt, Death(r.kind, r.signal, r.exit_code, r.peak_bytes, r.said)) for r in rows]
