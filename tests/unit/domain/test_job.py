"""The table of a job's life."""

from __future__ import annotations

import itertools

import pytest

from overread.domain import job
from overread.domain.job import ENDED, TRANSITIONS, JobEvent, JobState

S, E = JobState, JobEvent

DRAWN = {
    (S.SCHEDULED, E.CLAIM, S.RUNNING),
    (S.RUNNING, E.READ, S.DELIVERING),
    (S.DELIVERING, E.VERIFIED, S.COMPLETED),
    (S.RUNNING, E.STUMBLED, S.SCHEDULED),
    (S.RUNNING, E.LOST, S.SCHEDULED),
    (S.RUNNING, E.UNFIT, S.NOT_APPLICABLE),
    (S.RUNNING, E.GAVE_UP, S.FAILED),
    (S.DELIVERING, E.GAVE_UP, S.FAILED),
    (S.SCHEDULED, E.CANCEL, S.CANCELED),
    (S.RUNNING, E.CANCEL, S.CANCELED),
    (S.DELIVERING, E.CANCEL, S.CANCELED),
    (S.FAILED, E.CANCEL, S.CANCELED),
    (S.FAILED, E.REQUEUE, S.SCHEDULED),
    (S.CANCELED, E.REQUEUE, S.SCHEDULED),
    (S.FAILED, E.RESEND, S.DELIVERING),
} | {(state, E.SUPERSEDE, S.SUPERSEDED) for state in S if state not in (S.CANCELED, S.SUPERSEDED)}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_every_pair_of_state_and_event_does_what_the_drawing_says(state: JobState, event: JobEvent) -> None:
    drawn = {after for before, happened, after in DRAWN if (before, happened) == (state, event)}
    assert TRANSITIONS.get((state, event)) == next(iter(drawn), None)


def test_the_drawing_names_every_state_and_event() -> None:
    text = job.__doc__ or ""
    assert all(state.value in text for state in S)
    assert all(event.value.replace("supersede", "superseded") in text for event in E)


def test_every_state_can_be_reached_and_every_event_happens() -> None:
    reached = {S.SCHEDULED, *TRANSITIONS.values()}
    assert reached == set(S)
    assert {event for _, event in TRANSITIONS} == set(E)


def test_from_every_state_that_has_not_ended_an_end_can_be_reached() -> None:
    for start in set(S) - ENDED:
        seen, todo = {start}, [start]
        while todo:
            now = todo.pop()
            following = {after for (before, _), after in TRANSITIONS.items() if before is now} - seen
            seen |= following
            todo += following
        assert {S.COMPLETED, S.FAILED} <= seen


def test_what_has_ended_moves_only_by_a_person_or_newer_input() -> None:
    assert {event for (state, event) in TRANSITIONS if state in ENDED} == {E.CANCEL, E.REQUEUE, E.RESEND, E.SUPERSEDE}
