"""The outbox: what becomes of a delivery after each answer, with a real ledger and a destination that does as told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from outgoing import fill, rows

from overread.console.deliveries import one_line, standings
from overread.deliver.commitment import take_answers
from overread.deliver.outbox import Outbox
from overread.deliver.patience import Patience
from overread.deliver.round import Round, Terms
from overread.deliver.sweep import DAY_S, Sweep, Swept
from overread.domain import events
from overread.domain.delivery import Item, Outcome, Proven, Standing, Told
from overread.domain.errors import NoConnection, Rejected, Unreachable
from overread.ledger import Ledger, destinations, letters, open_ledger
from overread.ledger.tables import DeliveryRow
from overread.spool.answers import AnswerBox, CommitmentAnswer


@dataclass
class Obedient:
    """A destination that answers as it is told; ``sent`` and ``asked`` are SOP Instance UIDs in their order."""

    name: str = "pacs"
    says: Callable[[Item], Told] = lambda _: Told(Outcome.TAKEN)
    stands: Callable[[Item], Proven] = lambda _: Proven(Standing.THERE)
    fault: Exception | None = None
    sent: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def send(self, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        for item in items:
            self._fail()
            self.sent.append(item.result.sop_instance_uid)
            told = self.says(item)
            yield item, told
            if told.outcome is Outcome.BUSY:
                return

    def prove(self, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        for item in items:
            self._fail()
            self.asked.append(item.result.sop_instance_uid)
            yield item, self.stands(item)

    def check(self) -> str:
        self._fail()
        return "it answers"

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault


@dataclass
class House:
    """Three results of one job on their way to one destination."""

    ledger: Ledger
    there: Obedient
    outbox: Outbox
    told: list[events.Event]
    folder: Path

    def rows(self) -> list[DeliveryRow]:
        return rows(self.ledger)

    def states(self) -> list[tuple[str, str]]:
        return [(r.state, r.cause) for r in self.rows()]

    def turns(self, count: int = 1) -> None:
        for _ in range(count):
            self.outbox.work()

    def outcomes(self) -> list[str]:
        return [e.outcome for e in self.told if isinstance(e, events.DeliveryTried)]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    fill(tmp_path, 1, 3, {"pacs": ("seg", "sr")})
    ledger, there, told = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), Obedient(), list[events.Event]()
    terms = Terms(Patience(0.01, 0.02, 100.0), "test")
    yield House(ledger, there, Outbox(ledger, there, terms, (tmp_path / "spool").joinpath, told.append), told, tmp_path)
    ledger.close()


def test_what_is_taken_and_proven_is_verified_and_its_arrival_told_once(house: House) -> None:
    house.turns(2)
    assert house.states() == [("VERIFIED", "")] * 3
    assert house.outcomes() == ["sent"] * 3 + ["verified"] * 3
    assert [type(e).__name__ for e in house.told].count("ResultArrived") == 1
    assert [r.attempts for r in house.rows()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("outcome", "state", "cause"),
    [
        (Outcome.REFUSED, "FAILED", "refused"),
        (Outcome.MISCONFIGURED, "FAILED", "misconfigured"),
        (Outcome.BUSY, "PENDING", "busy"),
        (Outcome.WARNED, "VERIFIED", "warned"),
        (Outcome.DUPLICATE, "VERIFIED", ""),
        (Outcome.PASSED_OVER, "DROPPED", "passed-over"),
    ],
)
def test_each_answer_leads_to_its_state_and_holds_up_nothing_else(
    house: House, outcome: Outcome, state: str, cause: str
) -> None:
    second = house.rows()[1].sop_instance_uid
    said = Told(outcome, "it answered something")
    house.there.says = lambda i: said if i.result.sop_instance_uid == second else Told(Outcome.TAKEN)
    house.outbox._rounds[0].terms = Terms(Patience(100.0, 200.0, 1000.0), "test", in_order=False)
    house.turns(2)
    assert house.states()[1] == (state, cause)
    assert [s for s, _ in house.states()][::2] == ["VERIFIED", "VERIFIED"]
    if outcome in (Outcome.REFUSED, Outcome.MISCONFIGURED, Outcome.WARNED):
        assert "it answered something" in house.rows()[1].reason


def test_nothing_of_a_study_overtakes_what_waits_where_order_is_asked(house: House) -> None:
    first = house.rows()[0].sop_instance_uid
    house.there.says = lambda i: Told(Outcome.BUSY if i.result.sop_instance_uid == first else Outcome.TAKEN)
    house.turns(1)
    assert house.there.sent == [first]
    time.sleep(0.05)
    house.there.says = lambda _: Told(Outcome.TAKEN)
    house.turns(2)
    assert house.there.sent == [first, *(r.sop_instance_uid for r in house.rows())]


def test_what_is_missing_is_asked_for_again_and_then_sent_again(house: House) -> None:
    lost = house.rows()[2].sop_instance_uid

    def stands(item: Item) -> Proven:
        found = item.result.sop_instance_uid != lost or house.there.sent.count(lost) > 1
        return Proven(Standing.THERE if found else Standing.MISSING, "it is not found there")

    house.there.stands = stands
    house.turns(1)
    assert house.states()[2] == ("SENT", "unproven")
    for _ in range(6):
        time.sleep(0.03)
        house.turns(1)
    assert house.states() == [("VERIFIED", "")] * 3
    assert house.there.sent.count(lost) == 2
    assert len(house.there.sent) == 4


def test_what_stays_altered_is_a_dead_letter_after_its_second_try(house: House) -> None:
    house.there.stands = lambda _: Proven(Standing.ALTERED, "it differs")
    for _ in range(5):
        time.sleep(0.03)
        house.turns(1)
    assert house.states() == [("FAILED", "altered")] * 3
    assert [r.attempts for r in house.rows()] == [2, 2, 2]


def test_without_a_proof_nothing_is_called_verified(house: House) -> None:
    house.there.stands = lambda _: Proven(Standing.UNASKED)
    house.turns(2)
    assert house.states() == [("ACCEPTED", "")] * 3


def test_a_destination_that_cannot_be_asked_makes_dead_letters_with_the_remedy(house: House) -> None:
    def stands(_: Item) -> Proven:
        raise Rejected("configuration fault: choose another proof")

    house.there.stands = stands
    house.turns(2)
    assert house.states() == [("FAILED", "misconfigured")] * 3
    assert "choose another proof" in house.rows()[0].reason


def test_what_had_not_left_when_a_connection_failed_counts_as_never_sent(house: House) -> None:
    house.there.fault = NoConnection("nothing listens there")
    house.turns(1)
    assert [(r.state, r.cause, r.exposed) for r in house.rows()] == [("PENDING", "unreachable", False)] * 3
    assert [r.attempts for r in house.rows()] == [1, 0, 0]
    time.sleep(0.05)
    house.there.fault = Unreachable("it fell silent")
    house.turns(1)
    assert [r.exposed for r in house.rows()] == [True, False, False], "the first may be there"


def test_the_breaker_opens_is_probed_and_closes_and_everything_goes_at_once(house: House) -> None:
    house.outbox._patience = Patience(0.3, 0.3, 100.0)
    house.outbox._rounds[0].terms = Terms(Patience(0.01, 0.01, 100.0), "test")
    house.there.fault = NoConnection("nothing listens there")
    for _ in range(3):
        time.sleep(0.02)
        house.turns(1)
    assert destinations.stand(house.ledger, "pacs").is_open
    assert [(e.open, e.reason) for e in house.told if isinstance(e, events.DestinationTurned)] == [
        (True, "nothing listens there")
    ]
    assert any("nothing is sent since" in line for line in standings(house.ledger, time.time()))
    house.there.fault = None
    house.turns(3)
    assert house.there.sent == [], "not before its time"
    time.sleep(0.35)
    house.turns(5)
    assert house.states() == [("VERIFIED", "")] * 3
    assert destinations.stand(house.ledger, "pacs").failures == 0


def test_what_was_tried_for_too_long_is_given_up_also_while_the_breaker_is_open(house: House) -> None:
    house.outbox._patience = Patience(0.01, 0.01, 0.2)
    house.there.fault = NoConnection("nothing listens there")
    for _ in range(12):
        time.sleep(0.04)
        house.turns(1)
    assert {state for state in house.states()} == {("FAILED", "gave-up")}
    assert "nothing listens there" in house.rows()[0].reason


def test_a_list_tells_why_a_delivery_waits_and_until_when(house: House) -> None:
    house.there.fault = NoConnection("nothing listens there")
    house.outbox._rounds[0].terms = Terms(Patience(100.0, 100.0, 1000.0), "test")
    house.turns(1)
    line = one_line(letters.letters(house.ledger)[0], {})
    assert "PENDING   pacs  seg of job 1  1 try  nothing listens there; next try at 20" in line


def test_a_sweep_finds_what_is_gone_and_sends_it_again(house: House) -> None:
    house.turns(2)
    gone = house.rows()[0].sop_instance_uid
    missing = Proven(Standing.MISSING, "it is not found there")
    house.there.stands = lambda i: missing if i.result.sop_instance_uid == gone else Proven(Standing.THERE)
    terms = Terms(Patience(0.01, 0.02, 100.0), "sweep")
    one = Round(house.ledger, house.there, terms, (house.folder / "spool").joinpath, house.told.append)
    sweep = Sweep(house.ledger, one, 3.0, house.told.append)
    assert sweep.now(time.time()) == Swept(3, 2, 1)
    assert [e.count for e in house.told if isinstance(e, events.DeliveriesLost)] == [1]
    assert house.states()[0] == ("PENDING", "lost")
    house.there.stands = lambda _: Proven(Standing.THERE)
    house.turns(2)
    assert house.states()[0] == ("VERIFIED", "")
    assert sweep.now(time.time() + 4 * DAY_S) == Swept(), "what was proven longer ago is left alone"


def test_a_sweep_is_made_once_a_night(house: House) -> None:
    from datetime import datetime

    terms = Terms(Patience(0.01, 0.02, 100.0), "sweep")
    one = Round(house.ledger, house.there, terms, (house.folder / "spool").joinpath, house.told.append)
    sweep = Sweep(house.ledger, one, 3.0, house.told.append)
    night = datetime(2026, 11, 21, 2, 30).timestamp()
    hours = [night + hour * 3600 for hour in (-10, 0, 1, 12, 24, 24 + 8, 48 + 14)]
    assert [sweep.if_due(lambda at=at: at) is not None for at in hours] == [
        *(False, True, False, False, True, False),
        True,  # the last night was missed
    ]
    assert Sweep(house.ledger, one, 0.0, house.told.append).if_due(lambda: night + 96 * 3600) is None


def test_answers_to_storage_commitment_are_taken_in_parts_and_by_whoever_asked(house: House) -> None:
    awaited = Proven(Standing.AWAITED, "storage commitment is awaited", "2.25.1", 100.0)
    house.there.stands = lambda _: awaited
    house.turns(2)
    assert house.states() == [("SENT", "awaited")] * 3
    first, second, third = (r.sop_instance_uid for r in house.rows())
    box = AnswerBox(house.folder / "answers")
    box.put(CommitmentAnswer("2.25.9", frozenset({first})))
    box.put(CommitmentAnswer("2.25.1", frozenset({first, second}), {third: 0x0112}))
    assert take_answers(house.ledger, box, house.told.append) == 3
    assert house.states() == [("VERIFIED", ""), ("VERIFIED", ""), ("PENDING", "unproven")]
    assert [a.transaction_uid for _, a in box.answers()] == ["2.25.9"]
    house.turns(1)
    assert house.there.sent.count(third) == 2


def test_two_processes_never_send_the_same(tmp_path: Path) -> None:
    fill(tmp_path, 40, 3, {"pacs": ("seg", "sr")})
    url, told = f"sqlite:///{tmp_path / 'ledger.sqlite'}", list[events.Event]()
    there = Obedient()
    books = [open_ledger(url) for _ in range(2)]
    boxes: list[Any] = [
        Outbox(
            ledger,
            there,
            Terms(Patience(0.1, 1.0, 100.0), f"process {n}"),
            (tmp_path / "spool").joinpath,
            told.append,
            concurrency=3,
        )
        for n, ledger in enumerate(books)
    ]
    for box in boxes:
        box.start()
    deadline = time.monotonic() + 30
    while {r.state for r in rows(books[0])} != {"VERIFIED"} and time.monotonic() < deadline:
        time.sleep(0.1)
    for box in boxes:
        box.stop()
    assert sorted(there.sent) == sorted(set(there.sent))
    assert len(there.sent) == 120
    assert not boxes[0].stuck()
    for ledger in books:
        ledger.close()
