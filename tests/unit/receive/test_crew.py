"""Several processes serve associations: what they store is told, what is open is counted, one that dies is replaced."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.association import Association

from overread.domain.events import AssociationClosed, AssociationOpened, AssociationRefused, Event, InstanceReceived
from overread.receive.admission import Admission, Row
from overread.receive.associations import Associations
from overread.receive.crew import Crew
from overread.receive.door import Door
from overread.receive.intake import Intake
from overread.receive.listener import Listener
from overread.receive.porter import Post, serve
from overread.receive.receipt import Receipt
from overread.spool import Spool
from overread.spool.quarantine import Quarantine

from .conftest import CT, EXPLICIT, until

SIZE = 2


DOOR = Door("OVERREAD", "127.0.0.1", 0, 131072, 5.0, 5.0, 5.0)


def carry(connection: Connection, folder: Path) -> None:
    """What the daemon runs in each porter."""
    post = Post(connection)
    serve(connection, post, Associations(DOOR, post, _intake(folder, post.put, post.put), post.put))


def _intake(folder: Path, keep: Callable[[Receipt], None], tell: Callable[[Event], None]) -> Intake:
    return Intake(Spool(folder), Quarantine(folder / "quarantine"), lambda: True, keep, tell)


@dataclass
class Books:
    """Where receipts go."""

    receipts: list[Receipt] = field(default_factory=list)

    def forward(self, pickled: bytes) -> None:
        self.receipts += pickle.loads(pickled)


@dataclass
class Gate:
    """A crew behind a port."""

    crew: Crew
    listener: Listener
    books: Books
    events: list[Event]

    def said(self, kind: type[Event]) -> int:
        return sum(isinstance(event, kind) for event in self.events)

    peers: list[Association] = field(default_factory=list)

    def associate(self) -> Association:
        entity = AE("CT1")
        entity.add_requested_context(CT, EXPLICIT)
        self.peers.append(entity.associate("127.0.0.1", self.listener.port, ae_title="OVERREAD"))
        return self.peers[-1]


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[..., Gate]]:
    open_gates: list[Gate] = []

    def start(most: int = 10, **row: Any) -> Gate:
        books, events = Books(), list[Event]()
        admission = Admission([Row("*", "127.0.0.0/8", **row)], "OVERREAD", most, lambda: True)
        crew = Crew(SIZE, carry, (tmp_path / "spool",), admission=admission, clerk=books, herald=events.append)
        intake = _intake(tmp_path / "spool", books.receipts.append, events.append)
        listener = Listener(DOOR, admission, intake, events.append, crew=crew)
        listener.start()
        crew.start()
        open_gates.append(Gate(crew, listener, books, events))
        return open_gates[-1]

    yield start
    for made in open_gates:
        wires = [peer.dul.socket.socket for peer in made.peers if peer.dul.socket]
        made.listener.stop()
        made.crew.stop()
        for peer in made.peers:
            if peer.ident is not None:
                peer.abort()
                peer.join(5)
        for wire in wires:
            if wire is not None:
                wire.close()


def _serving(crew: Crew) -> list[int]:
    return sorted(porter.load for porter in crew._porters)


def test_associations_are_spread_and_what_each_stores_is_told(gate, store, ct_bytes):
    made = gate()
    peers = [made.associate() for _ in range(4)]
    assert all(peer.is_established for peer in peers)
    assert _serving(made.crew) == [2, 2]
    for number, (uid, data) in enumerate(ct_bytes[:8]):
        assert store(peers[number % 4], data, uid) == 0x0000
    for peer in peers:
        peer.release()
    assert until(lambda: len(made.books.receipts) == 8)
    assert until(lambda: made.said(AssociationClosed) == 4)
    assert (made.said(AssociationOpened), made.said(InstanceReceived)) == (4, 8)
    assert until(lambda: _serving(made.crew) == [0, 0])


def test_the_limit_on_associations_is_one_for_all(gate, store, ct_bytes):
    made = gate(most=3, max_associations=3)
    peers = [made.associate() for _ in range(3)]
    for peer, (uid, data) in zip(peers, ct_bytes, strict=False):  # whoever has stored something may be idle for longer
        assert store(peer, data, uid) == 0x0000
    assert all(peer.is_established for peer in peers)
    assert made.associate().is_rejected
    assert until(lambda: made.said(AssociationRefused) == 1)
    peers[0].release()
    assert until(lambda: made.associate().is_established)


def test_one_that_is_idle_makes_way_wherever_it_is(gate):
    made = gate(most=3, max_associations=3)
    peers = [made.associate() for _ in range(3)]
    time.sleep(0.6)
    assert made.associate().is_established
    assert until(lambda: sum(peer.is_established for peer in peers) == 2)


def test_bytes_a_day_are_counted_for_all(gate, store, ct_bytes):
    made = gate(max_bytes_per_day=len(ct_bytes[0][1]) + 1)
    first, second = made.associate(), made.associate()
    assert store(first, ct_bytes[0][1], ct_bytes[0][0]) == 0x0000
    assert store(second, ct_bytes[1][1], ct_bytes[1][0]) == 0x0000  # which is too much, and known a moment later
    assert until(lambda: store(second, ct_bytes[2][1], ct_bytes[2][0]) == 0xA700)


def test_one_that_is_killed_is_replaced_and_the_others_go_on(gate, store, ct_bytes):
    made = gate()
    peers = [made.associate() for _ in range(2)]
    victim = made.crew._porters[0].process_id
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: sum(peer.is_established for peer in peers) == 1)
    survivor = next(peer for peer in peers if peer.is_established)
    uid, data = ct_bytes[0]
    assert store(survivor, data, uid) == 0x0000
    assert until(lambda: made.crew.check() is None and victim not in made.crew.process_ids, 15)
    again = [made.associate() for _ in range(3)]
    assert all(peer.is_established for peer in again)
    assert _serving(made.crew) == [2, 2]


def test_whoever_calls_while_all_are_gone_is_served_when_they_are_back(gate):
    made = gate()
    for process_id in made.crew.process_ids:
        os.kill(process_id, signal.SIGKILL)
    assert until(lambda: made.associate().is_established, 15)


def test_what_was_stored_is_told_before_the_end(gate, store, ct_bytes):
    made = gate()
    peer = made.associate()
    for uid, data in ct_bytes[:5]:
        assert store(peer, data, uid) == 0x0000
    made.listener.stop()
    made.crew.stop()
    assert len(made.books.receipts) == 5
    assert until(lambda: peer.is_aborted)


def test_a_porter_ends_with_the_process_that_keeps_it(tmp_path):
    """As after kill -9: the pipe is closed, and nobody would count what it lets in."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    porter = context.Process(target=carry, args=(theirs, tmp_path / "spool"), daemon=True)
    porter.start()
    theirs.close()
    ours.recv()  # it is at work
    ours.close()
    porter.join(5)
    assert porter.exitcode == 1
