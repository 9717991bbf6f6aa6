"""What came: instances written in batches, studies that grow, and the verdict that they are complete."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, bindparam, func, insert, union_all, update
from sqlalchemy.exc import DataError
from sqlmodel import Session, col, select

from overread.domain.called import joined, parted
from overread.domain.errors import Refused
from overread.domain.study import Instance, Study, group
from overread.ledger.ruling import Arrival, Conflict, Content, Growth, Key, Recorded, Ruling
from overread.ledger.store import Ledger
from overread.ledger.tables import ConflictRow, InstanceRow, StudyRow

STREAMED_ROWS = 5000
_CONTENT = ("series_uid", "digest", "path", "size_bytes", "received_at", "header")
_TOLD = ("modalities", "called_aes", "first_at", "last_at")
_COUNTS = ("state", "revision", "instances", "conflicts", "duplicates", *_TOLD)
_STUDY = [getattr(StudyRow, name) for name in ("uid", *_COUNTS)]
_KNOWN = [getattr(InstanceRow, n) for n in ("study_uid", "sop_instance_uid", "digest", "received_at", "path")]
_GROWN = (
    update(StudyRow).where(col(StudyRow.uid) == bindparam("key")).values({name: bindparam(name) for name in _COUNTS})
)


@dataclass(frozen=True)
class Waiting:
    """A study that still receives: when its last new instance came, and of which modalities it consists."""

    study_uid: str
    last_at: float
    modalities: tuple[str, ...]
    instances: int


def record(ledger: Ledger, batch: Sequence[Arrival]) -> Recorded:
    """Write a batch in one transaction, in its order.

    An instance is known by its study and its SOP Instance UID. The same content again is a duplicate: it is counted and
    changes nothing but when the study was last heard of. With other content the one that came last, by ``at``, is the
    current one, the other file stays beside it, and a conflict is written down. What is new or changed in a complete
    study makes it receive again, as its next revision. Raises Refused when the database does not take a value.
    """
    if not batch:
        return Recorded()
    try:
        with ledger.write() as session:
            return _record(ledger, session.connection(), batch)
    except (DataError, ValueError) as error:
        raise Refused(f"the ledger cannot hold what came ({type(error).__name__})") from error


def _record(ledger: Ledger, db: Connection, batch: Sequence[Arrival]) -> Recorded:
    # The rows of the studies are locked first, in one order: whoever else writes of them waits here.
    studies = _locked(ledger, db, sorted({a.instance.study_uid for a in batch}))
    ruling = Ruling(_known(db, batch), _set_aside(db, batch))
    for arrival in batch:
        ruling.take(arrival)
    if ruling.current:
        _store(ledger, db, ruling)
    if ruling.conflicts:
        db.execute(insert(ConflictRow), [_conflict(c) for c in ruling.conflicts])
    db.execute(_GROWN, [_grown(db, studies[uid], growth) for uid, growth in sorted(ruling.studies.items())])
    return ruling.recorded()


def _locked(ledger: Ledger, db: Connection, uids: Sequence[str]) -> dict[str, Row[Any]]:
    query = select(*_STUDY).where(col(StudyRow.uid).in_(uids)).order_by(col(StudyRow.uid)).with_for_update()
    rows = {row.uid: row for row in db.execute(query)}
    if len(rows) == len(uids):
        return rows
    missing = [StudyRow(uid=uid).model_dump() for uid in uids if uid not in rows]
    db.execute(ledger.insert(StudyRow).on_conflict_do_nothing(), missing)
    return {row.uid: row for row in db.execute(query)}


def _same(row: type[InstanceRow | ConflictRow], batch: Sequence[Arrival]) -> ColumnElement[bool]:
    # Two short lists and not one of pairs: every database takes them, and what it finds too much is not looked up.
    studies = {a.instance.study_uid for a in batch}
    return and_(
        col(row.study_uid).in_(studies), col(row.sop_instance_uid).in_([a.instance.sop_instance_uid for a in batch])
    )


def _known(db: Connection, batch: Sequence[Arrival]) -> dict[Key, Content]:
    found = db.execute(select(*_KNOWN).where(_same(InstanceRow, batch)))
    return {(study, uid): Content(digest, at, path) for study, uid, digest, at, path in found}


def _set_aside(db: Connection, batch: Sequence[Arrival]) -> set[tuple[str, str, str]]:
    found = [a for a in batch if a.found]
    if not found:
        return set()
    row = ConflictRow
    rows = db.execute(select(row.study_uid, row.sop_instance_uid, row.digest).where(_same(row, found)))
    return {(study, uid, digest) for study, uid, digest in rows}


def _store(ledger: Ledger, db: Connection, ruling: Ruling) -> None:
    statement = ledger.insert(InstanceRow)
    changed = {name: statement.excluded[name] for name in _CONTENT}
    values = [_row(arrival, at) for _, (arrival, at) in sorted(ruling.current.items())]
    db.execute(statement.on_conflict_do_update(index_elements=["study_uid", "sop_instance_uid"], set_=changed), values)


def _row(arrival: Arrival, at: float) -> dict[str, Any]:
    instance = arrival.instance
    return {
        "study_uid": instance.study_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "series_uid": instance.series_uid,
        "digest": instance.digest,
        "path": instance.path,
        "size_bytes": arrival.size_bytes,
        "received_at": at,
        "header": instance.to_json(),
    }


def _conflict(conflict: Conflict) -> dict[str, Any]:
    study_uid, sop_instance_uid = conflict.key
    return {
        "study_uid": study_uid,
        "sop_instance_uid": sop_instance_uid,
        "at": conflict.at,
        "calling_ae": conflict.calling_ae,
        "path": conflict.set_aside.path,
        "digest": conflict.set_aside.digest,
        "new_path": conflict.current.path,
        "new_digest": conflict.current.digest,
    }


def _grown(db: Connection, row: Row[Any], growth: Growth) -> dict[str, Any]:
    reopened = row.state == "COMPLETE" and growth.fresh + growth.changed > 0
    receiving = reopened or row.state == "RECEIVING"
    conflicts = row.conflicts + growth.conflicts
    if growth.found_conflicts:
        # One that was counted before, by a ledger that kept no list of them, is not counted again when it is found.
        rows = select(func.count()).select_from(ConflictRow).where(col(ConflictRow.study_uid) == row.uid)
        conflicts = max(conflicts, db.execute(rows).scalar_one())
    return {
        "key": row.uid,
        "state": "RECEIVING" if receiving else row.state,
        "revision": row.revision + int(reopened),
        "instances": row.instances + growth.fresh,
        "conflicts": conflicts,
        "duplicates": row.duplicates + growth.duplicates,
        "modalities": ",".join(sorted(growth.modalities.union(row.modalities.split(",")) - {""})),
        "called_aes": joined(growth.called_aes.union(parted(row.called_aes))),
        "first_at": _first_at(row, growth),
        "last_at": max(growth.last_at, row.last_at) if receiving else row.last_at,
    }


def _first_at(row: Row[Any], growth: Growth) -> float:
    if row.instances == 0 and row.first_at == 0.0:
        return growth.first_at
    # Only what is found can have come earlier than what is known; anything else is a clock that was set back.
    return float(row.first_at if growth.came else min(row.first_at, growth.first_at))


def known_paths(ledger: Ledger, among: Collection[str] | None = None) -> set[str]:
    """Paths, relative to the spool, of the current content of all instances, or of those that are ``among`` some."""
    query = select(InstanceRow.path)
    with ledger.read() as session:
        return set(session.exec(query if among is None else query.where(col(InstanceRow.path).in_(among))).all())


@dataclass(frozen=True)
class Place:
    """A path that the ledger knows, and the path of its instance's current content: the same unless set aside."""

    path: str
    current: str


def places(ledger: Ledger) -> Generator[Place, None, None]:
    """All paths of instances, current and set aside, ordered by code points; of one moment, and in constant memory.

    A connection is held until the iterator is exhausted or closed.
    """
    i, c = InstanceRow, ConflictRow
    same = and_(col(c.study_uid) == i.study_uid, col(c.sop_instance_uid) == i.sop_instance_uid)
    set_aside: Any = select(c.path, col(i.path).label("current")).join(i, same).where(c.path != i.path)
    query = union_all(select(i.path, col(i.path).label("current")), set_aside).order_by("path")
    with ledger.read() as session:
        with session.connection().execute(query, execution_options={"yield_per": STREAMED_ROWS}) as rows:
            for path, current in rows:
                yield Place(path, current)


def waiting(ledger: Ledger) -> list[Waiting]:
    """Studies that still receive."""
    with ledger.read() as session:
        rows = session.exec(select(StudyRow).where(StudyRow.state == "RECEIVING")).all()
        return [Waiting(r.uid, r.last_at, tuple(filter(None, r.modalities.split(","))), r.instances) for r in rows]


def complete(ledger: Ledger, study: Waiting, now: float) -> int | None:
    """Close a study unless something came since it was looked at; returns its revision, or None when it grew."""
    with ledger.write() as session:
        statement = (
            update(StudyRow)
            .where(col(StudyRow.uid) == study.study_uid, col(StudyRow.state) == "RECEIVING")
            .where(col(StudyRow.last_at) == study.last_at, col(StudyRow.instances) == study.instances)
            .values(state="COMPLETE", completed_at=now)
        )
        if session.exec(statement).rowcount != 1:
            return None
        row = session.get(StudyRow, study.study_uid)
        return row.revision if row else None


def unrouted(ledger: Ledger) -> list[Study]:
    """Complete studies whose newest revision has not met the models yet."""
    with ledger.read() as session:
        rows = session.exec(
            select(StudyRow).where(StudyRow.state == "COMPLETE", StudyRow.routed_revision < StudyRow.revision)
        ).all()
        return [
            group(row.uid, row.revision, instances_of(session, row.uid), parted(row.called_aes)) for row in rows
        ]


def instances_of(session: Session, study_uid: str, series_uid: str = "") -> list[Instance]:
    """Current instances of a study, or of one of its series, ordered by UID."""
    query = select(InstanceRow.header).where(InstanceRow.study_uid == study_uid)
    if series_uid:
        query = query.where(InstanceRow.series_uid == series_uid)
    return [Instance.from_json(h) for h in session.exec(query.order_by(InstanceRow.sop_instance_uid)).all()]


def study_of(ledger: Ledger, study_uid: str, revision: int) -> Study:
    """All current instances of one study, as a study of ``revision``."""
    with ledger.read() as session:
        return group(study_uid, revision, instances_of(session, study_uid))


def series_instances(ledger: Ledger, study_uid: str, series_uid: str) -> list[Instance]:
    """Current instances of one series, ordered by UID."""
    with ledger.read() as session:
        return instances_of(session, study_uid, series_uid)


__all__ = [
    "Arrival",
    "Place",
    "Recorded",
    "Waiting",
    "complete",
    "instances_of",
    "known_paths",
    "places",
    "record",
    "series_instances",
    "study_of",
    "unrouted",
    "waiting",
]
