"""Memory that is not enough for all: who gets room, in which order, and who makes way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import mischief
import pytest

from overread.domain.card import Card, read_card
from overread.domain.errors import Outranked, OverreadError
from overread.domain.geometry import stack
from overread.domain.pace import Pace
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.infer.footprints import GB, Footprint, Footprints
from overread.infer.pool import Terms, WorkerPool
from overread.infer.room import LONGEST_PASS_S, Room, Seat
from overread.infer.worker import WorkerProcess

pytestmark = pytest.mark.alone

MB = 1 << 20
BUDGET_MB = 400
TAKES_MB = {"small": 90, "large": 260}


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Card]:
    """Two models whose size is known: one of each fits into the budget of ``pool``, small beside small, no more."""
    monkeypatch.syspath_prepend(str(mischief.install(tmp_path / "engine")))
    return {name: read_card(mischief.model(tmp_path / "models", name)) for name in TAKES_MB}


@pytest.fixture
def pool(tmp_path: Path, cards: dict[str, Card]) -> Iterator[WorkerPool]:
    (tmp_path / "workers").mkdir()
    table = {f"{name} 1.0 cpu": {"host_bytes": mb * MB, "device_bytes": 0} for name, mb in TAKES_MB.items()}
    (tmp_path / "workers" / "footprints.json").write_text(json.dumps(table))
    terms = Terms(1, BUDGET_MB * MB, "available", tmp_path / "workers")
    made = WorkerPool(lambda _: None, device="cpu", terms=terms)
    yield made
    made.close()


class Readers:
    """Readings side by side, each in a thread; ``ended`` names those that have, in their order."""

    def __init__(self, pool: WorkerPool, cards: dict[str, Card], volume: Callable[[str], Volume]) -> None:
        self._pool, self._cards, self._volume = pool, cards, volume
        self.ended: list[str] = []
        self.faults: dict[str, OverreadError] = {}
        self.threads: list[threading.Thread] = []

    def begin(self, name: str, model: str, deed: str = "well", pace: Pace = Pace.USUAL) -> None:
        def body() -> None:
            try:
                self._pool.read(self._cards[model], [self._volume(deed)], lambda _: None, pace)
            except OverreadError as error:
                self.faults[name] = error
            self.ended.append(name)

        self.threads.append(threading.Thread(target=body))
        self.threads[-1].start()
        time.sleep(0.5)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(30)


@pytest.fixture
def readers(pool: WorkerPool, cards: dict[str, Card], ct_headers: Callable[..., list[Instance]]) -> Iterator[Readers]:
    geometry = stack(ct_headers(6, rows=8, columns=9))
    made = Readers(pool, cards, lambda deed: Volume(mischief.voxels(deed), geometry, ()))
    yield made
    pool.close()
    made.join()


def test_room_is_saved_for_a_large_model_that_has_waited_too_long(
    pool: WorkerPool, cards: dict[str, Card], readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISCHIEF_WINDOWS", "12")
    readers.begin("long", "small", "slow")
    assert pool.refused(list(cards.values())) == set(), "one of each has room"
    readers.begin("also long", "small", "slow")
    assert pool.refused(list(cards.values())) == {"large"}
    readers.begin("patient", "large", pace=Pace.OVERDUE)
    assert pool.refused(list(cards.values())) == {"small", "large"}, "what comes now would take its room"
    readers.begin("later", "small", "slow")
    readers.join()
    assert readers.faults == {}
    assert readers.ended.index("patient") < readers.ended.index("later")


def test_an_urgent_reading_goes_before_those_that_wait_and_ends_nothing_in_vain(
    cards: dict[str, Card], readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The large one is urgent; ending the usual reading of the three gives it room, and who waits does not take it."""
    monkeypatch.setenv("MISCHIEF_WINDOWS", "30")
    readers.begin("usual", "large", "slow")
    readers.begin("waiting", "large")
    began = time.monotonic()
    readers.begin("urgent", "large", pace=Pace.URGENT)
    readers.threads[-1].join(20)
    assert time.monotonic() - began < 5
    readers.join()
    assert readers.ended[:2] == ["usual", "urgent"]
    assert {name: type(fault) for name, fault in readers.faults.items()} == {"usual": Outranked}


def test_nothing_makes_way_that_would_not_make_room() -> None:
    """An overdue one that has made way before keeps its seat: ending the usual one beside it would help nobody."""
    room = Room(1000)
    overdue = Seat("a", "cpu", "cpu", pace=Pace.OVERDUE, held=Footprint(800), stays=True)
    usual = Seat("b", "cpu", "cpu", pace=Pace.USUAL, held=Footprint(100))
    ahead = Seat("c", "cpu", "cpu", pace=Pace.SPARE, held=Footprint(50))
    room.seats += [overdue, usual, ahead]
    room.outrank(Seat("d", "cpu", "cpu", pace=Pace.URGENT, held=Footprint(500)))
    assert not usual.outranked
    assert not ahead.outranked
    room.outrank(Seat("d", "cpu", "cpu", pace=Pace.USUAL, held=Footprint(90)))
    assert ahead.outranked, "what is loaded ahead of need makes way for every reading"
    ahead.outranked = False
    room.outrank(Seat("c", "cpu", "cpu", pace=Pace.USUAL, held=Footprint(90)))
    assert not ahead.outranked, "it is nearly there, and of use"
    room.outrank(Seat("d", "cpu", "cpu", pace=Pace.URGENT, held=Footprint(150)))
    assert ahead.outranked


def test_one_is_ended_when_all_hold_too_much_and_not_another_while_it_ends() -> None:
    room = Room(1000)
    one, other = (Seat(name, "cpu", "cpu", held=Footprint(100)) for name in "ab")
    room.seats += [one, other]
    one.newborn, other.newborn = (cast(WorkerProcess, SimpleNamespace(seen_bytes=n)) for n in (700, 600))
    assert room.overfull() is one
    one.doomed = True
    assert room.overfull() is None


def test_usual_ones_make_way_before_one_that_is_overdue() -> None:
    room = Room(1000)
    overdue, usual = (Seat("a", "cpu", "cpu", pace=pace, held=Footprint(400)) for pace in (Pace.OVERDUE, Pace.USUAL))
    room.seats += [usual, overdue]
    urgent = Seat("d", "cpu", "cpu", pace=Pace.URGENT, held=Footprint(900))
    room.outrank(urgent)
    assert (usual.outranked, overdue.outranked) == (True, False)
    room.seats.remove(usual)
    room.outrank(urgent)
    assert overdue.outranked


def test_the_line_has_the_urgent_first_and_an_overdue_one_does_not_let_them_pass_for_ever() -> None:
    now = time.monotonic()
    room = Room(1000)
    since = {Pace.USUAL: now - 9, Pace.OVERDUE: now - 5, Pace.URGENT: now}
    waits = {pace: Seat(pace, "cpu", "cpu", pace=pace, since=at) for pace, at in since.items()}
    room.line = list(waits.values())
    assert room.before(waits[Pace.URGENT]) == []
    assert room.before(waits[Pace.OVERDUE]) == [waits[Pace.URGENT]]
    assert room.before(waits[Pace.USUAL]) == [waits[Pace.OVERDUE], waits[Pace.URGENT]]
    waits[Pace.OVERDUE].since -= LONGEST_PASS_S
    assert room.before(waits[Pace.URGENT]) == [waits[Pace.OVERDUE]]


def test_loading_ahead_of_need_takes_nobodys_room_and_waits_for_none(
    pool: WorkerPool, cards: dict[str, Card], readers: Readers
) -> None:
    pool.warm(cards["small"], 2)
    assert [one.busy for one in pool.warm_models()] == [False, False], "each can be used as soon as it is loaded"
    pool.warm(read_card(_other(cards)))
    assert set(pool.pids()) == {"small"}
    readers.begin("long", "small", "slow")
    readers.begin("also long", "small", "slow")
    began = time.monotonic()
    pool.warm(cards["large"])
    assert time.monotonic() - began < 1
    assert set(pool.pids()) == {"small"}


def test_an_urgent_reading_does_not_wait_for_what_is_being_loaded_ahead_of_need(
    pool: WorkerPool, cards: dict[str, Card], readers: Readers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MISCHIEF_LOADS_S", "8")
    warming = threading.Thread(target=pool.warm_all, args=([cards["large"]], 2))
    warming.start()
    time.sleep(1.0)
    monkeypatch.setenv("MISCHIEF_LOADS_S", "0")
    assert warming.is_alive()
    assert pool.refused(list(cards.values())) == set(), "it makes way"
    monkeypatch.setitem(cards, "other", read_card(_other(cards)))
    began = time.monotonic()
    readers.begin("urgent", "other", pace=Pace.URGENT)
    readers.join()
    assert time.monotonic() - began < 5
    assert readers.faults == {}
    warming.join(3)
    assert not warming.is_alive()


def _other(cards: dict[str, Card]) -> Path:
    return mischief.model(cards["small"].folder.parent, "other", "timeout_s = 20\nmemory_mb = 350")


def test_no_model_is_believed_to_be_larger_than_all_there_is(cards: dict[str, Card]) -> None:
    assert Footprints(None, GB).need(cards["small"], "cpu").host_bytes == GB
    assert Footprints().need(cards["small"], "cpu").host_bytes > GB


def test_what_took_more_than_it_may_is_told_with_the_key_that_sets_it(readers: Readers) -> None:
    readers.begin("greedy", "small", "swell")
    readers.join()
    assert "schedule.memory_gb says how much it may hold (400 MB)" in str(readers.faults["greedy"])
