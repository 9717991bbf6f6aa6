"""A person wants no answer any more, of jobs that are open or FAILED and of studies that no model has met yet; or wants
it after all."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlmodel import Session, col, func, select

from overread.domain.errors import Refused
from overread.domain.job import ENDED, JobEvent, JobState
from overread.domain.result import DeliveryState
from overread.ledger.deliveries import CANCELED, start_anew
from overread.ledger.jobs import Move, drop_deliveries, move_row
from overread.ledger.store import Ledger
from overread.ledger.tables import DecisionRow, DeliveryRow, InstanceRow, JobRow, StudyRow

CLOSED = ENDED - {JobState.FAILED}  # one that FAILED waits for a person's decision
_THERE = ("VERIFIED", "ACCEPTED")


@dataclass(frozen=True)
class Canceled:
    """A job that was canceled: the move, how many results will not be sent, and how many had arrived already."""

    move: Move
    dropped: int
    arrived: int


def cancel(ledger: Ledger, job_id: int, who: str) -> Canceled:
    """Cancel one job, or close one that FAILED. Raises Refused when there is none, or it has ended otherwise."""
    with ledger.write() as session:
        row = session.get(JobRow, job_id, with_for_update=True)
        if row is None:
            raise Refused(f"there is no job {job_id}; see overread status")
        if JobState(row.state) in CLOSED:
            raise Refused(f"job {job_id} is {row.state}; there is nothing to cancel")
        return _cancel(session, row, who)


def cancel_study(ledger: Ledger, study_uid: str, who: str) -> list[Canceled]:
    """Cancel every job of a study that has not ended or that FAILED; one that has not met the models will meet none.

    What comes of the study after it was complete is a new revision, and is read again. Raises Refused when the study is
    unknown, or when there is nothing to cancel.
    """
    with ledger.write() as session:
        study = session.get(StudyRow, study_uid, with_for_update=True)
        if study is None:
            raise Refused(f"no instance of study {study_uid} has come; is the UID right?")
        jobs = select(JobRow).where(JobRow.study_uid == study_uid, col(JobRow.state).not_in(list(CLOSED)))
        canceled = [_cancel(session, row, who) for row in session.exec(jobs.with_for_update()).all()]
        unrouted = study.routed_revision < study.revision
        if unrouted:
            study.routed_revision = study.revision
            why = f"canceled by {who} before any model had met it"
            session.add(DecisionRow(study_uid=study_uid, revision=study.revision, model="any", reason=why))
        if not canceled and not unrouted:
            raise Refused(f"every job of study {study_uid} has ended; there is nothing to cancel")
        return canceled


def requeue(ledger: Ledger, job_id: int, who: str) -> Move:
    """A person sends a FAILED or CANCELED job back to be read anew.

    What had arrived stays; what was given up starts anew, and what was dropped by canceling goes with the rest when the
    job has been read, under the same UIDs. Raises Refused when there is no such job, a newer one has taken its place,
    or its images are gone.
    """
    with ledger.write() as session:
        row = session.get(JobRow, job_id, with_for_update=True)
        if row is None:
            raise Refused(f"there is no job {job_id}; see overread status")
        if row.state not in (JobState.FAILED, JobState.CANCELED):
            raise Refused(f"job {job_id} is {row.state}; only one that FAILED or was CANCELED can be sent back")
        _require_wanted(session, row)
        anew = {"attempts": 0, "kills": 0, "not_before": 0.0}
        moved = move_row(session, row, JobEvent.REQUEUE, who, "sent back by a person", **anew)
        if moved is None:
            raise Refused(f"job {job_id} has moved meanwhile; try again")
        start_anew(session, DeliveryRow.job_id == job_id, DeliveryRow.state == DeliveryState.FAILED)
        return moved


def _require_wanted(session: Session, row: JobRow) -> None:
    """A job that was canceled is superseded by nothing, and nothing keeps its images."""
    same = (JobRow.study_uid == row.study_uid, JobRow.model == row.model, col(JobRow.id) > row.id)
    newer = session.exec(select(func.max(JobRow.id)).where(*same)).one()
    if newer is not None:
        raise Refused(f"job {newer} has taken the place of job {row.id}: its study has changed since")
    images = select(InstanceRow.study_uid).where(InstanceRow.study_uid == row.study_uid)
    if session.exec(images.limit(1)).first() is None:
        raise Refused(f"the images of job {row.id} are gone; send its study again, then send the job back")


def _cancel(session: Session, row: JobRow, who: str) -> Canceled:
    job_id = row.id or 0
    moved = move_row(session, row, JobEvent.CANCEL, who, f"canceled by {who}")
    if moved is None:
        raise Refused(f"job {job_id} has moved meanwhile; try again")
    there = select(func.count()).where(DeliveryRow.job_id == job_id, col(DeliveryRow.state).in_(_THERE))
    arrived = int(session.exec(there).one())
    return Canceled(moved, drop_deliveries(session, job_id, time.time(), CANCELED, f"canceled by {who}"), arrived)
