"""Storage commitment: which instances the ledger answers for, what was promised of them, and who has been told."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, func, update
from sqlmodel import Session, col, select

from overread.ledger.store import Ledger
from overread.ledger.tables import CommitmentRow, CommitmentStudyRow, ConflictRow, InstanceRow, StudyRow

MOST_AT_ONCE = 500
PENDING, REPORTED, GAVE_UP = "PENDING", "REPORTED", "GAVE_UP"


@dataclass(frozen=True)
class Held:
    """A content that came under a SOP Instance UID: in which study, where its bytes lie, and what they must be.

    ``size_bytes`` is None of one that was set aside: the ledger keeps its digest alone.
    """

    study_uid: str
    sop_class_uid: str
    path: str
    digest: str
    size_bytes: int | None


@dataclass(frozen=True)
class Transaction:
    """A request for storage commitment, as it is judged: times in seconds since the epoch."""

    calling_ae: str
    transaction_uid: str
    digest: str
    asked_at: float
    instances: int


def held(ledger: Ledger, uids: Collection[str]) -> dict[str, list[Held]]:
    """All contents of some SOP Instance UIDs, in every study, those that were set aside included."""
    found: dict[str, list[Held]] = {}
    with ledger.read() as session:
        for part in _parts(uids):
            for uid, content in (*_current(session, part), *_set_aside(session, part)):
                found.setdefault(uid, []).append(content)
    return found


def _parts(uids: Collection[str]) -> Iterator[list[str]]:
    ordered = list(uids)
    return (ordered[at : at + MOST_AT_ONCE] for at in range(0, len(ordered), MOST_AT_ONCE))


def _current_paths(found: Sequence[Held]) -> set[str]:
    return {content.path for content in found if content.size_bytes is not None}


def _current(session: Session, uids: Sequence[str]) -> Iterator[tuple[str, Held]]:
    rows = session.exec(select(InstanceRow).where(col(InstanceRow.sop_instance_uid).in_(uids))).all()
    for row in rows:
        sop_class = str(row.header.get("sop_class_uid", ""))
        yield row.sop_instance_uid, Held(row.study_uid, sop_class, row.path, row.digest, row.size_bytes)


def _set_aside(session: Session, uids: Sequence[str]) -> Iterator[tuple[str, Held]]:
    i, c = InstanceRow, ConflictRow
    same = and_(col(i.study_uid) == c.study_uid, col(i.sop_instance_uid) == c.sop_instance_uid)
    query = select(c, i.header).join(i, same).where(col(i.sop_instance_uid).in_(uids), c.path != i.path)
    for row, header in session.exec(query).all():
        sop_class = str(header.get("sop_class_uid", ""))
        yield row.sop_instance_uid, Held(row.study_uid, sop_class, row.path, row.digest, None)


def promise(
    ledger: Ledger, asked: Transaction, contents: Mapping[str, Sequence[Held]], until: float, now: float
) -> set[str] | None:
    """Write a verdict down: retention keeps the studies of ``contents`` (by SOP Instance UID) until ``until``.

    Returns the UIDs that retention has taken meanwhile, which are not promised; None when the Transaction UID belongs
    to a request for other instances: nothing is promised then.
    """
    studies = {content.study_uid for found in contents.values() for content in found}
    with ledger.write() as session:
        row = _transaction(session, asked)
        if row is None:
            return None
        kept = _locked(session, studies)
        gone = {uid for uid, found in contents.items() if not _current_paths(found) <= kept}
        _extend(session, {c.study_uid for uid, found in contents.items() if uid not in gone for c in found}, until)
        _link(session, row.id or 0, studies)
        row.asked_at, row.judged_at, row.state, row.reported_at, row.reason = asked.asked_at, now, PENDING, None, ""
        row.instances, row.failed = asked.instances, asked.instances - len(contents) + len(gone)
        return gone


def _transaction(session: Session, asked: Transaction) -> CommitmentRow | None:
    query = select(CommitmentRow).where(
        CommitmentRow.calling_ae == asked.calling_ae, CommitmentRow.transaction_uid == asked.transaction_uid
    )
    row = session.exec(query.with_for_update()).first()
    if row is None:
        values = {**vars(asked), "judged_at": 0.0, "failed": 0}
        row = CommitmentRow(**values)
        session.add(row)
        session.flush()
    return row if row.digest == asked.digest else None


def _locked(session: Session, studies: Collection[str]) -> set[str]:
    """Lock the studies, in one order, and give the paths of the instances that they have now."""
    paths: set[str] = set()
    for part in _parts(sorted(studies)):
        session.exec(
            select(StudyRow.uid).where(col(StudyRow.uid).in_(part)).order_by(col(StudyRow.uid)).with_for_update()
        ).all()
        paths.update(session.exec(select(InstanceRow.path).where(col(InstanceRow.study_uid).in_(part))).all())
    return paths


def _extend(session: Session, studies: Collection[str], until: float) -> None:
    for part in _parts(sorted(studies)):
        session.exec(
            update(StudyRow)
            .where(col(StudyRow.uid).in_(part), col(StudyRow.committed_until) < until)
            .values(committed_until=until)
        )


def _link(session: Session, commitment_id: int, studies: Collection[str]) -> None:
    session.exec(delete(CommitmentStudyRow).where(col(CommitmentStudyRow.commitment_id) == commitment_id))
    session.add_all(CommitmentStudyRow(commitment_id=commitment_id, study_uid=uid) for uid in sorted(studies))


def reported(ledger: Ledger, asked: Transaction, state: str, reason: str, at: float) -> None:
    """The sender has been told the verdict (REPORTED), or will not be (GAVE_UP), and why."""
    with ledger.write() as session:
        session.exec(
            update(CommitmentRow)
            .where(
                col(CommitmentRow.calling_ae) == asked.calling_ae,
                col(CommitmentRow.transaction_uid) == asked.transaction_uid,
                col(CommitmentRow.digest) == asked.digest,
            )
            .values(state=state, reason=reason, reported_at=at)
        )


def of_study(ledger: Ledger, study_uid: str) -> list[CommitmentRow]:
    """The transactions that have instances of a study, oldest first."""
    query = (
        select(CommitmentRow)
        .join(CommitmentStudyRow, col(CommitmentStudyRow.commitment_id) == CommitmentRow.id)
        .where(CommitmentStudyRow.study_uid == study_uid)
        .order_by(col(CommitmentRow.asked_at))
    )
    with ledger.read() as session:
        return list(session.exec(query).all())


def counts(ledger: Ledger) -> dict[str, int]:
    """How many transactions there are in each state."""
    with ledger.read() as session:
        rows = session.exec(select(CommitmentRow.state, func.count()).group_by(CommitmentRow.state)).all()
        return dict(rows)
