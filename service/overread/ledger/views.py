"""What people and dashboards ask of the ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import delete, func
from sqlmodel import col, select

from overread.domain.backlog import Backlog
from overread.domain.death import Death
from overread.domain.job import ENDED, Job, JobState
from overread.domain.result import OPEN_STATES, Result
from overread.ledger import commitments, deaths
from overread.ledger.deliveries import as_result
from overread.ledger.destinations import Stand, stands
from overread.ledger.jobs import as_job
from overread.ledger.store import Ledger
from overread.ledger.tables import (
    CommitmentRow,
    ConflictRow,
    DecisionRow,
    DeliveryRow,
    EventRow,
    InstanceRow,
    JobRow,
    ResultRow,
    StudyRow,
)

TOLD_CONFLICTS = 20


@dataclass(frozen=True)
class JobStory:
    """A job with all that happened to it; ``deaths`` are those of processes, with the number of the attempt."""

    row: JobRow
    events: list[EventRow] = field(default_factory=list)
    results: list[ResultRow] = field(default_factory=list)
    deliveries: list[DeliveryRow] = field(default_factory=list)
    deaths: list[tuple[int, Death]] = field(default_factory=list)


@dataclass(frozen=True)
class StudyStory:
    """Everything the ledger knows of a study. ``conflicts`` are the most recent ones, newest first; ``closed_to`` says
    how those destinations stand whose circuit breaker is open."""

    study: StudyRow
    decisions: list[DecisionRow]
    jobs: list[JobStory]
    conflicts: list[ConflictRow] = field(default_factory=list)
    commitments: list[CommitmentRow] = field(default_factory=list)
    closed_to: dict[str, Stand] = field(default_factory=dict)


def backlog(ledger: Ledger, now: float) -> Backlog:
    """Counts and ages for gauges."""
    with ledger.read() as session:
        studies = session.exec(select(StudyRow.state, func.count()).group_by(StudyRow.state)).all()
        jobs = session.exec(select(JobRow.model, JobRow.state, func.count()).group_by(JobRow.model, JobRow.state)).all()
        deliveries = session.exec(
            select(DeliveryRow.destination, DeliveryRow.state, func.count()).group_by(
                DeliveryRow.destination, DeliveryRow.state
            )
        ).all()
        oldest_job = session.exec(select(func.min(JobRow.created_at)).where(JobRow.state == JobState.SCHEDULED)).one()
        oldest_delivery = session.exec(
            select(func.min(DeliveryRow.created_at)).where(col(DeliveryRow.state).in_(OPEN_STATES))
        ).one()
    return Backlog(
        dict(studies),
        {(m, s): n for m, s, n in jobs},
        {(d, s): n for d, s, n in deliveries},
        max(0.0, now - oldest_job) if oldest_job else 0.0,
        max(0.0, now - oldest_delivery) if oldest_delivery else 0.0,
        frozenset(s.name for s in stands(ledger) if s.is_open),
    )


def story(ledger: Ledger, study_uid: str) -> StudyStory | None:
    """All about one study; None when it is unknown."""
    with ledger.read() as session:
        study = session.get(StudyRow, study_uid)
        if study is None:
            return None
        decisions = session.exec(
            select(DecisionRow).where(DecisionRow.study_uid == study_uid).order_by(col(DecisionRow.id))
        ).all()
        rows = session.exec(select(JobRow).where(JobRow.study_uid == study_uid).order_by(col(JobRow.id))).all()
        jobs = [
            JobStory(
                row,
                list(session.exec(select(EventRow).where(EventRow.job_id == row.id).order_by(col(EventRow.id))).all()),
                list(session.exec(select(ResultRow).where(ResultRow.job_id == row.id)).all()),
                list(session.exec(select(DeliveryRow).where(DeliveryRow.job_id == row.id)).all()),
                deaths.of_job(ledger, row.id or 0) if row.id else [],
            )
            for row in rows
        ]
        conflicts = session.exec(
            select(ConflictRow)
            .where(ConflictRow.study_uid == study_uid)
            .order_by(col(ConflictRow.id).desc())
            .limit(TOLD_CONFLICTS)
        ).all()
        closed_to = {s.name: s for s in stands(ledger) if s.is_open}
        found = StudyStory(study, list(decisions), jobs, list(conflicts), closed_to=closed_to)
    return replace(found, commitments=commitments.of_study(ledger, study_uid))


def made_by(ledger: Ledger, job_id: int) -> tuple[Job, list[Result]] | None:
    """A job and the results that it has made, in the order of making; None when it is unknown."""
    with ledger.read() as session:
        row = session.get(JobRow, job_id)
        if row is None:
            return None
        rows = session.exec(select(ResultRow).where(ResultRow.job_id == job_id).order_by(col(ResultRow.path))).all()
        return as_job(row), [as_result(r) for r in rows]


def recent_studies(ledger: Ledger, limit: int) -> list[StudyRow]:
    """The studies that came last, newest first."""
    with ledger.read() as session:
        return list(session.exec(select(StudyRow).order_by(col(StudyRow.last_at).desc()).limit(limit)).all())


def jobs_in(ledger: Ledger, states: list[JobState], limit: int) -> list[JobRow]:
    """Jobs in any of the states, the most recently moved first."""
    query = select(JobRow).where(col(JobRow.state).in_(states)).order_by(col(JobRow.updated_at).desc()).limit(limit)
    with ledger.read() as session:
        return list(session.exec(query).all())


def disposable(ledger: Ledger, before: float, now: float | None = None) -> list[str]:
    """Studies that are complete, whose last instance came before ``before``, and whose every job has ended well, but
    for those that storage commitment has promised to keep for longer than ``now`` (default: this moment).

    The one whose last instance came first stands first.
    """
    query = select(StudyRow.uid).where(*_finished(before, now)).order_by(col(StudyRow.last_at), col(StudyRow.uid))
    with ledger.read() as session:
        return list(session.exec(query).all())


def settled(ledger: Ledger, before: float, now: float | None = None) -> list[str]:
    """Of the ``disposable``, those that were complete, and whose every job had ended, before ``before``."""
    moved = select(JobRow.study_uid).where(JobRow.updated_at >= before)
    query = (
        select(StudyRow.uid)
        .where(*_finished(before, now), col(StudyRow.completed_at) < before, col(StudyRow.uid).not_in(moved))
        .order_by(col(StudyRow.last_at), col(StudyRow.uid))
    )
    with ledger.read() as session:
        return list(session.exec(query).all())


def _finished(before: float, now: float | None) -> tuple[Any, ...]:
    busy = select(JobRow.study_uid).where(col(JobRow.state).not_in([s for s in ENDED if s is not JobState.FAILED]))
    # What was purged and found in the spool again, after a crash between the two, has instances again.
    # Such as what was lost there, or that a study could not be analysed.
    on_way = select(DeliveryRow.study_uid).where(col(DeliveryRow.state).in_(OPEN_STATES))
    kept = select(InstanceRow.study_uid).where(InstanceRow.study_uid == StudyRow.uid).correlate(StudyRow)
    return (
        StudyRow.state == "COMPLETE",
        StudyRow.last_at < before,
        col(StudyRow.committed_until) <= (time.time() if now is None else now),
        StudyRow.routed_revision == StudyRow.revision,
        col(StudyRow.uid).not_in(busy),
        col(StudyRow.uid).not_in(on_way),
        kept.exists(),
    )


def purge(ledger: Ledger, study_uid: str, before: float, now: float) -> set[str] | None:
    """Forget a study's instances and say where they lie; the study, its jobs and their events stay.

    None when it is not ``disposable``, or no longer, for something has come or moved: nothing is forgotten then.
    """
    with ledger.write() as session:
        study = session.get(StudyRow, study_uid, with_for_update=True)
        found = session.exec(select(StudyRow.uid).where(StudyRow.uid == study_uid, *_finished(before, now))).first()
        if study is None or found is None:
            return None
        study.purged_at = now
        statement: Any = delete(InstanceRow).where(col(InstanceRow.study_uid) == study_uid)
        paths = session.exec(select(InstanceRow.path).where(InstanceRow.study_uid == study_uid)).all()
        session.exec(statement)
        return set(paths)


def instance_bytes(ledger: Ledger) -> int:
    """How many bytes the instances that the ledger knows take."""
    with ledger.read() as session:
        return int(session.exec(select(func.coalesce(func.sum(InstanceRow.size_bytes), 0))).one())


def instance_paths(ledger: Ledger, study_uid: str) -> set[str]:
    """Where the current instances of a study lie, relative to the spool."""
    with ledger.read() as session:
        return set(session.exec(select(InstanceRow.path).where(InstanceRow.study_uid == study_uid)).all())


def study_at(ledger: Ledger, path: str) -> str:
    """The study of which a file of the spool holds, or held, an instance; empty when the ledger does not know it."""
    with ledger.read() as session:
        for row in (InstanceRow, ConflictRow):
            found: str | None = session.exec(select(row.study_uid).where(row.path == path).limit(1)).first()
            if found is not None:
                return found
    return ""
