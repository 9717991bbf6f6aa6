"""The clock ticks on, whatever the work does."""

from __future__ import annotations

import threading
import time

import pytest

from overread.domain.events import Event, Trouble
from overread.schedule import clock
from overread.schedule.clock import Clock


def test_errors_are_told_and_the_ticks_go_on() -> None:
    events: list[Event] = []
    ticks: list[int] = []
    twice = threading.Event()

    def work() -> None:
        ticks.append(1)
        if len(ticks) >= 3:
            twice.set()
        raise KeyError("a bug")

    ticking = Clock(events.append)
    ticking.every(0.05, "route", work)
    assert ticks == []
    ticking.start()
    assert twice.wait(5)
    ticking.stop()
    seen = len(ticks)
    time.sleep(0.12)
    assert len(ticks) == seen
    assert events[:3] == [Trouble("route", "KeyError")] * 3


def test_the_first_tick_comes_at_once_and_none_twice_at_the_same_time() -> None:
    running, most, came = [0], [0], threading.Event()

    def work() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        came.set()
        time.sleep(0.1)
        running[0] -= 1

    ticking = Clock(lambda _: None)
    ticking.every(3600, "retain", came.set)
    ticking.start()
    assert came.wait(2)
    came.clear()
    ticking.every(0.03, "settle", work)
    assert came.wait(2)
    time.sleep(0.25)
    ticking.stop()
    assert most[0] == 1


def test_slow_work_does_not_hold_up_other_work() -> None:
    release, ticked = threading.Event(), threading.Event()
    ticking = Clock(lambda _: None)
    ticking.every(1, "slow", lambda: release.wait(5))
    ticking.every(0.05, "quick", ticked.set)
    ticking.start()
    assert ticked.wait(2)
    release.set()
    ticking.stop()


def test_only_work_that_is_late_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is due once an hour is not stuck for the fifty minutes in which it rests."""
    ticking = Clock(lambda _: None)
    ticking.every(3600, "retain", lambda: None)
    ticking.every(1, "route", lambda: None)
    assert ticking.stuck() == []
    now = time.monotonic()
    monkeypatch.setattr(clock.time, "monotonic", lambda: now + clock.STUCK_S + 60)
    assert ticking.stuck() == ["route"]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now + clock.STUCK_S + 3700)
    assert ticking.stuck() == ["retain", "route"]
