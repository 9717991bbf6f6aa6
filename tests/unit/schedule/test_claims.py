"""Who is read first: urgency, deadlines, and those that have waited too long; and who is canceled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlmodel import col, update

from overread.domain.death import Death
from overread.domain.errors import Refused, WorkerLost
from overread.domain.events import DeadlineMissed, Event, JobClaimed
from overread.domain.result import Result
from overread.domain.study import Instance
from overread.ledger import Ledger, arrivals, canceled, deaths, deliveries, jobs, views
from overread.ledger.arrivals import Arrival
from overread.ledger.jobs import Plan, Wanted
from overread.ledger.tables import JobRow
from overread.schedule.claims import watch_deadlines
from overread.schedule.shift import Shift, Terms

from .conftest import STUDY, card

SEG = Result("seg", "1.2.840", "1.2.9", "1.2.8", STUDY, "1.2.840.10008.1.2.1", "results/1/seg.dcm", "00")
STAT, ROUTINE = ("STAT", 2000), ("ROUTINE", 0)
Queue = Callable[..., None]


@pytest.fixture
def queue(ledger: Ledger, ct_headers: Callable[..., list[Instance]]) -> Queue:
    """``queue("a", STAT, waits=60, deadline=…)``: a study of that name with one job, planned so many seconds ago."""

    def put(
        name: str,
        urgency: tuple[str, int] = ROUTINE,
        *,
        waits: float = 0.0,
        deadline_s: float = 0.0,
        model: str = "lungs",
    ) -> None:
        came = [replace(i, study_uid=name, path=f"{name}{i.sop_instance_uid}") for i in ct_headers(2)]
        arrivals.record(ledger, [Arrival(i, 1, time.time() - waits) for i in came])
        waiting = next(w for w in arrivals.waiting(ledger) if w.study_uid == name)
        assert arrivals.complete(ledger, waiting, time.time()) == 1
        wanted = Plan(model, "1", "1.2.3", name, urgency[1], "", urgency[0], deadline_s=deadline_s)
        assert jobs.plan(ledger, name, 1, [], [wanted]) is not None
        with ledger.write() as session:
            old = update(JobRow).where(col(JobRow.study_uid) == name).values(created_at=time.time() - waits)
            session.exec(old)

    return put


def claimed(ledger: Ledger, **wanted: Any) -> str | None:
    moved = jobs.claim(ledger, "w", 30.0, Wanted(**wanted))
    return moved.job.study_uid if moved else None


def test_stat_goes_before_routine_and_the_earlier_deadline_before_the_later(ledger: Ledger, queue: Queue) -> None:
    queue("old", waits=100)
    queue("later", deadline_s=4000)
    queue("sooner", deadline_s=3000)
    queue("urgent", STAT)
    assert [claimed(ledger) for _ in range(5)] == ["urgent", "sooner", "later", "old", None]


def test_what_has_waited_too_long_goes_before_all_when_its_turn_comes(ledger: Ledger, queue: Queue) -> None:
    """Half of the time until a deadline gone is as bad as the longest wait."""
    queue("patient", waits=90)
    queue("impatient", waits=60, deadline_s=100)
    for n in range(4):
        queue(f"urgent {n}", STAT)
    order = [claimed(ledger, longest_wait_s=80, overdue_first=n % 2 == 1) for n in range(5)]
    assert order == ["urgent 0", "patient", "urgent 1", "impatient", "urgent 2"]


def test_a_routine_job_waits_no_longer_than_it_may_however_many_stat_jobs_come(ledger: Ledger, queue: Queue) -> None:
    seen: list[str] = []
    events: list[Event] = []

    def read(job: Any, *_: Any) -> list[Result]:
        seen.append(job.study_uid)
        if len(seen) < 12:
            queue(f"urgent {len(seen)}", STAT)
        return []

    queue("routine", waits=60)
    queue("urgent 0", STAT)
    shift = Shift(ledger, {"lungs": card()}, read, {}, events.append, terms=Terms("w", 30.0, 0.1, longest_wait_s=5.0))
    shift.start(1)
    deadline = time.monotonic() + 10
    while len(seen) < 12 and time.monotonic() < deadline:
        time.sleep(0.02)
    shift.stop(5, lambda: None)
    assert seen[:2] == ["urgent 0", "routine"]
    assert any(e.overdue for e in events if isinstance(e, JobClaimed))


def test_models_without_room_are_left_and_an_express_slot_takes_stat_only(ledger: Ledger, queue: Queue) -> None:
    queue("a", model="large")
    queue("b", model="small")
    queue("c", STAT, model="small")
    assert claimed(ledger, urgent_only=True) == "c"
    assert claimed(ledger, urgent_only=True) is None
    assert claimed(ledger, without={"large"}) == "b"
    assert claimed(ledger, without={"large"}) is None
    assert claimed(ledger) == "a"


def test_a_stat_job_is_taken_without_room_for_others_make_way(ledger: Ledger, queue: Queue) -> None:
    queue("a", model="large")
    queue("b", STAT, model="large")
    assert claimed(ledger, without={"large"}) == "b"
    assert claimed(ledger, without={"large"}) is None


def test_a_job_without_room_that_has_waited_too_long_is_taken_in_its_turn(ledger: Ledger, queue: Queue) -> None:
    """It waits for its room then; the younger ones of small models do not go before it for ever."""
    queue("large", waits=60, model="large")
    for n in range(4):
        queue(f"small {n}", waits=30, model="small")
    terms = {"without": {"large"}, "longest_wait_s": 20.0}
    assert claimed(ledger, **terms) == "small 0"
    assert claimed(ledger, overdue_first=True, **terms) == "large"
    assert claimed(ledger, overdue_first=True, without={"large"}, longest_wait_s=50.0) == "small 1"


def test_a_deadline_that_is_missed_is_told_once(ledger: Ledger, queue: Queue) -> None:
    queue("late", waits=60, deadline_s=30)
    queue("early", waits=60, deadline_s=300)
    events: list[Event] = []
    assert watch_deadlines(ledger, time.time(), events.append) == 1
    assert watch_deadlines(ledger, time.time(), events.append) == 0
    assert events == [DeadlineMissed("lungs")]


def test_three_processes_are_enough(ledger: Ledger, queue: Queue) -> None:
    """The card allows ten attempts; each death leaves its evidence; sent back by a person it begins anew."""
    queue("bad")
    tries = []

    def read(*_: Any) -> list[Result]:
        tries.append(1)
        raise WorkerLost("it was ended by SIGSEGV", "crash", Death("crash", "SIGSEGV", None, 5 << 20, "last words"))

    models = {"lungs": card(attempts=10)}
    shift = Shift(ledger, models, read, {}, lambda _: None, terms=Terms("w", 30.0, 0.01))
    shift.start(1)
    until(lambda: state(ledger, "bad") == "FAILED")
    shift.stop(5, lambda: None)
    assert len(tries) == 3
    (job,) = views.jobs_in(ledger, [jobs.JobState.FAILED], 5)
    assert [attempt for attempt, _ in deaths.of_job(ledger, job.id or 0)] == [1, 2, 3]
    assert str(deaths.of_job(ledger, job.id or 0)[0][1]) == "ended by SIGSEGV, 5 MB at most"
    assert canceled.requeue(ledger, job.id or 0, "a person").before == "FAILED"
    (job,) = views.jobs_in(ledger, [jobs.JobState.SCHEDULED], 5)
    assert (job.kills, job.attempts) == (0, 0)


def test_a_canceled_job_is_left_within_a_second(ledger: Ledger, queue: Queue) -> None:
    queue("unwanted")
    left: list[float] = []

    def read(_job: Any, _card: Any, progress: Callable[[float], None]) -> list[Result]:
        try:
            while True:
                progress(0.5)
                time.sleep(0.02)
        finally:
            left.append(time.monotonic())

    shift = Shift(ledger, {"lungs": card()}, read, {"pacs": ("seg",)}, lambda _: None, terms=Terms("w", 30.0, 0.1))
    shift.start(1)
    until(lambda: state(ledger, "unwanted") == "RUNNING")
    (job,) = views.jobs_in(ledger, [jobs.JobState.RUNNING], 5)
    asked = time.monotonic()
    assert canceled.cancel(ledger, job.id or 0, "a person").move.before == "RUNNING"
    until(lambda: bool(left))
    assert left[0] - asked < 1.0
    queue("wanted")
    until(lambda: state(ledger, "wanted") == "RUNNING")
    assert state(ledger, "unwanted") == "CANCELED"
    canceled.cancel_study(ledger, "wanted", "a person")
    shift.stop(5, lambda: None)


def test_canceled_in_delivery_nothing_more_leaves(ledger: Ledger, queue: Queue) -> None:
    queue("half sent")
    moved = jobs.claim(ledger, "w", 30.0)
    assert moved is not None
    assert deliveries.put(ledger, moved.job.id, "w", [SEG], {"pacs": ("seg",), "viewer": ("seg",)}) is not None
    one = canceled.cancel(ledger, moved.job.id, "a person")
    assert (one.dropped, one.arrived, one.move.before) == (2, 0, "DELIVERING")
    with pytest.raises(Refused, match="is CANCELED; there is nothing to cancel"):
        canceled.cancel(ledger, moved.job.id, "a person")
    with pytest.raises(Refused, match="there is no job 99"):
        canceled.cancel(ledger, 99, "a person")


def test_a_study_that_no_model_has_met_meets_none_until_it_changes(
    ledger: Ledger, ct_headers: Callable[..., list[Instance]]
) -> None:
    arrivals.record(ledger, [Arrival(i, 1, 5.0) for i in ct_headers(2)])
    uid = ct_headers(1)[0].study_uid
    assert canceled.cancel_study(ledger, uid, "a person") == []
    (waiting,) = arrivals.waiting(ledger)
    arrivals.complete(ledger, waiting, 6.0)
    assert arrivals.unrouted(ledger) == []
    told = views.story(ledger, uid)
    assert told is not None
    assert [d.reason for d in told.decisions] == ["canceled by a person before any model had met it"]
    arrivals.record(ledger, [Arrival(i, 1, 7.0) for i in ct_headers(3)])
    (waiting,) = arrivals.waiting(ledger)
    arrivals.complete(ledger, waiting, 8.0)
    assert [study.revision for study in arrivals.unrouted(ledger)] == [2]
    with pytest.raises(Refused, match="no instance of study"):
        canceled.cancel_study(ledger, "9.9", "a person")


def state(ledger: Ledger, study: str) -> str:
    told = views.story(ledger, study)
    return told.jobs[-1].row.state if told and told.jobs else ""


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
