"""What came: instances written in batches, studies that grow, and the verdict that they are complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import update
from sqlalchemy.exc import DataError
from sqlmodel import Session, col, select

from overread.domain.errors import Refused
from overread.domain.study import Instance, Study, group
from overread.ledger.store import Ledger
from overread.ledger.tables import InstanceRow, StudyRow


@dataclass(frozen=True)
class Arrival:
    """One instance that is durable in the spool; ``found`` there by a comparison, not fresh from the network."""

    instance: Instance
    size_bytes: int
    at: float
    found: bool = False


@dataclass(frozen=True)
class Waiting:
    """A study that still receives: when its last new instance came, and of which modalities it consists."""

    study_uid: str
    last_at: float
    modalities: tuple[str, ...]
    instances: int


def record(ledger: Ledger, arrivals: Sequence[Arrival]) -> int:
    """Write a batch in one transaction; returns how many were new or changed.

    The same UID with the same digest is a duplicate and changes nothing. With another digest the content that came last
    is the current one, the earlier file stays beside it, and the study counts a conflict. Anything new in a complete
    study makes it receive again, as its next revision. Raises Refused when the database does not take a value.
    """
    try:
        with ledger.write() as session:
            return sum(_record(session, uid, members) for uid, members in _by_study(arrivals).items())
    except (DataError, ValueError) as error:
        raise Refused(f"the ledger cannot hold what came ({type(error).__name__})") from error


def _record(session: Session, study_uid: str, members: Sequence[Arrival]) -> int:
    known = _known(session, members)
    fresh = [a for a in members if _is_new(a, known.get(a.instance.sop_instance_uid))]
    conflicts = sum(a.instance.sop_instance_uid in known for a in fresh)
    for arrival in fresh:
        _store(session, arrival)
    _touch_study(session, study_uid, members, len(fresh), conflicts)
    return len(fresh)


def _is_new(arrival: Arrival, known: tuple[str, float] | None) -> bool:
    if known is None or known[0] == arrival.instance.digest:
        return known is None
    # The earlier file of a conflict is found again at each start; it must not become the current one.
    return not arrival.found or arrival.at > known[1]


def _by_study(arrivals: Iterable[Arrival]) -> dict[str, list[Arrival]]:
    studies: dict[str, dict[str, Arrival]] = {}
    for arrival in arrivals:
        studies.setdefault(arrival.instance.study_uid, {})[arrival.instance.sop_instance_uid] = arrival
    return {uid: list(members.values()) for uid, members in sorted(studies.items())}


def _known(session: Session, members: Sequence[Arrival]) -> dict[str, tuple[str, float]]:
    uids = [a.instance.sop_instance_uid for a in members]
    rows = session.exec(
        select(InstanceRow.sop_instance_uid, InstanceRow.digest, InstanceRow.received_at).where(
            col(InstanceRow.sop_instance_uid).in_(uids)
        )
    )
    return {uid: (digest, at) for uid, digest, at in rows.all()}


def _store(session: Session, arrival: Arrival) -> None:
    instance = arrival.instance
    session.merge(
        InstanceRow(
            sop_instance_uid=instance.sop_instance_uid,
            study_uid=instance.study_uid,
            series_uid=instance.series_uid,
            digest=instance.digest,
            path=instance.path,
            size_bytes=arrival.size_bytes,
            received_at=arrival.at,
            header=instance.to_json(),
        )
    )


def _touch_study(session: Session, study_uid: str, members: Sequence[Arrival], fresh: int, conflicts: int) -> None:
    now = max(a.at for a in members)
    row = session.get(StudyRow, study_uid, with_for_update=True)
    if row is None:
        row = StudyRow(uid=study_uid, first_at=now)
        session.add(row)
    elif row.state == "COMPLETE" and fresh:
        row.state, row.revision = "RECEIVING", row.revision + 1
    if fresh or row.state == "RECEIVING":
        row.last_at = max(now, row.last_at)
    row.instances += fresh - conflicts
    row.conflicts += conflicts
    seen = set(filter(None, row.modalities.split(",")))
    row.modalities = ",".join(sorted(seen | {a.instance.modality for a in members if a.instance.modality}))


def known_paths(ledger: Ledger) -> set[str]:
    """Paths, relative to the spool, of all instances in the ledger."""
    with ledger.read() as session:
        return set(session.exec(select(InstanceRow.path)).all())


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
        return [group(row.uid, row.revision, instances_of(session, row.uid)) for row in rows]


def instances_of(session: Session, study_uid: str, series_uid: str = "") -> list[Instance]:
    """Current instances of a study, or of one of its series, ordered by UID."""
    query = select(InstanceRow.header).where(InstanceRow.study_uid == study_uid)
    if series_uid:
        query = query.where(InstanceRow.series_uid == series_uid)
    return [Instance.from_json(h) for h in session.exec(query.order_by(InstanceRow.sop_instance_uid)).all()]


def series_instances(ledger: Ledger, study_uid: str, series_uid: str) -> list[Instance]:
    """Current instances of one series, ordered by UID."""
    with ledger.read() as session:
        return instances_of(session, study_uid, series_uid)
