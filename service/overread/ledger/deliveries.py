"""The outbox: deliveries are planned with a job's results, claimed under a lease, and marked by who holds them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import and_, exists, func, or_, update
from sqlalchemy import select as core_select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from overread.domain.canary import kind_in
from overread.domain.job import JobEvent, JobState
from overread.domain.result import OPEN_STATES, DeliveryState, Result
from overread.ledger.jobs import Move, as_job, move_row
from overread.ledger.store import Ledger
from overread.ledger.tables import DeliveryRow, InstanceRow, JobRow, ResultRow

TABLE: Any = DeliveryRow.__table__  # type: ignore[attr-defined]
RESULT: Any = ResultRow.__table__  # type: ignore[attr-defined]
JOB: Any = JobRow.__table__  # type: ignore[attr-defined]
CANCELED = "canceled"  # the cause of what was dropped because its job was canceled
REJECTION = "rejection"  # a kind of result that withdraws earlier ones; only who got those gets it


@dataclass(frozen=True)
class Delivery:
    """One result on its way to one destination, as its holder sees it.

    ``calling_ae`` is who sent the study, empty when that is not known any more. Times are seconds since the epoch.
    """

    id: int
    job_id: int
    model: str
    destination: str
    result: Result
    state: DeliveryState
    attempts: int
    asked: int
    created_at: float
    last_at: float
    calling_ae: str
    transaction_uid: str
    warning: str
    exposed: bool


@dataclass(frozen=True)
class Claim:
    """Who claims deliveries, until when (seconds from now), how many, and whether those of a study keep their order."""

    worker: str
    lease_s: float
    most: int
    in_order: bool


@dataclass(frozen=True)
class Mark:
    """What became of one claimed delivery; the claim ends with it. None leaves a value as it is."""

    id: int
    state: DeliveryState
    cause: str = ""
    reason: str = ""
    not_before: float = 0.0
    tried: bool = False
    asked: int | None = None
    warning: str | None = None
    exposed: bool | None = None
    transaction_uid: str | None = None


def put(
    ledger: Ledger,
    job_id: int,
    worker: str,
    results: Sequence[Result],
    kinds: Mapping[str, Sequence[str]],
    *,
    unfit: str = "",
) -> Move | None:
    """Record a job's results and plan their deliveries, as one step with the job's move to DELIVERING.

    ``kinds`` names, for each destination, which kinds of result it takes; who got a kind from an earlier, superseded
    job gets the newer one in any case, and who got anything gets the rejection note when it takes that kind. ``unfit``
    is the reason why there was nothing to read: the job ends as NOT_APPLICABLE, and results that say so are delivered
    all the same. None when the job is no longer this worker's: nothing is recorded then.
    """
    now = time.time()
    with ledger.write() as session:
        row = session.get(JobRow, job_id, with_for_update=True)
        if row is None or row.worker != worker:
            return None
        event, why = (JobEvent.UNFIT, unfit) if unfit else (JobEvent.READ, _said(results))
        moved = move_row(session, row, event, worker, why, progress=1.0)
        if moved is None:
            return None
        for result in results:
            session.merge(ResultRow(job_id=job_id, made_at=now, **vars(result)))
        reached = _reached(session, row)
        for destination in dict.fromkeys([*kinds, *sorted(reached)]):
            earlier = reached.get(destination, set())
            takes = {*kinds.get(destination, ()), *earlier}
            kinds_of = {r: kind_in(r.kind, row.study_uid) for r in results}
            for result in (r for r in results if kinds_of[r] in takes and (r.kind != REJECTION or earlier)):
                values = {"job_id": job_id, "study_uid": row.study_uid, "destination": destination}
                _plan(session, ledger, {**values, "sop_instance_uid": result.sop_instance_uid}, now)
        return moved


def _said(results: Sequence[Result]) -> str:
    return "made " + ", ".join(r.kind for r in results) if results else "made nothing"


def _reached(session: Session, row: JobRow) -> dict[str, set[str]]:
    """Which kinds of result each destination got, or may have got, from the jobs that this one supersedes."""
    query = (
        select(DeliveryRow.destination, ResultRow.kind)
        .join(ResultRow, col(ResultRow.sop_instance_uid) == DeliveryRow.sop_instance_uid)
        .join(JobRow, col(JobRow.id) == DeliveryRow.job_id)
        .where(JobRow.study_uid == row.study_uid, JobRow.model == row.model, col(JobRow.id) < row.id)
        .where(JobRow.state == JobState.SUPERSEDED, col(DeliveryRow.exposed).is_(True))
    )
    reached: dict[str, set[str]] = {}
    for destination, kind in session.exec(query).all():
        reached.setdefault(destination, set()).add(kind)
    return reached


def _plan(session: Session, ledger: Ledger, values: dict[str, object], now: float) -> None:
    fresh = {"state": DeliveryState.PENDING, "attempts": 0, "not_before": now, "reason": "", "created_at": now}
    blank = {"worker": "", "lease_until": 0.0, "cause": "", "warning": "", "asked": 0, "transaction_uid": ""}
    # The same input gives the same UIDs. When an earlier, superseded job has made the object, it is this job's now and
    # goes again: the earlier delivery may have been dropped, and this answer is to be the last that arrives.
    # What was dropped when this job was canceled goes again, too: the job was sent back, and its results are one set.
    statement = ledger.insert(DeliveryRow).values(**values, **fresh, **blank, exposed=False)
    taken_over = {"job_id": values["job_id"], **fresh, **blank, "sent_at": None, "verified_at": None}
    session.exec(
        statement.on_conflict_do_update(
            index_elements=["sop_instance_uid", "destination"],
            set_=taken_over,
            where=or_(col(DeliveryRow.job_id) != values["job_id"], col(DeliveryRow.cause) == CANCELED),
        )
    )


def claim(ledger: Ledger, destination: str, state: DeliveryState, terms: Claim) -> list[Delivery]:
    """Take what is due at a destination, PENDING or SENT, oldest job first; nobody else gets it before the lease ends.

    Of a job either everything that is due comes or nothing, also beyond ``most``, so that a choice between variants can
    be made. With ``in_order``, nothing overtakes an earlier result of the same study that has not been sent yet.
    """
    now = time.time()
    due = _due(destination, state, now, in_order=terms.in_order)
    with ledger.read() as session:
        if session.exec(select(DeliveryRow.id).where(*due).limit(1)).first() is None:
            return []
    with ledger.write() as session:
        jobs = select(DeliveryRow.job_id).where(*due).order_by(col(DeliveryRow.job_id)).limit(terms.most)
        chosen = sorted(set(session.exec(jobs).all()))
        found = described(session, *due, TABLE.c.job_id.in_(chosen), lock=True)
        values = {"worker": terms.worker, "lease_until": now + terms.lease_s}
        values |= {"exposed": True} if state is DeliveryState.PENDING else {}
        taken = TABLE.c.id.in_([d.id for d in found])
        session.connection().execute(update(TABLE).where(taken).values(**values))
        return found


def _due(destination: str, state: DeliveryState, now: float, *, in_order: bool) -> tuple[Any, ...]:
    d = DeliveryRow
    due: tuple[Any, ...] = (d.destination == destination, d.state == state, d.not_before <= now, d.lease_until <= now)
    if not in_order or state is not DeliveryState.PENDING:
        return due
    e: Any = aliased(DeliveryRow)
    before = or_(e.job_id < d.job_id, and_(e.job_id == d.job_id, e.id < d.id))
    held = or_(e.not_before > now, e.lease_until > now)
    same = (e.destination == destination, e.study_uid == d.study_uid, e.state == DeliveryState.PENDING)
    return (*due, ~exists().where(*same, before, held))


def described(session: Session, *which: Any, lock: bool = False) -> list[Delivery]:
    """Deliveries as values, oldest job first; with ``lock`` those that somebody else has locked are left out."""
    r, j = RESULT.c, JOB.c
    query = (
        core_select(TABLE, *(column.label(f"result_{column.name}") for column in r), j.model, j.last_at)
        .join(RESULT, r.sop_instance_uid == TABLE.c.sop_instance_uid)
        .join(JOB, j.id == TABLE.c.job_id)
        .where(*which)
        .order_by(TABLE.c.job_id, TABLE.c.id)
    )
    query = query.with_for_update(of=TABLE, skip_locked=True) if lock else query
    rows = session.connection().execute(query).all()
    senders = _senders(session, {row.study_uid for row in rows})
    return [_delivery(row, senders.get(row.study_uid, "")) for row in rows]


def _delivery(row: Any, calling_ae: str) -> Delivery:
    return Delivery(
        row.id,
        row.job_id,
        row.model,
        row.destination,
        Result(*(getattr(row, f"result_{f.name}") for f in fields(Result))),
        DeliveryState(row.state),
        row.attempts,
        row.asked,
        row.created_at,
        row.last_at,
        calling_ae,
        row.transaction_uid,
        row.warning,
        row.exposed,
    )


def _senders(session: Session, studies: set[str]) -> dict[str, str]:
    """Who sent each study: the caller of one of its instances."""
    i = InstanceRow
    some = select(func.min(i.sop_instance_uid)).where(col(i.study_uid).in_(studies)).group_by(col(i.study_uid))
    query = select(i.study_uid, i.header).where(col(i.study_uid).in_(studies), col(i.sop_instance_uid).in_(some))
    return {uid: str(header.get("calling_ae", "")) for uid, header in session.exec(query).all()}


def renew(ledger: Ledger, worker: str, ids: Sequence[int], until: float) -> None:
    """Prolong the claims that a worker holds."""
    with ledger.write() as session:
        held = (col(DeliveryRow.id).in_(ids), col(DeliveryRow.worker) == worker, col(DeliveryRow.lease_until) < until)
        session.exec(update(DeliveryRow).where(*held).values(lease_until=until))


def release(ledger: Ledger, worker: str) -> int:
    """Give back what a worker of this name held before it was started again; returns how many."""
    with ledger.write() as session:
        statement = update(DeliveryRow).where(col(DeliveryRow.worker).startswith(worker, autoescape=True))
        return int(session.exec(statement.values(worker="", lease_until=0.0)).rowcount)


def mark(ledger: Ledger, worker: str, marks: Sequence[Mark]) -> set[int]:
    """Say what became of claimed deliveries, in one step; returns the ids of those that were still this worker's."""
    groups: dict[tuple[Any, ...], list[Mark]] = {}
    for m in marks:
        groups.setdefault(tuple(replace(m, id=0).__dict__.values()), []).append(m)
    if not groups:
        return set()
    with ledger.write() as session:
        return {i for alike in groups.values() for i in _mark(session, worker, alike)}


def _mark(session: Session, worker: str, alike: Sequence[Mark]) -> Sequence[int]:
    """One statement for all that say the same, for most do."""
    m, now, d = alike[0], time.time(), TABLE.c
    values: dict[str, Any] = {"state": m.state, "cause": m.cause, "reason": m.reason, "not_before": m.not_before}
    given = {k: getattr(m, k) for k in ("asked", "warning", "exposed", "transaction_uid")}
    values |= {k: value for k, value in given.items() if value is not None}
    if m.tried:
        values["attempts"] = d.attempts + 1
    if m.state in (DeliveryState.SENT, DeliveryState.ACCEPTED) and m.asked == 0:
        values["sent_at"] = now
    if m.state is DeliveryState.VERIFIED:
        values["verified_at"] = now
    held = (d.id.in_([one.id for one in alike]), d.worker == worker, d.state.in_(OPEN_STATES))
    statement = update(TABLE).where(*held).values(**values, worker="", lease_until=0.0)
    return session.connection().execute(statement.returning(d.id)).scalars().all()


def settle(ledger: Ledger) -> list[Move]:
    """End the jobs whose deliveries have all ended: COMPLETED when all have arrived, FAILED when one was given up."""
    moves = []
    awaited = select(DeliveryRow.job_id).where(col(DeliveryRow.state).in_(OPEN_STATES))
    query = select(JobRow.id).where(JobRow.state == JobState.DELIVERING, col(JobRow.id).not_in(awaited))
    with ledger.read() as session:
        settled = session.exec(query).all()
    for job_id in settled:
        with ledger.write() as session:
            moved = _settle_one(session, job_id or 0)
        if moved:
            moves.append(moved)
    return moves


def _settle_one(session: Session, job_id: int) -> Move | None:
    rows = session.exec(select(DeliveryRow).where(DeliveryRow.job_id == job_id)).all()
    if any(r.state in OPEN_STATES for r in rows):
        return None
    job = session.get(JobRow, job_id)
    if job is None:
        return None
    failed = [r for r in rows if r.state == DeliveryState.FAILED]
    if failed:
        return move_row(session, job, JobEvent.GAVE_UP, "deliver", f"{failed[0].destination}: {failed[0].reason}")
    return move_row(session, job, JobEvent.VERIFIED, "deliver", _arrived(rows))


def _arrived(rows: Sequence[DeliveryRow]) -> str:
    proven = sorted({r.destination for r in rows if r.state == DeliveryState.VERIFIED})
    taken = sorted({r.destination for r in rows if r.state == DeliveryState.ACCEPTED} - set(proven))
    said = [f"proven at {', '.join(proven)}"] if proven else []
    said += [f"taken by {', '.join(taken)}, of which no proof is asked"] if taken else []
    if said:
        return "; ".join(said)
    return "dropped by a person" if rows else "no destination is configured; results stay in the spool"


def start_anew(session: Session, *which: Any) -> int:
    """Make deliveries PENDING as if they had never been tried; returns how many."""
    fresh = {"state": DeliveryState.PENDING, "attempts": 0, "not_before": 0.0, "asked": 0, "transaction_uid": ""}
    blank = {"cause": "", "reason": "", "warning": "", "worker": "", "lease_until": 0.0, "created_at": time.time()}
    return int(session.exec(update(DeliveryRow).where(*which).values(**fresh, **blank)).rowcount)


def results_of(session: Session, job_id: int) -> list[Result]:
    """Results that a job has made."""
    return [as_result(r) for r in session.exec(select(ResultRow).where(ResultRow.job_id == job_id)).all()]


def arrived(ledger: Ledger, job_ids: Sequence[int]) -> list[tuple[str, float]]:
    """Model, and time of the study's last image, of those jobs of which nothing is on its way any more."""
    if not job_ids:
        return []
    with ledger.read() as session:
        on_way = select(DeliveryRow.job_id).where(col(DeliveryRow.state).in_(OPEN_STATES))
        query = select(JobRow.model, JobRow.last_at).where(col(JobRow.id).in_(set(job_ids)))
        return [(model, at) for model, at in session.exec(query.where(col(JobRow.id).not_in(on_way))).all()]


def as_result(row: ResultRow) -> Result:
    """The row as a value."""
    return Result(
        row.kind,
        row.sop_class_uid,
        row.sop_instance_uid,
        row.series_uid,
        row.study_uid,
        row.transfer_syntax_uid,
        row.path,
        row.digest,
        row.alternative,
        row.variant,
        row.provenance,
    )


__all__ = [
    "Claim",
    "Delivery",
    "Mark",
    "arrived",
    "as_job",
    "as_result",
    "claim",
    "mark",
    "put",
    "release",
    "renew",
    "results_of",
    "settle",
    "start_anew",
]
