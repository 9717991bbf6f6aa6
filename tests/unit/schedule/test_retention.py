"""Room is made by removing what is finished and old, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from overread.domain.job import JobEvent
from overread.ledger import Ledger, arrivals, jobs, views
from overread.schedule.retention import retire
from overread.spool import Spool

from .conftest import STUDY


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool", durable=False)
    stored = made.keep(STUDY, "1.2.3", b"", b"pixels")
    os.utime(made.absolute(stored.path), (1, 1))
    (tmp_path / "seg.dcm").write_bytes(b"seg")
    made.keep_result(1, tmp_path / "seg.dcm")
    return made


def end(ledger: Ledger, *events: JobEvent) -> None:
    move = jobs.claim(ledger, "w1", 60)
    assert move is not None
    for event in events:
        assert jobs.move(ledger, move.job.id, event, "w1")


def left(spool: Spool) -> list[str]:
    return sorted(p.suffix for p in spool.root.rglob("*.dcm"))


def test_a_finished_old_study_is_removed_and_its_story_stays(
    ledger: Ledger, planned: Callable[..., None], spool: Spool
) -> None:
    planned("a")
    end(ledger, JobEvent.READ, JobEvent.VERIFIED)
    assert retire(ledger, spool, keep_s=100, now=101) == 0
    assert retire(ledger, spool, keep_s=100, now=102) == 1
    assert left(spool) == []
    told = views.story(ledger, STUDY)
    assert told is not None
    assert (told.study.purged_at, [j.row.state for j in told.jobs]) == (102, ["COMPLETED"])
    assert arrivals.known_paths(ledger) == set()
    assert retire(ledger, spool, keep_s=100, now=999) == 0


@pytest.mark.parametrize("events", [[JobEvent.GAVE_UP], [JobEvent.READ], []], ids=["failed", "delivering", "running"])
def test_a_study_that_somebody_waits_for_stays(
    ledger: Ledger, planned: Callable[..., None], spool: Spool, events: list[JobEvent]
) -> None:
    planned("a")
    end(ledger, *events)
    assert retire(ledger, spool, keep_s=100, now=9999) == 0
    assert left(spool) == [".dcm", ".dcm"]


def test_what_came_meanwhile_stays(ledger: Ledger, planned: Callable[..., None], spool: Spool) -> None:
    """An image was acknowledged a moment ago, and the ledger does not know it yet."""
    planned("a")
    end(ledger, JobEvent.UNFIT)
    stored = spool.keep(STUDY, "1.2.4", b"", b"late")
    assert retire(ledger, spool, keep_s=100, now=9999) == 1
    assert list(spool.instance_paths()) == [stored.path]


def test_quarantine_is_emptied_with_time(tmp_path):
    """What could not be read may hold a patient's data; it is not kept longer than the images that could."""
    spool = Spool(tmp_path)
    old, new = spool.quarantine(b"old", "unreadable"), spool.quarantine(b"new", "unreadable")
    for path in (old, old.with_suffix(".txt")):
        os.utime(path, (1.0, 1.0))
    spool.clear_quarantine(before=1000.0)
    assert {p.name for p in (tmp_path / "quarantine").iterdir()} == {new.name, new.with_suffix(".txt").name}
