"""The clerk: a process that keeps the ledger, may die at any time, and is never waited for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from overread.domain.events import Event, InstanceReceived, InstancesIndexed, SpoolDiscrepancy
from overread.ledger import open_ledger
from overread.receive import clerk as room
from overread.receive.clerk import Clerk, Line, serve
from overread.receive.index import Indexer
from overread.receive.receipt import Receipt
from overread.spool import Spool
from overread.spool.header import read_header
from overread.spool.meta import file_meta

from .conftest import CT, EXPLICIT, until

Slices = list[tuple[str, bytes]]


def keep_books(connection: Connection, folder: Path) -> None:
    """What the daemon runs in the second process."""
    line = Line(connection)
    serve(line, Indexer(Spool(folder / "spool"), lambda: open_ledger(url(folder)), line.say))


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.sqlite'}"


def rows(folder: Path) -> int:
    """How many instances the ledger has."""
    from overread.ledger.arrivals import known_paths

    books = open_ledger(url(folder))
    try:
        return len(known_paths(books))
    finally:
        books.close()


def receipt(spool: Spool, uid: str, data: bytes) -> Receipt:
    """Store a slice as the listener does."""
    header = read_header(lambda at, count: data[at : at + count], len(data), EXPLICIT)
    stored = spool.keep(header.uid("StudyInstanceUID"), uid, file_meta(CT, uid, EXPLICIT, "CT1"), data)
    return Receipt(header, stored, "CT1", time.time(), 0.001)


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def started(tmp_path: Path, events: list[Event], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Clerk]]:
    monkeypatch.setattr(room, "RESTART_S", 0.1)
    clerks: list[Clerk] = []

    def start() -> Clerk:
        clerks.append(Clerk(keep_books, (tmp_path,), events.append))
        clerks[-1].start()
        return clerks[-1]

    yield start
    for each in clerks:
        each.stop()


def pid(clerk: Clerk) -> int:
    assert until(lambda: clerk.process_id is not None)
    return int(clerk.process_id or 0)


def test_what_comes_is_in_the_ledger_and_told(
    started: Callable[[], Clerk], tmp_path: Path, events: list[Event], ct_bytes: Slices
) -> None:
    spool = Spool(tmp_path / "spool")
    clerk = started()
    assert clerk.check() is not None
    assert until(lambda: clerk.check() is None, 15)
    for uid, data in ct_bytes:
        clerk.add(receipt(spool, uid, data))
    assert until(lambda: rows(tmp_path) == len(ct_bytes))
    assert until(lambda: sum(e.instances for e in events if isinstance(e, InstancesIndexed)) == len(ct_bytes))
    assert len([e for e in events if isinstance(e, InstanceReceived)]) == len(ct_bytes)
    assert clerk.stuck() == []


def test_what_waits_is_written_before_it_ends(tmp_path: Path, events: list[Event], ct_bytes: Slices) -> None:
    spool = Spool(tmp_path / "spool")
    clerk = Clerk(keep_books, (tmp_path,), events.append)
    clerk.start()
    for uid, data in ct_bytes:
        clerk.add(receipt(spool, uid, data))
    clerk.stop()
    assert rows(tmp_path) == len(ct_bytes)
    assert clerk.stuck() == ["clerk"]


def test_a_clerk_that_is_killed_is_replaced_and_nothing_is_missing(
    started: Callable[[], Clerk], tmp_path: Path, events: list[Event], ct_bytes: Slices
) -> None:
    spool = Spool(tmp_path / "spool")
    clerk = started()
    assert until(lambda: clerk.check() is None, 15)
    for uid, data in ct_bytes[:6]:
        clerk.add(receipt(spool, uid, data))
    os.kill(pid(clerk), signal.SIGKILL)
    for uid, data in ct_bytes[6:]:
        clerk.add(receipt(spool, uid, data))
    assert until(lambda: rows(tmp_path) == len(ct_bytes), 15)
    assert until(lambda: clerk.check() is None, 15)


def test_more_than_can_wait_is_found_in_the_spool(
    tmp_path: Path, events: list[Event], ct_bytes: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MOST_WAITING", 3)
    spool = Spool(tmp_path / "spool")
    clerk = Clerk(keep_books, (tmp_path,), events.append)
    for uid, data in ct_bytes:
        clerk.add(receipt(spool, uid, data))  # it is not there yet: three wait
    clerk.start()
    assert until(lambda: rows(tmp_path) == len(ct_bytes), 15)
    clerk.stop()
    assert len([e for e in events if isinstance(e, InstanceReceived)]) == len(ct_bytes)
    assert sum(e.duplicates for e in events if isinstance(e, InstancesIndexed)) == 0
    assert [e for e in events if isinstance(e, SpoolDiscrepancy)]


def test_a_listener_that_is_gone_ends_its_clerk(tmp_path: Path, ct_bytes: Slices) -> None:
    """As after kill -9: the pipe is closed, and what came through it is written."""
    import multiprocessing

    spool = Spool(tmp_path / "spool")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=keep_books, args=(theirs, tmp_path))
    process.start()
    theirs.close()
    ours.send([receipt(spool, *ct_bytes[0])])
    ours.close()
    process.join(20)
    assert process.exitcode == 0
    assert rows(tmp_path) == 1
