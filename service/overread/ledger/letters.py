"""What people ask of deliveries and decide about them, and what comes back of those that had been proven."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select as core_select
from sqlalchemy import update
from sqlmodel import Session, col, select

from overread.domain.errors import Refused
from overread.domain.job import JobEvent, JobState
from overread.domain.result import OPEN_STATES, DeliveryState
from overread.ledger.deliveries import CANCELED, TABLE, Delivery, described, start_anew
from overread.ledger.jobs import Move, move_row
from overread.ledger.store import Ledger
from overread.ledger.tables import DeliveryRow, JobRow, ResultRow

SUPERSEDED = "superseded"  # the cause of what was dropped because a newer result replaced it


@dataclass(frozen=True)
class Letter:
    """A delivery with what it carries."""

    row: DeliveryRow
    kind: str


def letters(ledger: Ledger, *, destination: str = "", state: str = "", limit: int = 0) -> list[Letter]:
    """Deliveries, the newest job first; ``destination``, ``state`` and ``limit`` narrow when they are given."""
    query = select(DeliveryRow, ResultRow.kind).join(
        ResultRow, col(ResultRow.sop_instance_uid) == DeliveryRow.sop_instance_uid
    )
    query = query.where(DeliveryRow.destination == destination) if destination else query
    query = query.where(DeliveryRow.state == state) if state else query
    query = query.order_by(col(DeliveryRow.job_id).desc(), col(DeliveryRow.id))
    with ledger.read() as session:
        return [Letter(*row) for row in session.exec(query.limit(limit) if limit else query).all()]


def dead(ledger: Ledger, destination: str) -> list[int]:
    """Ids of the dead letters of one destination, or of all when it is empty; oldest first."""
    query = select(DeliveryRow.id).where(DeliveryRow.state == DeliveryState.FAILED)
    query = query.where(DeliveryRow.destination == destination) if destination else query
    with ledger.read() as session:
        return [i or 0 for i in session.exec(query.order_by(col(DeliveryRow.id))).all()]


def retry(ledger: Ledger, delivery_id: int, who: str) -> tuple[Letter, Move | None]:
    """A person has a dead letter, or one that was dropped by hand, tried again, with the variants that failed with it.

    Its job, when that had FAILED, is DELIVERING again. Raises Refused when there is no such delivery, it is on its way
    or has arrived, a newer result has taken its place, or its job was canceled.
    """
    with ledger.write() as session:
        letter = _letter(session, delivery_id)
        row = letter.row
        if row.state not in (DeliveryState.FAILED, DeliveryState.DROPPED):
            raise Refused(f"it is {row.state}; only what FAILED or was DROPPED can be retried")
        job = session.get(JobRow, row.job_id, with_for_update=True)
        if job is None or job.state == "SUPERSEDED" or row.cause == SUPERSEDED:
            raise Refused("a newer result has taken its place; retry that one")
        if job.state == JobState.CANCELED or row.cause == CANCELED:
            whole = f"overread requeue {row.job_id} makes and sends the whole set"
            raise Refused(f"its job was canceled, and one result without the others is no answer; {whole}")
        if row.state == DeliveryState.FAILED:
            same = (DeliveryRow.job_id == row.job_id, DeliveryRow.destination == row.destination)
            start_anew(session, *same, DeliveryRow.state == DeliveryState.FAILED, _kin(session, row))
        else:
            start_anew(session, DeliveryRow.id == row.id)
        session.refresh(row)
        return letter, move_row(session, job, JobEvent.RESEND, who, f"delivery {delivery_id} is tried again")


def _kin(session: Session, row: DeliveryRow) -> Any:
    """The delivery itself, and the other variants of the same."""
    result = session.get(ResultRow, row.sop_instance_uid)
    if result is None or not result.alternative:
        return DeliveryRow.id == row.id
    kin = select(ResultRow.sop_instance_uid).where(ResultRow.job_id == result.job_id, ResultRow.alternative != "")
    return col(DeliveryRow.sop_instance_uid).in_(kin)


def drop(ledger: Ledger, delivery_id: int, who: str) -> Letter:
    """A person decides that a delivery is not to be sent. Raises Refused when there is none, or it has ended."""
    with ledger.write() as session:
        letter = _letter(session, delivery_id)
        row = letter.row
        if row.state not in (*OPEN_STATES, DeliveryState.FAILED):
            raise Refused(f"it is {row.state}; there is nothing to drop")
        row.state, row.cause, row.reason = DeliveryState.DROPPED, "dropped", f"dropped by {who}"
        row.worker, row.lease_until = "", 0.0
        return letter


def _letter(session: Session, delivery_id: int) -> Letter:
    row = session.get(DeliveryRow, delivery_id, with_for_update=True)
    if row is None:
        raise Refused("there is no such delivery; see overread deliveries list")
    result = session.get(ResultRow, row.sop_instance_uid)
    return Letter(row, result.kind if result else "")


def verified_since(ledger: Ledger, destination: str, since: float, after_id: int, most: int) -> list[Delivery]:
    """A page of what a destination has proven since then, to be asked for again; nothing is claimed."""
    d = TABLE.c
    which = (d.destination == destination, d.state == DeliveryState.VERIFIED, d.verified_at >= since, d.id > after_id)
    with ledger.read() as session:
        ids = session.connection().execute(core_select(d.id).where(*which).order_by(d.id).limit(most)).scalars().all()
        return sorted(described(session, d.id.in_(ids)), key=lambda one: one.id)


def lost(ledger: Ledger, ids: Collection[int], reason: str) -> int:
    """What was proven is not there any more: it goes again. Returns how many were still thought to be there."""
    with ledger.write() as session:
        proven = (col(DeliveryRow.id).in_(ids), col(DeliveryRow.state) == DeliveryState.VERIFIED)
        values = {"state": DeliveryState.PENDING, "cause": "lost", "reason": reason, "not_before": 0.0}
        anew = {"attempts": 0, "asked": 0, "transaction_uid": "", "created_at": time.time()}
        return int(session.exec(update(DeliveryRow).where(*proven).values(**values, **anew)).rowcount)


def expect(ledger: Ledger, ids: Collection[int], transaction_uid: str) -> None:
    """What was proven is asked for again by this storage commitment."""
    with ledger.write() as session:
        proven = (col(DeliveryRow.id).in_(ids), col(DeliveryRow.state) == DeliveryState.VERIFIED)
        session.exec(update(DeliveryRow).where(*proven).values(transaction_uid=transaction_uid))


@dataclass(frozen=True)
class Awaited:
    """A delivery that a storage commitment has been asked for."""

    id: int
    job_id: int
    destination: str
    sop_instance_uid: str
    state: DeliveryState
    kind: str


def awaited(ledger: Ledger, transaction_uid: str) -> list[Awaited]:
    """What was asked for by a storage commitment and has not been answered."""
    query = (
        select(DeliveryRow, ResultRow.kind)
        .join(ResultRow, col(ResultRow.sop_instance_uid) == DeliveryRow.sop_instance_uid)
        .where(DeliveryRow.transaction_uid == transaction_uid)
    )
    with ledger.read() as session:
        rows = session.exec(query.order_by(col(DeliveryRow.id))).all()
        return [
            Awaited(r.id or 0, r.job_id, r.destination, r.sop_instance_uid, DeliveryState(r.state), kind)
            for r, kind in rows
        ]


@dataclass(frozen=True)
class Verdict:
    """What the answer to a storage commitment means for one delivery that is SENT or VERIFIED."""

    id: int
    state: DeliveryState
    cause: str = ""
    reason: str = ""
    not_before: float = 0.0


def judge(ledger: Ledger, transaction_uid: str, verdicts: Sequence[Verdict]) -> set[int]:
    """Write an answer down; each delivery takes it once, and only while it awaits this transaction."""
    now, taken = time.time(), set()
    with ledger.write() as session:
        for v in verdicts:
            values: dict[str, Any] = {"state": v.state, "cause": v.cause, "reason": v.reason}
            values |= {"not_before": v.not_before, "transaction_uid": "", "worker": "", "lease_until": 0.0}
            if v.state is DeliveryState.VERIFIED:
                values["verified_at"] = now
            if v.state is DeliveryState.PENDING:
                values["asked"] = 0
            awaiting = (
                col(DeliveryRow.id) == v.id,
                col(DeliveryRow.transaction_uid) == transaction_uid,
                col(DeliveryRow.state).in_([DeliveryState.SENT, DeliveryState.VERIFIED]),
            )
            if session.exec(update(DeliveryRow).where(*awaiting).values(**values)).rowcount:
                taken.add(v.id)
    return taken
