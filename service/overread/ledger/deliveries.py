"""Results and their deliveries: the outbox."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import update
from sqlmodel import Session, col, select

from overread.domain.job import JobEvent, JobState
from overread.domain.result import DeliveryState, Result
from overread.ledger.jobs import Move, as_job, move_row
from overread.ledger.store import Ledger
from overread.ledger.tables import DeliveryRow, JobRow, ResultRow


@dataclass(frozen=True)
class Parcel:
    """All results of one job that are due at one destination, sent together."""

    job_id: int
    model: str
    destination: str
    results: tuple[Result, ...]
    delivery_ids: tuple[int, ...]
    sent: bool
    attempts: int
    created_at: float
    last_at: float


def put(
    ledger: Ledger, job_id: int, worker: str, results: Sequence[Result], kinds: Mapping[str, Sequence[str]]
) -> Move | None:
    """Record a job's results and plan their deliveries, as one step with the job's move to DELIVERING.

    ``kinds`` names, for each destination, which kinds of result it takes. None when the job is no longer this worker's:
    nothing is recorded then.
    """
    now = time.time()
    with ledger.write() as session:
        row = session.get(JobRow, job_id, with_for_update=True)
        if row is None or row.worker != worker:
            return None
        moved = move_row(session, row, JobEvent.READ, worker, _said(results), progress=1.0)
        if moved is None:
            return None
        for result in results:
            session.merge(ResultRow(job_id=job_id, made_at=now, **vars(result)))
        for destination, takes in kinds.items():
            for result in (r for r in results if r.kind in takes):
                values = {"job_id": job_id, "sop_instance_uid": result.sop_instance_uid, "destination": destination}
                _plan(session, ledger, values, now)
        return moved


def _said(results: Sequence[Result]) -> str:
    return "made " + ", ".join(r.kind for r in results) if results else "made nothing"


def _plan(session: Session, ledger: Ledger, values: dict[str, object], now: float) -> None:
    fresh = {"state": DeliveryState.PENDING, "attempts": 0, "not_before": now, "reason": "", "created_at": now}
    # The same input gives the same UIDs. When an earlier, superseded job has made the object, it is this job's now and
    # goes again: the earlier delivery may have been dropped, and this answer is to be the last that arrives.
    statement = ledger.insert(DeliveryRow).values(**values, **fresh)
    taken_over = {"job_id": values["job_id"], **fresh, "sent_at": None, "verified_at": None}
    session.exec(
        statement.on_conflict_do_update(
            index_elements=["sop_instance_uid", "destination"],
            set_=taken_over,
            where=col(DeliveryRow.job_id) != values["job_id"],
        )
    )


def due(ledger: Ledger, destination: str, now: float) -> list[Parcel]:
    """What is due at a destination, oldest job first."""
    query = (
        select(DeliveryRow, ResultRow, JobRow)
        .join(ResultRow, col(ResultRow.sop_instance_uid) == DeliveryRow.sop_instance_uid)
        .join(JobRow, col(JobRow.id) == DeliveryRow.job_id)
        .where(DeliveryRow.destination == destination, DeliveryRow.not_before <= now)
        .where(col(DeliveryRow.state).in_([DeliveryState.PENDING, DeliveryState.SENT]))
        .order_by(col(DeliveryRow.job_id), col(DeliveryRow.id))
        .limit(256)
    )
    groups: dict[tuple[int, bool], list[tuple[DeliveryRow, ResultRow, JobRow]]] = {}
    with ledger.read() as session:
        for delivery, result, job in session.exec(query).all():
            key = (delivery.job_id, delivery.state == DeliveryState.SENT)
            groups.setdefault(key, []).append((delivery, result, job))
    return [_parcel(destination, sent, rows) for (_, sent), rows in groups.items()]


def _parcel(destination: str, sent: bool, rows: list[tuple[DeliveryRow, ResultRow, JobRow]]) -> Parcel:
    job = rows[0][2]
    return Parcel(
        job.id or 0,
        job.model,
        destination,
        tuple(as_result(r) for _, r, _ in rows),
        tuple(d.id or 0 for d, _, _ in rows),
        sent,
        max(d.attempts for d, _, _ in rows),
        min(d.created_at for d, _, _ in rows),
        job.last_at,
    )


def mark(
    ledger: Ledger,
    parcel: Parcel,
    state: DeliveryState,
    *,
    reason: str = "",
    not_before: float = 0.0,
    tried: bool = False,
) -> bool:
    """Set the state of a parcel's deliveries; False when they were dropped meanwhile."""
    now = time.time()
    values: dict[str, object] = {"state": state, "reason": reason, "not_before": not_before}
    if tried:
        values["attempts"] = parcel.attempts + 1
    if state is DeliveryState.SENT:
        values["sent_at"] = now
    if state is DeliveryState.VERIFIED:
        values["verified_at"] = now
    with ledger.write() as session:
        statement = (
            update(DeliveryRow)
            .where(col(DeliveryRow.id).in_(parcel.delivery_ids), col(DeliveryRow.job_id) == parcel.job_id)
            .where(col(DeliveryRow.state).in_([DeliveryState.PENDING, DeliveryState.SENT]))
            .values(**values)
        )
        return bool(session.exec(statement).rowcount)


def settle(ledger: Ledger) -> list[Move]:
    """End the jobs whose deliveries have all ended: COMPLETED when all are proven, FAILED when one was given up."""
    moves = []
    awaited = select(DeliveryRow.job_id).where(col(DeliveryRow.state).in_([DeliveryState.PENDING, DeliveryState.SENT]))
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
    if any(r.state in (DeliveryState.PENDING, DeliveryState.SENT) for r in rows):
        return None
    job = session.get(JobRow, job_id)
    if job is None:
        return None
    failed = [r for r in rows if r.state == DeliveryState.FAILED]
    if failed:
        return move_row(session, job, JobEvent.GAVE_UP, "deliver", f"{failed[0].destination}: {failed[0].reason}")
    places = sorted({r.destination for r in rows})
    why = f"proven at {', '.join(places)}" if places else "no destination is configured; results stay in the spool"
    return move_row(session, job, JobEvent.VERIFIED, "deliver", why)


def requeue(ledger: Ledger, job_id: int, who: str) -> Move | None:
    """A person sends a FAILED job back: deliveries that were given up start anew, or the reading does."""
    with ledger.write() as session:
        row = session.get(JobRow, job_id, with_for_update=True)
        if row is None:
            return None
        moved = move_row(session, row, JobEvent.REQUEUE, who, "sent back by a person", attempts=0, not_before=0.0)
        if moved is not None:
            session.exec(
                update(DeliveryRow)
                .where(col(DeliveryRow.job_id) == job_id, col(DeliveryRow.state) == DeliveryState.FAILED)
                .values(state=DeliveryState.PENDING, attempts=0, not_before=0.0, created_at=time.time(), reason="")
            )
        return moved


def results_of(session: Session, job_id: int) -> list[Result]:
    """Results that a job has made."""
    return [as_result(r) for r in session.exec(select(ResultRow).where(ResultRow.job_id == job_id)).all()]


def latency_s(parcel: Parcel, now: float) -> float:
    """Seconds from the study's last image to now."""
    return max(0.0, now - parcel.last_at)


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
    )


__all__ = ["Parcel", "as_job", "as_result", "due", "latency_s", "mark", "put", "requeue", "results_of", "settle"]
