"""Which results a job's replace."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import col, select

from overread.domain.job import Job, JobState
from overread.domain.result import Result
from overread.ledger.deliveries import as_result
from overread.ledger.store import Ledger
from overread.ledger.tables import DeliveryRow, JobRow, ResultRow


@dataclass(frozen=True)
class Replaced:
    """``results`` of superseded jobs that a destination got or may have got, the latest job's first; ``again`` counts
    how often the same input was read before."""

    results: tuple[Result, ...] = ()
    again: int = 0


def superseded(ledger: Ledger, job: Job) -> Replaced:
    """What ``job`` replaces: what superseded jobs of its model on its study have made."""
    before = (
        select(JobRow)
        .where(JobRow.study_uid == job.study_uid, JobRow.model == job.model, col(JobRow.id) < job.id)
        .where(JobRow.state == JobState.SUPERSEDED)
    )
    exposed = select(DeliveryRow.sop_instance_uid).where(col(DeliveryRow.exposed).is_(True))
    with ledger.read() as session:
        jobs = session.exec(before).all()
        found = session.exec(
            select(ResultRow)
            .where(col(ResultRow.job_id).in_([row.id for row in jobs]), col(ResultRow.sop_instance_uid).in_(exposed))
            .order_by(col(ResultRow.job_id).desc(), col(ResultRow.path))
        ).all()
    again = sum((row.model_version, row.input_digest) == (job.model_version, job.input_digest) for row in jobs)
    return Replaced(tuple(as_result(row) for row in found), again)
