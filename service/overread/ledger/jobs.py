"""Jobs: planned from a routed study, claimed under a lease, moved by compare-and-set."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, or_, update
from sqlmodel import Session, col, select

from overread.domain.called import ROUTINE, STAT, Errand, parted
from overread.domain.job import TRANSITIONS, Job, JobEvent, JobState
from overread.ledger.store import Ledger
from overread.ledger.tables import DecisionRow, DeliveryRow, EventRow, JobRow, StudyRow

CLOCK = "clock"
NEVER = 1e18  # later than any deadline
MOST_LOSSES = 20
BY_WORKER = frozenset({JobEvent.READ, JobEvent.STUMBLED, JobEvent.LOST, JobEvent.UNFIT, JobEvent.GAVE_UP})


@dataclass(frozen=True)
class Decision:
    """Why ``model`` was given or not given a series; ``series_uid`` empty speaks of the study as a whole."""

    model: str
    series_uid: str
    series_title: str
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Plan:
    """A job that a study calls for; from ``called_aes`` follow ``urgency``, ``hint`` and ``priority``. Its result is
    wanted ``deadline_s`` after the study's last image (0: not said)."""

    model: str
    model_version: str
    series_uid: str
    input_digest: str
    priority: int
    called_aes: str = ""
    urgency: str = ROUTINE
    hint: str = ""
    deadline_s: float = 0.0


@dataclass(frozen=True)
class Wanted:
    """Which of the jobs that are due a worker takes.

    ``urgent_only``: those that are STAT; ``without``: none of these models, for which there is no room now, but for
    STAT jobs, for which others make way. A job has waited too long after ``longest_wait_s``, or when half of the time
    until its deadline is gone; with ``overdue_first`` it goes before all others, the one that has waited longest first,
    and it is taken without room, too: it waits for it then, and who is claimed later does not take it.
    """

    urgent_only: bool = False
    without: Collection[str] = ()
    longest_wait_s: float = 3600.0
    overdue_first: bool = False


@dataclass(frozen=True)
class Move:
    """A move that took place."""

    job: Job
    before: JobState
    after: JobState


def plan(
    ledger: Ledger, study_uid: str, revision: int, decisions: Sequence[Decision], plans: Sequence[Plan]
) -> list[Move] | None:
    """Write what the router decided about one revision, and the jobs that follow, in one transaction.

    A plan whose input is that of the model's newest job makes no new job. Otherwise the older jobs of the model are
    superseded by a new one, also when it reads again what an older one has read: its answer is to be the last.
    None when the study has grown meanwhile, or this revision was planned already: nothing is written then.
    """
    now = time.time()
    with ledger.write() as session:
        study = session.get(StudyRow, study_uid, with_for_update=True)
        if study is None or (study.revision, study.state) != (revision, "COMPLETE"):
            return None
        if study.routed_revision >= revision:
            return None
        study.routed_revision = revision
        for d in decisions:
            session.add(DecisionRow(study_uid=study_uid, revision=revision, **vars(d)))
        moves: list[Move] = []
        for p in plans:
            moves += _plan_one(session, study, p, now)
        for model in sorted({d.model for d in decisions} - {p.model for p in plans}):
            moves += _supersede_all(session, study, model, now)
        return moves


def _plan_one(session: Session, study: StudyRow, p: Plan, now: float) -> list[Move]:
    rows = _jobs_of(session, study, p.model)
    current = [row for row in rows[-1:] if row.state != JobState.SUPERSEDED]
    if any((row.model_version, row.input_digest) == (p.model_version, p.input_digest) for row in current):
        return []
    moves = _supersede(session, study, rows, now)
    values = {key: value for key, value in vars(p).items() if key != "deadline_s"}
    values |= {"created_at": now, "updated_at": now, "last_at": study.last_at}
    deadline = study.last_at + p.deadline_s if p.deadline_s else 0.0
    row = JobRow(study_uid=study.uid, revision=study.revision, deadline=deadline, **values)
    session.add(row)
    session.flush()
    session.add(EventRow(job_id=row.id or 0, at=now, who="router", event="plan", before="", after=JobState.SCHEDULED))
    return moves


def _supersede_all(session: Session, study: StudyRow, model: str, now: float) -> list[Move]:
    # What a model read of a study that it would not read now is no longer an answer. A study whose images were removed
    # meanwhile says nothing about the earlier reading.
    if study.purged_at is not None:
        return []
    return _supersede(session, study, _jobs_of(session, study, model), now)


def _jobs_of(session: Session, study: StudyRow, model: str) -> Sequence[JobRow]:
    query = select(JobRow).where(JobRow.study_uid == study.uid, JobRow.model == model)
    return session.exec(query.order_by(col(JobRow.id))).all()


def _supersede(session: Session, study: StudyRow, rows: Sequence[JobRow], now: float) -> list[Move]:
    moves = []
    for row in rows:
        moved = move_row(session, row, JobEvent.SUPERSEDE, "router", f"revision {study.revision} of the study")
        if moved:
            moves.append(moved)
            drop_deliveries(session, row.id or 0, now, "superseded", "superseded by a later revision of the study")
    return moves


def drop_deliveries(session: Session, job_id: int, now: float, cause: str, reason: str) -> int:
    """What has not arrived yet is not sent; returns how many that are."""
    dropped = (
        update(DeliveryRow)
        .where(col(DeliveryRow.job_id) == job_id, col(DeliveryRow.state).in_(["PENDING", "SENT", "FAILED"]))
        .values(state="DROPPED", cause=cause, reason=reason, not_before=now)
    )
    return int(session.exec(dropped).rowcount)


def reorder(ledger: Ledger, errand: Callable[[tuple[str, ...]], Errand]) -> int:
    """Waiting jobs whose study was sent to another AE title since take the urgency and hint that follow from it.

    Returns how many moved to another place in the queue: sent again to an urgent title, a study moves ahead.
    """
    changed = col(StudyRow.called_aes) != col(JobRow.called_aes)
    query = select(JobRow, StudyRow.called_aes).join(StudyRow, col(StudyRow.uid) == JobRow.study_uid)
    query = query.where(JobRow.state == JobState.SCHEDULED, changed)
    with ledger.read() as session:
        if session.exec(query.limit(1)).first() is None:
            return 0
    moved, now = 0, time.time()
    with ledger.write() as session:
        for row, called_aes in session.exec(query.with_for_update(of=JobRow)).all():
            before = Errand(row.urgency, row.hint)
            after = errand(parted(called_aes))
            row.priority += after.rank() - before.rank()
            row.called_aes, row.urgency, row.hint, row.updated_at = called_aes, after.priority, after.hint, now
            due = [at for at in (row.deadline, after.due(row.last_at)) if at]
            row.deadline = min(due, default=0.0)
            moved += after.priority != before.priority
    return moved


def claim(ledger: Ledger, worker: str, lease_s: float, wanted: Wanted | None = None) -> Move | None:
    """Take the next job that is due: highest priority first, then earliest deadline, then oldest. None without one."""
    now, wanted = time.time(), wanted or Wanted()
    overdue = _overdue(wanted, now)
    due = (
        select(JobRow, overdue.label("overdue"))
        .where(*_takes(wanted, now), JobRow.not_before <= now)
        .order_by(
            *([case((overdue, col(JobRow.created_at)), else_=NEVER)] if wanted.overdue_first else ()),
            col(JobRow.priority).desc(),
            case((col(JobRow.deadline) > 0, col(JobRow.deadline)), else_=NEVER),
            col(JobRow.id),
        )
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    with ledger.read() as session:
        if session.exec(select(JobRow.id).where(*_takes(wanted, now)).limit(1)).first() is None:
            return None
    with ledger.write() as session:
        found = session.exec(due).first()
        if found is None:
            return None
        row, late = found
        values = {"worker": worker, "lease_until": now + lease_s, "progress": 0.0}
        moved = move_row(session, row, JobEvent.CLAIM, worker, f"attempt {row.attempts + 1}", **values)
        return replace(moved, job=replace(moved.job, overdue=bool(late))) if moved else None


def _takes(wanted: Wanted, now: float) -> tuple[ColumnElement[bool], ...]:
    takes: list[ColumnElement[bool]] = [col(JobRow.state) == JobState.SCHEDULED]
    if wanted.urgent_only:
        takes.append(col(JobRow.urgency) == STAT)
    if wanted.without:
        fits = col(JobRow.model).not_in(sorted(wanted.without))
        overdue = [_overdue(wanted, now)] if wanted.overdue_first else []
        takes.append(or_(fits, col(JobRow.urgency) == STAT, *overdue))
    return tuple(takes)


def _overdue(wanted: Wanted, now: float) -> ColumnElement[bool]:
    deadline, planned = col(JobRow.deadline), col(JobRow.created_at)
    half_gone = and_(deadline > 0, deadline + planned <= 2 * now)
    return or_(planned + wanted.longest_wait_s <= now, half_gone)


def held(ledger: Ledger, job_id: int, worker: str) -> bool:
    """Whether a job still runs, and is this worker's."""
    mine = (JobRow.id == job_id, JobRow.worker == worker, JobRow.state == JobState.RUNNING)
    with ledger.read() as session:
        return session.exec(select(JobRow.id).where(*mine)).first() is not None


def miss_deadlines(ledger: Ledger, now: float) -> list[Job]:
    """Jobs whose results are not at home when they are wanted; each is told once."""
    open_still = [JobState.SCHEDULED, JobState.RUNNING, JobState.DELIVERING]
    missed = (col(JobRow.deadline) > 0, col(JobRow.deadline) < now, col(JobRow.late).is_(False))
    query = select(JobRow).where(*missed, col(JobRow.state).in_(open_still))
    with ledger.read() as session:
        if session.exec(query.limit(1)).first() is None:
            return []
    with ledger.write() as session:
        rows = session.exec(query.with_for_update(skip_locked=True)).all()
        for row in rows:
            row.late = True
        return [as_job(row) for row in rows]


def renew(ledger: Ledger, job_id: int, worker: str, lease_s: float, progress: float) -> bool:
    """Prolong a lease; False when the job is no longer this worker's."""
    with ledger.write() as session:
        statement = (
            update(JobRow)
            .where(col(JobRow.id) == job_id, col(JobRow.worker) == worker, col(JobRow.state) == JobState.RUNNING)
            .values(lease_until=time.time() + lease_s, progress=progress)
        )
        return bool(session.exec(statement).rowcount)


def move(ledger: Ledger, job_id: int, event: JobEvent, who: str, why: str = "", **values: Any) -> Move | None:
    """Move a job along the table in ``domain.job``.

    None when its state does not know the event, another was first, or a worker speaks of a job that it does not hold.
    """
    with ledger.write() as session:
        row = session.get(JobRow, job_id)
        return None if row is None else move_row(session, row, event, who, why, **values)


def move_row(session: Session, row: JobRow, event: JobEvent, who: str, why: str, **values: Any) -> Move | None:
    """The same inside a transaction that does more."""
    before = JobState(row.state)
    after = TRANSITIONS.get((before, event))
    if after is None:
        return None
    now = time.time()
    guard = update(JobRow).where(col(JobRow.id) == row.id, col(JobRow.state) == before)
    if before is JobState.RUNNING and event in BY_WORKER and who != CLOCK:
        guard = guard.where(col(JobRow.worker) == who)
    if session.exec(guard.values(state=after, updated_at=now, reason=why, **values)).rowcount != 1:
        return None
    session.add(EventRow(job_id=row.id or 0, at=now, who=who, event=event, before=before, after=after, why=why))
    session.refresh(row)
    return Move(as_job(row), before, after)


def lapse(ledger: Ledger, now: float, *, worker: str = "") -> list[Move]:
    """Give back jobs whose lease ran out, or all that a worker of this name held before it was started again."""
    query = select(JobRow).where(JobRow.state == JobState.RUNNING)
    query = query.where(JobRow.worker == worker) if worker else query.where(JobRow.lease_until < now)
    with ledger.read() as session:
        if session.exec(query.limit(1)).first() is None:
            return []
    with ledger.write() as session:
        rows = session.exec(query.with_for_update(skip_locked=True)).all()
        why = "its worker was started again" if worker else "its lease ran out"
        return [m for row in rows if (m := _lose(session, row, why))]


def _lose(session: Session, row: JobRow, why: str) -> Move | None:
    lost = select(func.count()).where(EventRow.job_id == row.id, EventRow.event == JobEvent.LOST, EventRow.who == CLOCK)
    if session.exec(lost).one() < MOST_LOSSES:
        return move_row(session, row, JobEvent.LOST, CLOCK, why, worker="")
    # Whatever takes the whole worker down each time must not do so for ever.
    return move_row(session, row, JobEvent.GAVE_UP, row.worker, f"its worker was lost {MOST_LOSSES + 1} times")


def as_job(row: JobRow) -> Job:
    """The row as a value."""
    return Job(
        row.id or 0,
        row.study_uid,
        row.series_uid,
        row.model,
        row.model_version,
        row.input_digest,
        row.revision,
        JobState(row.state),
        row.attempts,
        row.priority,
        row.last_at,
        row.urgency,
        row.hint,
        row.created_at,
        row.deadline,
        kills=row.kills,
    )
