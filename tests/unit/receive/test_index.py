"""From the spool to the ledger: what comes, what was missed, and a ledger that is away for a while."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from overread.domain.errors import Unreachable
from overread.domain.events import Event, Trouble
from overread.domain.study import Instance
from overread.ledger import Ledger, arrivals, open_ledger, views
from overread.ledger.arrivals import Arrival
from overread.receive import index
from overread.receive.index import Indexer, reconcile
from overread.spool import Spool
from overread.spool.files import file_meta
from overread.spool.header import read_file

from .conftest import EXPLICIT, until

Slices = list[tuple[str, bytes]]


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
    study = "1.2.826.0.1.3680043.8.498.77"
    stored = spool.keep(study, uid, file_meta("1.2.840.10008.5.1.4.1.1.2", uid, EXPLICIT, "CT1"), data)
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
    assert reconcile(spool, ledger, events.append) == len(ct_bytes) - 5
    assert current(ledger) == {a.instance.sop_instance_uid: a.instance.path for a in known}
    assert reconcile(spool, ledger, events.append) == 0
    assert events == []


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
    assert reconcile(spool, ledger, events.append) == 1
    assert events == [Trouble("receive", "Refused")]
    assert broken.exists()


def test_more_files_than_a_batch_are_found(
    spool: Spool, ledger: Ledger, ct_bytes: Slices, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "BATCH", 5)
    for uid, data in ct_bytes:
        keep(spool, uid, data)
    assert reconcile(spool, ledger, events.append) == len(ct_bytes) == len(current(ledger))


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
        assert until(lambda: len(current(ledger)) == len(came))
        indexer.stop()
    assert len(batches) <= 2  # the comparison of spool and ledger found them all, the queue brought them again
    assert indexer.check() is None
    assert views.recent_studies(ledger, 1)[0].instances == len(came)
    assert events == []


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

    def record_later(books: Ledger, batch: list[Arrival]) -> int:
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
    from dataclasses import replace

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
