"""Watching never harms what is watched."""

from __future__ import annotations

import pytest

from overread.domain.events import Event, StudyCompleted
from overread.observe.herald import Heralds
from overread.observe.logs import log_event
from overread.observe.metrics import Metrics

EVENT = StudyCompleted("1.2.3", 3, 0)


def broken(event: Event) -> None:
    raise RuntimeError("Doe^John")


def test_everybody_is_told_and_failures_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    metrics, heard = Metrics("1"), list[Event]()
    heralds = Heralds(broken, metrics, log_event, heard.append, on_failure=metrics.count_herald_failure)
    for _ in range(3):
        heralds(EVENT)
    assert heard == [EVENT] * 3
    assert metrics.registry.get_sample_value("overread_studies_completed_total") == 3
    assert metrics.registry.get_sample_value("overread_herald_failures_total") == 3
    complaints = [r for r in caplog.records if r.name == "overread.observe.herald"]
    assert [r.getMessage() for r in complaints] == ["herald 0 cannot take StudyCompleted: RuntimeError"]


def test_a_failing_counter_of_failures_does_not_reach_the_caller() -> None:
    def fail() -> None:
        raise OSError

    Heralds(broken, on_failure=fail)(EVENT)
