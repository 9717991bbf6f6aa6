"""Each claimed job ends in the ledger as its reading ended, and an attempt that came too late leaves no trace."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from overread.domain.card import Card
from overread.domain.errors import CardError, Stumbled, Unfit, WorkerLost
from overread.domain.events import Event, JobMoved, Trouble
from overread.domain.job import Job, JobEvent
from overread.domain.result import DeliveryState, Result
from overread.ledger import Ledger, deliveries, jobs, views
from overread.ledger.tables import JobRow
from overread.schedule.shift import Shift, Terms

from .conftest import STUDY, card

SEG = Result("seg", "1.2.840", "1.2.9", "1.2.8", STUDY, "1.2.840.10008.1.2.1", "results/1/seg.dcm", "00")
Planned = Callable[..., None]


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def shift(ledger: Ledger, events: list[Event]) -> Iterator[Callable[..., Shift]]:
    """``shift(read)``: a shift that has begun."""
    running: list[Shift] = []

    def start(read: Callable[..., Any], cards: list[Card] | None = None, slots: int = 1, **options: Any) -> Shift:
        known = {c.name: c for c in (cards if cards is not None else [card()])}
        kinds = options.pop("kinds", {"pacs": ("seg",)})
        given = {"worker": "w1", "lease_s": 30.0, "retry_s": 0.05, **options}
        made = Shift(ledger, known, read, kinds, events.append, terms=Terms(**given))
        made.start(slots)
        running.append(made)
        return made

    yield start
    for each in running:
        each.stop(5, lambda: None)


def rows(ledger: Ledger) -> list[JobRow]:
    told = views.story(ledger, STUDY)
    return [job.row for job in told.jobs] if told else []


def until_state(ledger: Ledger, *states: str, patience_s: float = 5.0) -> list[JobRow]:
    deadline = time.monotonic() + patience_s
    while [row.state for row in rows(ledger)] != list(states):
        assert time.monotonic() < deadline, [(row.state, row.reason) for row in rows(ledger)]
        time.sleep(0.01)
    return rows(ledger)


def failing(*errors: Exception) -> tuple[Callable[..., list[Result]], list[float]]:
    """A reading that raises each error in turn and then succeeds; and when it was tried."""
    left, tried = list(errors), []

    def read(*_: Any) -> list[Result]:
        tried.append(time.monotonic())
        if left:
            raise left.pop(0)
        return [SEG]

    return read, tried


def test_a_reading_that_succeeds_goes_to_delivery(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], events: list[Event]
) -> None:
    planned("a")
    seen: list[tuple[Job, Card]] = []

    def read(job: Job, model: Card, progress: Callable[[float], None]) -> list[Result]:
        seen.append((job, model))
        progress(0.5)
        return [SEG]

    shift(read)
    (row,) = until_state(ledger, "DELIVERING")
    assert (row.progress, row.reason, row.worker) == (1.0, "made seg", "w1")
    assert [(job.id, model.name) for job, model in seen] == [(row.id, "lungs")]
    told = views.story(ledger, STUDY)
    assert told is not None
    assert [(d.destination, d.state) for d in told.jobs[0].deliveries] == [("pacs", "PENDING")]
    moves = [(e.before, e.after, e.why) for e in events if isinstance(e, JobMoved)]
    assert moves == [("SCHEDULED", "RUNNING", "attempt 1"), ("RUNNING", "DELIVERING", "read")]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Unfit("the stack is sheared by 12.0° (gantry tilt)"), "NOT_APPLICABLE", "the stack is sheared by 12.0°"),
        (CardError("no weights"), "FAILED", "no weights (attempt 1 of 3)"),
    ],
)
def test_what_would_end_the_same_again_is_not_tried_again(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], *, error: Exception, state: str, reason: str
) -> None:
    planned("a")
    read, tried = failing(error)
    shift(read)
    (row,) = until_state(ledger, state)
    assert row.reason.startswith(reason)
    time.sleep(0.15)
    assert len(tried) == 1


def test_a_stumble_is_tried_again_with_growing_patience(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift]
) -> None:
    planned("a")
    read, tried = failing(Stumbled("once"), WorkerLost("twice"))
    shift(read, retry_s=0.2)
    (row,) = until_state(ledger, "DELIVERING")
    assert row.attempts == 2
    first, second = (b - a for a, b in itertools.pairwise(tried))
    assert first >= 0.2
    assert second >= 0.4


def test_it_is_given_up_after_the_last_attempt(ledger: Ledger, planned: Planned, shift: Callable[..., Shift]) -> None:
    planned("a")
    read, tried = failing(*(WorkerLost("the model's process was ended by SIGSEGV") for _ in range(9)))
    shift(read)
    (row,) = until_state(ledger, "FAILED")
    assert row.reason == "the model's process was ended by SIGSEGV (attempt 3 of 3)"
    assert len(tried) == 3


def test_a_fault_of_a_library_ends_the_attempt_without_telling_its_text(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], events: list[Event]
) -> None:
    """Texts of strangers' exceptions may carry a patient's name."""
    planned("a")
    read, _ = failing(KeyError("Müller^Jörg"))
    shift(read)
    until_state(ledger, "DELIVERING")
    told = views.story(ledger, STUDY)
    assert told is not None
    assert [e.why for e in told.jobs[0].events if e.event == "stumbled"] == ["KeyError in this attempt"]
    assert Trouble("journey", "KeyError") in events
    assert not any("Müller" in str(e) for e in events)


def test_a_model_that_is_gone_fails_its_job_with_the_reason(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift]
) -> None:
    planned("a", "heart")
    shift(failing()[0])
    (row,) = until_state(ledger, "FAILED")
    assert row.reason.startswith("model heart 1 is no longer installed")


def test_a_job_that_was_superseded_while_it_ran_leaves_no_trace(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift]
) -> None:
    planned("a")
    entered, leave = threading.Event(), threading.Event()

    def read(job: Job, *_: Any) -> list[Result]:
        entered.set()
        assert leave.wait(5)
        return [SEG] if job.input_digest == "a" else []

    shift(read)
    assert entered.wait(5)
    planned("b")
    leave.set()
    until_state(ledger, "SUPERSEDED", "DELIVERING")
    told = views.story(ledger, STUDY)
    assert told is not None
    assert [(job.results, job.deliveries) for job in told.jobs] == [([], []), ([], [])]


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_whose_lease_was_lost_leaves_no_trace(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], fails: bool
) -> None:
    planned("a")
    entered, leave = threading.Event(), threading.Event()

    def read(*_: Any) -> list[Result]:
        entered.set()
        assert leave.wait(5)
        if fails:
            raise Unfit("so it seems")
        return [SEG]

    begun = shift(read)
    assert entered.wait(5)
    assert jobs.lapse(ledger, time.time() + 999)
    assert jobs.claim(ledger, "w2", 60) is not None
    leave.set()
    begun.stop(5, lambda: None)
    (row,) = rows(ledger)
    assert (row.state, row.worker) == ("RUNNING", "w2")
    told = views.story(ledger, STUDY)
    assert told is not None
    assert told.jobs[0].results == []


def test_a_long_reading_keeps_its_lease_and_shows_its_progress(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift]
) -> None:
    planned("a")
    leave = threading.Event()

    def read(_job: Job, _card: Card, progress: Callable[[float], None]) -> list[Result]:
        progress(0.4)
        assert leave.wait(10)
        return [SEG]

    shift(read, lease_s=0.5)
    time.sleep(1.2)
    assert jobs.lapse(ledger, time.time()) == []
    assert rows(ledger)[0].progress == pytest.approx(0.4)
    leave.set()
    until_state(ledger, "DELIVERING")


def test_stop_gives_the_running_job_back_uncounted(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], events: list[Event]
) -> None:
    planned("a")
    entered, interrupted = threading.Event(), threading.Event()

    def read(*_: Any) -> list[Result]:
        entered.set()
        assert interrupted.wait(5)
        raise WorkerLost("the model's process was ended by SIGKILL")

    begun = shift(read)
    assert entered.wait(5)
    begun.stop(5, interrupted.set)
    (row,) = rows(ledger)
    assert (row.state, row.attempts, row.reason) == ("SCHEDULED", 0, "the service was stopped")
    assert ("RUNNING", "SCHEDULED") in {(e.before, e.after) for e in events if isinstance(e, JobMoved)}


def test_a_worker_that_starts_again_gives_back_what_it_held(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift]
) -> None:
    """The process was killed; its leases would run for half a minute."""
    planned("a")
    assert jobs.claim(ledger, "w1", 999) is not None
    shift(failing()[0])
    until_state(ledger, "DELIVERING")


def test_slots_read_at_the_same_time(ledger: Ledger, planned: Planned, shift: Callable[..., Shift]) -> None:
    planned("a", "lungs", "heart")
    together = threading.Barrier(2)

    def read(*_: Any) -> list[Result]:
        together.wait(5)
        return []

    shift(read, [card("lungs"), card("heart")], slots=2)
    until_state(ledger, "DELIVERING", "DELIVERING")


def test_a_ledger_that_is_away_is_told_and_waited_for(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned("a")
    real, away = jobs.claim, [2]

    def claim(*args: Any) -> Any:
        away[0] -= 1
        if away[0] >= 0:
            raise ConnectionError("the database is away")
        return real(*args)

    monkeypatch.setattr(jobs, "claim", claim)
    monkeypatch.setattr("overread.schedule.shift.IDLE_S", 0.02)
    shift(failing()[0])
    until_state(ledger, "DELIVERING")
    assert events[:2] == [Trouble("schedule", "ConnectionError")] * 2


def test_a_canceled_job_stays_canceled(ledger: Ledger, planned: Planned, shift: Callable[..., Shift]) -> None:
    planned("a")
    entered, leave = threading.Event(), threading.Event()

    def read(*_: Any) -> list[Result]:
        entered.set()
        assert leave.wait(5)
        return [SEG]

    begun = shift(read)
    assert entered.wait(5)
    assert jobs.move(ledger, rows(ledger)[0].id or 0, JobEvent.CANCEL, "Ada", "not needed")
    leave.set()
    begun.stop(5, lambda: None)
    assert [row.state for row in rows(ledger)] == ["CANCELED"]


def test_a_slot_that_does_not_come_back_is_stuck(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned("a")
    entered, leave = threading.Event(), threading.Event()

    def read(*_: Any) -> list[Result]:
        entered.set()
        leave.wait(10)
        return []

    begun = shift(read, [card(timeout_s=100)])
    assert entered.wait(5)
    now = time.monotonic()
    for later, stuck in [(200, []), (300, ["slot 0"])]:
        monkeypatch.setattr("overread.schedule.shift.time.monotonic", lambda later=later: now + later)
        found = begun.stuck()
        monkeypatch.undo()
        assert found == stuck
    leave.set()


def test_that_nothing_could_be_analysed_is_delivered_while_the_job_has_ended(
    ledger: Ledger, planned: Planned, shift: Callable[..., Shift], events: list[Event]
) -> None:
    """NOT_APPLICABLE is the end of the job; the report goes through the outbox all the same, to whoever takes it."""
    planned("a")
    error = Unfit("the stack is sheared by 12.0° (gantry tilt)")
    error.results = [replace(SEG, kind="unfit")]
    read, _ = failing(error)
    shift(read, kinds={"pacs": ("seg", "unfit"), "archive": ("seg",)})
    until_state(ledger, "NOT_APPLICABLE")
    terms = deliveries.Claim("out", 60.0, 50, in_order=True)
    taken = {to: deliveries.claim(ledger, to, DeliveryState.PENDING, terms) for to in ("pacs", "archive")}
    (only,) = taken["pacs"]
    assert only.result.kind == "unfit"
    assert taken["archive"] == []
    assert deliveries.settle(ledger) == []
    assert [e.why for e in events if isinstance(e, JobMoved)][-1] == str(error)
    # Until it has arrived, its file must stay in the spool.
    assert views.disposable(ledger, 1e12) == []
    assert deliveries.mark(ledger, "out", [deliveries.Mark(only.id, DeliveryState.VERIFIED)]) == {only.id}
    assert views.disposable(ledger, 1e12) == [STUDY]
