"""Room is made by removing what is finished and old, or too much, and nothing else."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from overread.domain.job import JobEvent
from overread.domain.study import Instance
from overread.ledger import Ledger, arrivals, jobs, views
from overread.ledger.arrivals import Arrival
from overread.ledger.jobs import Plan
from overread.schedule import retention
from overread.schedule.retention import Limits, retire
from overread.spool import Spool
from overread.spool.quarantine import Facts, Quarantine

from .conftest import STUDY

AGE = Limits(100)
NEVER = 1e9
LATER = time.time() + 3600


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


# --------------------------------------------------------------------------------------------------------------- age


def test_a_finished_old_study_is_removed_and_its_story_stays(
    ledger: Ledger, planned: Callable[..., None], spool: Spool
) -> None:
    planned("a")
    end(ledger, JobEvent.READ, JobEvent.VERIFIED)
    assert retire(ledger, spool, AGE, now=101) == 0
    assert retire(ledger, spool, AGE, now=102) == 1
    assert left(spool) == []
    told = views.story(ledger, STUDY)
    assert told is not None
    assert (told.study.purged_at, [j.row.state for j in told.jobs]) == (102, ["COMPLETED"])
    assert arrivals.known_paths(ledger) == set()
    assert retire(ledger, spool, AGE, now=999) == 0


@pytest.mark.parametrize("events", [[JobEvent.GAVE_UP], [JobEvent.READ], []], ids=["failed", "delivering", "running"])
def test_a_study_that_somebody_waits_for_stays(
    ledger: Ledger, planned: Callable[..., None], spool: Spool, events: list[JobEvent]
) -> None:
    planned("a")
    end(ledger, *events)
    assert retire(ledger, spool, Limits(100, 1, 1 << 60), now=LATER) == 0
    assert left(spool) == [".dcm", ".dcm"]


def test_what_came_meanwhile_keeps_its_study(ledger: Ledger, planned: Callable[..., None], spool: Spool) -> None:
    """An image was acknowledged a moment ago, and the ledger does not know it yet."""
    planned("a")
    end(ledger, JobEvent.UNFIT)
    stored = spool.keep(STUDY, "1.2.4", b"", b"late")
    assert retire(ledger, spool, AGE, now=9999) == 0
    assert len(list(spool.instance_paths())) == 2
    assert retire(ledger, spool, AGE, now=spool.absolute(stored.path).stat().st_mtime + 101) == 1


def test_what_comes_while_a_study_goes_stays(
    ledger: Ledger, planned: Callable[..., None], spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again, and acknowledged, between the look at its files and their removal."""
    planned("a")
    end(ledger, JobEvent.UNFIT)
    purge = views.purge
    late = []

    def slow(*arguments: object) -> object:
        late.append(spool.keep(STUDY, "1.2.3", b"", b"pixels").path)
        return purge(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(views, "purge", slow)
    assert retire(ledger, spool, AGE, now=9999) == 1
    assert list(spool.instance_paths()) == late


def test_quarantine_is_emptied_with_age(ledger: Ledger, tmp_path: Path, spool: Spool) -> None:
    """What could not be read may hold a patient's data; it is not kept longer than the images that could."""
    quarantine = Quarantine(spool.root / "quarantine")
    ids = []
    for at in (10.0, 500.0):
        (tmp_path / "x").write_bytes(b"rubbish")
        ids.append(quarantine.admit(tmp_path / "x", Facts(at, "no UID", 0xC000, "CT1", "", "", "", 7)))
    retire(ledger, spool, AGE, now=111)
    assert [e.id for e in quarantine.entries()] == ids[1:]


# -------------------------------------------------------------------------------------------------------------- room

SIZE = 1000


@dataclass
class Archive:
    """A spool with finished studies "1.1", "1.2", …, whose images came one day after the other."""

    spool: Spool
    ledger: Ledger
    header: Instance

    def add(self, number: int, day: int, *events: JobEvent) -> str:
        """A study with one image of 1000 bytes, and one result of 100 when its job made any."""
        uid, at = f"1.{number}", 86400.0 * day
        stored = self.spool.keep(uid, f"{uid}.1", b"", b"x" * SIZE)
        os.utime(self.spool.absolute(stored.path), (at, at))
        image = replace(self.header, study_uid=uid, sop_instance_uid=f"{uid}.1", path=stored.path, digest=stored.digest)
        arrivals.record(self.ledger, [Arrival(image, SIZE, at)])
        (waiting,) = arrivals.waiting(self.ledger)
        revision = arrivals.complete(self.ledger, waiting, at + 30)
        assert revision is not None
        jobs.plan(self.ledger, uid, revision, [], [Plan("lungs", "1", "1.2.3", uid, 0)])
        end(self.ledger, *(events or (JobEvent.READ, JobEvent.VERIFIED)))
        told = views.story(self.ledger, uid)
        assert told is not None
        result = self.spool.root / "results" / str(told.jobs[0].row.id) / "seg.dcm"
        result.parent.mkdir()
        result.write_bytes(b"s" * 100)
        return uid

    def kept(self) -> list[str]:
        uids = sorted(study.uid for study in views.recent_studies(self.ledger, 99))
        return [uid for uid in uids if views.instance_paths(self.ledger, uid)]

    def retire(self, max_bytes: int = 0, min_free_bytes: int = 0, now: float = LATER) -> int:
        return retire(self.ledger, self.spool, Limits(NEVER * 2, max_bytes, min_free_bytes), now)


@pytest.fixture
def archive(ledger: Ledger, tmp_path: Path, ct_headers: Callable[..., list[Instance]]) -> Archive:
    return Archive(Spool(tmp_path / "archive", durable=False), ledger, ct_headers(1)[0])


def test_the_oldest_finished_studies_go_until_the_rest_fits(archive: Archive) -> None:
    archive.add(3, 1)
    archive.add(1, 2)
    archive.add(2, 3)
    assert archive.retire(3 * (SIZE + 100)) == 0
    assert archive.retire(2 * (SIZE + 100)) == 1
    assert archive.kept() == ["1.1", "1.2"]
    assert archive.retire(SIZE) == 2
    assert archive.kept() == []
    assert not list(archive.spool.root.rglob("*.dcm"))


def test_they_go_when_the_disk_is_nearly_full(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are missing, though the file system has not given their room back yet."""
    for number in range(1, 5):
        archive.add(number, number)
    monkeypatch.setattr(Spool, "free_bytes", lambda _: 10_000)
    assert archive.retire(min_free_bytes=10_000) == 0
    assert archive.retire(min_free_bytes=10_000 + SIZE + 101) == 2
    assert archive.kept() == ["1.3", "1.4"]


def test_without_limits_nothing_goes(archive: Archive) -> None:
    archive.add(1, 1)
    assert archive.retire() == 0


@pytest.mark.parametrize("events", [[JobEvent.GAVE_UP], [JobEvent.READ], [JobEvent.STUMBLED]], ids=lambda e: e[0])
def test_what_is_unfinished_stays_however_full_it_is(archive: Archive, events: list[JobEvent]) -> None:
    archive.add(1, 2)
    archive.add(2, 1, *events)
    assert archive.retire(1, 1 << 60) == 1
    assert archive.kept() == ["1.2"]


def test_what_ended_within_ten_minutes_stays(archive: Archive) -> None:
    """Its job has just ended, though its images came long ago."""
    archive.add(1, 1)
    assert archive.retire(1, now=time.time() + 590) == 0
    assert archive.retire(1, now=time.time() + 610) == 1


def test_what_is_sent_again_stays(archive: Archive) -> None:
    """The same images came again a moment ago; their sender was told that they are safe."""
    archive.add(1, 1)
    archive.spool.keep("1.1", "1.1.1", b"", b"x" * SIZE)
    assert archive.retire(1, now=time.time() + 590) == 0


@pytest.mark.parametrize(("uid", "day", "gone"), [("1.1.2", 1, 0), ("1.1.1", 2, 0), ("1.1.1", 0, 1)])
def test_what_the_ledger_does_not_know_yet_keeps_its_study(archive: Archive, uid: str, day: int, gone: int) -> None:
    """Another image, or newer content of one; earlier content of an image goes with it."""
    archive.add(1, 1)
    stored = archive.spool.keep("1.1", uid, b"", b"other")
    os.utime(archive.spool.absolute(stored.path), (86400 * day + 1, 86400 * day + 1))
    assert archive.retire(1) == gone
    assert len(list(archive.spool.instance_paths())) == (0 if gone else 2)


def test_what_a_crash_left_goes_the_next_time(archive: Archive) -> None:
    """The power went between forgetting a study and removing its files, which were found again at the next start."""
    archive.add(1, 1)
    (path,) = archive.spool.instance_paths()
    assert views.purge(archive.ledger, "1.1", LATER - 600, LATER) == {path}
    found = replace(archive.header, study_uid="1.1", sop_instance_uid="1.1.1", path=path, digest="d")
    arrivals.record(archive.ledger, [Arrival(found, SIZE, 86400.0, found=True)])
    (waiting,) = arrivals.waiting(archive.ledger)
    assert arrivals.complete(archive.ledger, waiting, 86400.0) == 2
    jobs.plan(archive.ledger, "1.1", 2, [], [])
    assert archive.retire(1) == 1
    assert not list(archive.spool.instance_paths())


def test_the_clock_is_not_held_up_for_long(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "MOST_AT_ONCE", 2)
    for number in range(1, 4):
        archive.add(number, number)
    assert [archive.retire(1) for _ in range(3)] == [2, 1, 0]
