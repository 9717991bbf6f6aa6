"""From the spool to the ledger: what comes, what was missed, and a ledger that is away for a while."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select

from overread.console.words import explain
from overread.domain.errors import Unreachable
from overread.domain.events import Event, InstancesIndexed, SpoolDiscrepancy, Trouble
from overread.domain.study import Instance
from overread.ledger import Ledger, arrivals, jobs, open_ledger, views
from overread.ledger.arrivals import Arrival, Recorded
from overread.ledger.tables import InstanceRow
from overread.receive import index, survey
from overread.receive.entries import enter
from overread.receive.index import Indexer
from overread.receive.survey import Survey, compare, reconcile
from overread.spool import Spool
from overread.spool.header import read_file
from overread.spool.meta import file_meta

from .conftest import EXPLICIT, until

Slices = list[tuple[str, bytes]]
STUDY = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", durable=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    books = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield books
    books.close()


@pytest.fixture
def events() -> list[Event]:
    return []


def keep(spool: Spool, uid: str, data: bytes) -> Arrival:
    """Store a slice as the listener does."""
    stored = spool.keep(STUDY, uid, file_meta("1.2.840.10008.5.1.4.1.1.2", uid, EXPLICIT, "CT1"), data)
    instance = read_file(spool.absolute(stored.path))
    known = Instance(**{**vars(instance), "path": stored.path, "digest": stored.digest})
    return Arrival(known, stored.size_bytes, time.time())


def current(ledger: Ledger) -> dict[str, str]:
    """SOP Instance UID → path of every instance in the ledger."""
    study = views.recent_studies(ledger, 1)
    if not study:
        return {}
    with ledger.read() as session:
        return {i.sop_instance_uid: i.path for i in arrivals.instances_of(session, study[0].uid)}


def test_files_without_a_row_are_found(spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event]) -> None:
    """The process died between acknowledging and writing to the ledger."""
    known = [keep(spool, uid, data) for uid, data in ct_bytes]
    arrivals.record(ledger, known[:5])
    assert [kind for kind, _ in compare(spool, ledger)] == ["unindexed"] * (len(ct_bytes) - 5)
    assert reconcile(spool, ledger, events.append) == Survey(found=len(ct_bytes) - 5)
    assert current(ledger) == {a.instance.sop_instance_uid: a.instance.path for a in known}
    assert list(compare(spool, ledger)) == []
    assert reconcile(spool, ledger, events.append) == Survey()
    assert [e for e in events if isinstance(e, Trouble)] == []
    assert told_of(events, "unindexed") == [len(ct_bytes) - 5, 0]


def test_found_files_are_as_old_as_they_are(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event]
) -> None:
    """A study that was found again is not taken for one that has just come."""
    arrival = keep(spool, *ct_bytes[0])
    os.utime(spool.absolute(arrival.instance.path), (1_700_000_000, 1_700_000_000))
    reconcile(spool, ledger, events.append)
    assert views.recent_studies(ledger, 1)[0].last_at == 1_700_000_000


def test_the_earlier_file_of_a_conflict_does_not_come_back(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event]
) -> None:
    """Both contents stay in the spool; after a restart the one that came last is still the current one."""
    uid, data = ct_bytes[0]
    earlier = keep(spool, uid, data)
    os.utime(spool.absolute(earlier.instance.path), (1_700_000_000, 1_700_000_000))
    later = keep(spool, uid, data + b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0")
    arrivals.record(ledger, [earlier])
    arrivals.record(ledger, [later])
    before = views.recent_studies(ledger, 1)[0]
    for _ in range(2):
        reconcile(spool, ledger, events.append)
        after = views.recent_studies(ledger, 1)[0]
        assert current(ledger) == {uid: later.instance.path}
        assert (after.revision, after.conflicts, after.instances) == (before.revision, 1, 1)


def test_a_later_file_of_a_conflict_that_the_ledger_missed_is_taken(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event]
) -> None:
    uid, data = ct_bytes[0]
    arrivals.record(ledger, [keep(spool, uid, data)])
    later = keep(spool, uid, data + b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0")
    os.utime(spool.absolute(later.instance.path), (time.time() + 5, time.time() + 5))
    reconcile(spool, ledger, events.append)
    assert current(ledger) == {uid: later.instance.path}


def test_a_file_that_cannot_be_read_is_told_and_left(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event]
) -> None:
    keep(spool, *ct_bytes[0])
    (spool.study_folder("9.9")).mkdir(parents=True)
    broken = spool.study_folder("9.9") / "a-b.dcm"
    broken.write_bytes(b"no DICOM")
    for found in (1, 0):
        assert reconcile(spool, ledger, events.append) == Survey(found=found, unreadable=1)
    assert told_of(events, "unreadable") == [1, 1]
    assert broken.exists()


def test_rows_without_their_file_are_told_and_kept(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    """And when the study is sent again, the file is there again."""
    known = [keep(spool, uid, data) for uid, data in ct_bytes]
    arrivals.record(ledger, known)
    gone = sorted(a.instance.path for a in (known[0], known[3], known[-1]))
    for path in gone:
        spool.absolute(path).unlink()
    assert list(compare(spool, ledger)) == [("missing", path) for path in gone]
    assert reconcile(spool, ledger, events.append) == Survey(missing=3)
    assert told_of(events, "missing") == [3]
    assert "3 files are missing; send their studies again" in caplog.text
    assert gone[0] in caplog.text
    assert len(current(ledger)) == len(known)
    arrivals.record(ledger, [keep(spool, uid, data) for uid, data in ct_bytes])
    assert reconcile(spool, ledger, events.append) == Survey()


def test_what_retention_removes_during_the_comparison_is_not_missing(
    spool: Spool, ledger: Ledger, ct_bytes: Slices
) -> None:
    known = [keep(spool, uid, data) for uid, data in ct_bytes]
    arrivals.record(ledger, known[:-1])
    (study,) = arrivals.waiting(ledger)
    arrivals.complete(ledger, study, 1.0)
    jobs.plan(ledger, study.study_uid, 1, [], [])
    found = compare(spool, ledger)
    last = max(known, key=lambda a: a.instance.path).instance.path
    spool.absolute(last).unlink(missing_ok=True)
    first = next(found)
    assert first[0] in ("unindexed", "missing")
    paths = views.purge(ledger, study.study_uid, time.time() + 99, time.time())
    assert paths is not None
    spool.remove_study(STUDY, [], paths, 0.0)
    assert [kind for kind, _ in found if kind == "missing"] == []


def test_the_spool_alone_makes_the_ledger_again(
    spool: Spool, tmp_path: Path, ct_bytes: Slices, events: list[Event]
) -> None:
    """After a conflict, too: the content that came last is current, the other one is known and counted."""
    uid, data = ct_bytes[2]
    other = data + b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0"
    came = [keep(spool, *pair) for pair in (*ct_bytes, (uid, other))]
    twice = [keep(spool, ct_bytes[5][0], ct_bytes[5][1] + other[-12:]), keep(spool, *ct_bytes[5])]  # A, B, A
    came = [dated(spool, a, 1_700_000_000.0 + n) for n, a in enumerate([*came, *twice])]
    lost = open_ledger(f"sqlite:///{tmp_path / 'lost.sqlite'}")
    arrivals.record(lost, came)
    made = open_ledger(f"sqlite:///{tmp_path / 'made.sqlite'}")
    for found in (len(ct_bytes) + 2, 0):
        assert reconcile(spool, made, events.append) == Survey(found=found)
        assert rows(made) == rows(lost)
    (before,), (after,) = views.recent_studies(lost, 9), views.recent_studies(made, 9)
    assert (before.conflicts, after.conflicts) == (3, 2)  # A, B, A was two, and leaves two files
    assert (after.instances, after.modalities, after.last_at) == (before.instances, before.modalities, before.last_at)
    lost.close()
    made.close()


def dated(spool: Spool, arrival: Arrival, at: float) -> Arrival:
    """As if it had come at another time."""
    os.utime(spool.absolute(arrival.instance.path), (at, at))
    return replace(arrival, at=at)


def rows(ledger: Ledger) -> list[dict[str, object]]:
    with ledger.read() as session:
        return [row.model_dump() for row in session.exec(select(InstanceRow).order_by(col(InstanceRow.path))).all()]


def told_of(events: list[Event], kind: str) -> list[int]:
    """What each comparison has told of one kind."""
    return [e.count for e in events if isinstance(e, SpoolDiscrepancy) and e.kind == kind]


def test_content_that_came_back_while_the_ledger_was_away_is_taken(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event]
) -> None:
    """A and B are in the ledger; A came once more, was acknowledged, and the process died."""
    uid, data = ct_bytes[0]
    first = dated(spool, keep(spool, uid, data), 1_700_000_000)
    other = dated(spool, keep(spool, uid, data + b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0"), 1_700_000_001)
    arrivals.record(ledger, [first, other])
    assert reconcile(spool, ledger, events.append) == Survey()
    keep(spool, uid, data)
    assert list(compare(spool, ledger)) == [("unindexed", first.instance.path)]
    reconcile(spool, ledger, events.append)
    assert current(ledger) == {uid: first.instance.path}
    assert views.recent_studies(ledger, 1)[0].conflicts == 2
    assert list(compare(spool, ledger)) == []


def test_more_files_than_a_batch_are_found(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "BATCH", 5)
    for uid, data in ct_bytes:
        keep(spool, uid, data)
    assert reconcile(spool, ledger, events.append).found == len(ct_bytes) == len(current(ledger))


def test_what_comes_is_written_in_few_transactions(
    spool: Spool, ledger: Ledger, tmp_path: Path, ct_bytes: Slices, events: list[Event]
) -> None:
    batches: list[int] = []
    real = arrivals.record
    indexer = Indexer(spool, lambda: open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), events.append)
    came = [keep(spool, uid, data) for uid, data in ct_bytes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "record", lambda books, batch: (batches.append(len(batch)), real(books, batch))[1])
        for arrival in came:
            indexer.add(arrival)
        assert indexer.check() is not None
        indexer.start()
        assert until(lambda: len(current(ledger)) == len(came) and indexer.check() is None)
        indexer.stop()
    assert batches == [len(came)]  # what waits is not found by the comparison as well
    assert indexer.check() is None
    row = views.recent_studies(ledger, 1)[0]
    assert (row.instances, row.duplicates) == (len(came), 0)
    assert [e for e in events if not isinstance(e, SpoolDiscrepancy)] == [InstancesIndexed(len(came), 0, 0)]


def test_under_load_commits_are_few(
    spool: Spool, ledger: Ledger, tmp_path: Path, ct_bytes: Slices, events: list[Event]
) -> None:
    """What comes one after the other, faster than it is waited for, is written together, and soon."""
    indexer = Indexer(spool, lambda: open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), events.append)
    indexer.start()
    assert until(indexer.ready.is_set)
    arrival = keep(spool, *ct_bytes[0])
    for number in range(300):
        uid = f"1.2.{number}"
        indexer.add(replace(arrival, instance=replace(arrival.instance, sop_instance_uid=uid, path=uid)))
        time.sleep(0.0002)
    assert until(lambda: len(current(ledger)) == 300)
    indexer.stop()
    commits = [e.instances for e in events if isinstance(e, InstancesIndexed)]
    assert sum(commits) == 300
    assert len(commits) < 20


def test_one_that_comes_alone_does_not_wait_for_long(
    spool: Spool, ledger: Ledger, tmp_path: Path, ct_bytes: Slices
) -> None:
    told: list[float] = []

    def herald(event: Event) -> None:
        if isinstance(event, InstancesIndexed):
            told.append(time.monotonic())

    indexer = Indexer(spool, lambda: open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), herald)
    indexer.start()
    assert until(indexer.ready.is_set)
    added = time.monotonic()
    indexer.add(keep(spool, *ct_bytes[0]))
    assert until(lambda: told)
    indexer.stop()
    assert told[0] - added < 0.5  # 0.02 s and a commit, on a machine that may be busy


def test_conflicts_are_told_by_study_and_by_nothing_else(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event], caplog: pytest.LogCaptureFixture
) -> None:
    uid, data = ct_bytes[0]
    enter(ledger, [keep(spool, uid, data), keep(spool, uid, data + b"\xfc\xff\xfc\xffOB\0\0\0\0\0\0")], events.append)
    enter(ledger, [keep(spool, uid, data)] * 2, events.append)
    assert events == [InstancesIndexed(1, 0, 1), InstancesIndexed(0, 1, 1)]
    (first, _) = caplog.records
    assert (first.levelname, story_of(ledger).study.uid in first.getMessage()) == ("WARNING", True)
    assert uid not in caplog.text
    (told, *_) = (line for line in explain(story_of(ledger)) if "is current since then" in line)
    assert all(word in told for word in (uid, "from CT1", "is kept beside it"))


def story_of(ledger: Ledger) -> views.StudyStory:
    story = views.story(ledger, views.recent_studies(ledger, 1)[0].uid)
    assert story is not None
    return story


def test_stop_writes_what_is_left(spool: Spool, ledger: Ledger, tmp_path: Path, ct_bytes: Slices) -> None:
    indexer = Indexer(spool, lambda: open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), lambda _: None)
    indexer.start()
    for uid, data in ct_bytes:
        indexer.add(keep(spool, uid, data))
    indexer.stop()
    assert len(current(ledger)) == len(ct_bytes)
    assert indexer.stuck() == ["indexer"]  # it has ended


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "RETRY_S", 0.02)


@pytest.mark.usefixtures("impatient")
def test_a_ledger_that_is_away_is_waited_for(
    spool: Spool, ledger: Ledger, tmp_path: Path, ct_bytes: Slices, events: list[Event]
) -> None:
    """Neither opening it nor writing to it works for a while; nothing is lost, and every failure is told."""
    away = {"open": 3, "record": 3}
    real = arrivals.record

    def open_later() -> Ledger:
        away["open"] -= 1
        if away["open"] >= 0:
            raise Unreachable("the ledger cannot be opened")
        return open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")

    def record_later(books: Ledger, batch: list[Arrival]) -> Recorded:
        away["record"] -= 1
        if away["record"] >= 0:
            raise OperationalError("INSERT", {}, Exception("server closed the connection"))
        return real(books, batch)

    indexer = Indexer(spool, open_later, events.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "record", record_later)
        indexer.start()
        for uid, data in ct_bytes:
            indexer.add(keep(spool, uid, data))
        assert until(lambda: len(current(ledger)) == len(ct_bytes))
        indexer.stop()
    assert {e.error for e in events if isinstance(e, Trouble)} == {"Unreachable", "OperationalError"}


@pytest.mark.usefixtures("impatient")
def test_stop_does_not_wait_for_a_ledger_that_stays_away(spool: Spool, events: list[Event]) -> None:
    def never() -> Ledger:
        raise Unreachable("the ledger cannot be opened")

    indexer = Indexer(spool, never, events.append)
    indexer.start()
    assert until(lambda: events)
    started = time.monotonic()
    indexer.stop()
    assert time.monotonic() - started < 3
    assert indexer.check() is not None


@pytest.mark.usefixtures("impatient")
def test_one_arrival_that_the_ledger_cannot_hold_does_not_hold_up_the_others(
    spool: Spool, ledger: Ledger, tmp_path: Path, ct_bytes: Slices, events: list[Event]
) -> None:
    came = [keep(spool, uid, data) for uid, data in ct_bytes]
    poison = replace(came[3], instance=replace(came[3].instance, modality="\ud800"))
    open_it: Callable[[], Ledger] = lambda: open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")  # noqa: E731
    empty = Spool(tmp_path / "empty", durable=False)
    indexer = Indexer(empty, open_it, events.append)
    for arrival in [*came[:3], poison, *came[4:]]:
        indexer.add(arrival)
    indexer.start()
    assert until(lambda: len(current(ledger)) == len(came) - 1)
    indexer.stop()
    assert Trouble("receive", "Refused") in events


@pytest.mark.usefixtures("impatient")
def test_what_cannot_wait_is_found_in_the_spool_when_the_ledger_answers_again(
    spool: Spool, ledger: Ledger, tmp_path: Path, ct_bytes: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is away for long: memory stays bounded, readiness says so, and nothing is lost."""
    monkeypatch.setattr(index, "MOST_WAITING", 3)
    real, away = arrivals.record, threading.Event()

    def record_later(books: Ledger, batch: list[Arrival]) -> Recorded:
        if away.is_set():
            raise OperationalError("INSERT", {}, Exception("server closed the connection"))
        return real(books, batch)

    monkeypatch.setattr(arrivals, "record", record_later)
    indexer = Indexer(spool, lambda: open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), lambda _: None)
    indexer.start()
    assert until(lambda: indexer.check() is None)
    away.set()
    for uid, data in ct_bytes:
        indexer.add(keep(spool, uid, data))
        time.sleep(0.002)
    assert until(lambda: "more came than could wait" in (indexer.check() or ""))
    assert len(indexer._lobby.paths()) <= 3
    away.clear()
    assert until(lambda: len(current(ledger)) == len(ct_bytes))
    assert until(lambda: indexer.check() is None)
    indexer.stop()
    row = views.recent_studies(ledger, 1)[0]
    assert (row.instances, row.duplicates, row.conflicts) == (len(ct_bytes), 0, 0)


def test_what_comes_during_a_comparison_is_written_meanwhile(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it comes when the first half of the files has been read."""
    monkeypatch.setattr(survey, "BATCH", 3)
    known = [keep(spool, uid, data) for uid, data in ct_bytes]
    late = [max(known, key=lambda a: a.instance.path)]

    def breathe() -> set[str]:
        if current(ledger) and late:
            arrivals.record(ledger, [late.pop()])
        return {known[0].instance.path}

    found = reconcile(spool, ledger, events.append, breathe).found
    assert found == len(ct_bytes) - 2  # one came meanwhile, one is on its way
    assert len(current(ledger)) == len(ct_bytes) - 1
    assert views.recent_studies(ledger, 1)[0].duplicates == 0


def test_stop_does_not_wait_for_a_comparison(
    spool: Spool, tmp_path: Path, ct_bytes: Slices, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what waits is still written."""
    monkeypatch.setattr(survey, "BATCH", 1)
    monkeypatch.setattr(survey, "read_file", lambda file: (time.sleep(0.2), read_file(file))[1])
    came = [keep(spool, uid, data) for uid, data in ct_bytes]
    books = open_ledger(f"sqlite:///{tmp_path / 'other.sqlite'}")
    indexer = Indexer(spool, lambda: open_ledger(f"sqlite:///{tmp_path / 'other.sqlite'}"), events.append)
    indexer.start()
    assert until(lambda: current(books))
    indexer.add(replace(came[0], instance=replace(came[0].instance, sop_instance_uid="1.2.9", path="late")))
    indexer.stop()
    assert "1.2.9" in current(books)
    assert len(current(books)) < len(came)
    assert indexer.check() is not None
    books.close()


def test_a_comparison_of_many_needs_little_memory(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five thousand rows, and the same again: the peak does not grow with them."""
    monkeypatch.setattr(arrivals, "STREAMED_ROWS", 500)
    arrival = keep(spool, *ct_bytes[0])

    def peak(start: int) -> int:
        batch = [
            replace(arrival, instance=replace(arrival.instance, sop_instance_uid=f"1.{n}", path=f"instances/{n:040}"))
            for n in range(start, start + 5000)
        ]
        arrivals.record(ledger, batch)
        del batch
        tracemalloc.start()
        count = sum(1 for _ in arrivals.places(ledger))
        assert count == start + 5000
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    assert peak(0) * 1.3 > peak(5000)
