"""The canary: every few minutes a marked study goes in at the listener, and must come out proven at the other end."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from overread.domain.canary import AE_TITLE, study_uid
from overread.domain.errors import ConfigError, OverreadError
from overread.domain.events import CanaryEnded
from overread.domain.job import ENDED, JobState
from overread.domain.peer import Peer
from overread.ledger import Ledger, views
from overread.ledger.views import StudyStory
from overread.ports import Herald
from overread.simulate.bench import dicom_files
from overread.simulate.marked import mark
from overread.simulate.phantom import Grid, chest_phantom
from overread.simulate.scanner import Patience, send
from overread.simulate.study import write_study

FIRST_S = 60.0
SEED = 2026
GRID = Grid((48, 128, 128), (5.5, 3.0, 3.0))  # 1.6 MB: what flies every hour must not fill the spool


@dataclass(frozen=True)
class Plan:
    """To which listener, how often, how long it may take (seconds), and which ``study`` (None: a generated chest)."""

    peer: Peer
    every_s: float
    deadline_s: float
    study: Path | None = None


class Canary:
    """One flight at a time; ``tick`` is called every second or so. What became of each flight is told as an event."""

    def __init__(self, books: Ledger, plan: Plan, herald: Herald) -> None:
        self._books, self._plan, self._herald = books, plan, herald
        self._next = time.time() + min(FIRST_S, plan.every_s)
        self._began = 0.0
        self._uid = ""

    def tick(self) -> None:
        """Send one that is due, or see how far the one is that is on its way."""
        if self._uid:
            self._look(time.time())
        elif time.time() >= self._next:
            self._next = time.time() + self._plan.every_s
            self._fly(time.time())

    def _fly(self, now: float) -> None:
        self._began = now
        try:
            release(self._plan, study_uid(now))
        except (OverreadError, OSError, ValueError, AttributeError) as error:
            reason = str(error) if isinstance(error, OverreadError) else f"{type(error).__name__} while it was sent"
            self._herald(CanaryEnded(arrived=False, seconds=time.time() - now, reason=reason))
            return
        self._uid = study_uid(now)

    def _look(self, now: float) -> None:
        story = views.story(self._books, self._uid)
        if verdict := judge(story):
            arrived, reason = verdict
        elif now - self._began > self._plan.deadline_s:
            arrived, reason = False, f"it was not home within {self._plan.deadline_s / 60:g} minutes: {where(story)}"
        else:
            return
        self._uid = ""
        self._herald(CanaryEnded(arrived=arrived, seconds=now - self._began, reason=reason))


def release(plan: Plan, uid: str) -> None:
    """Send the canary's study under ``uid``; all of it is acknowledged at the end.

    Raises Unreachable, or ConfigError when an image was not taken or there is none.
    """
    with tempfile.TemporaryDirectory(prefix="overread-canary-") as made:
        folder = Path(made)
        files = dicom_files(plan.study) if plan.study else _phantom(folder / "phantom")
        sent = send(mark(files, folder / "marked", uid), plan.peer, calling_ae=AE_TITLE, patience=Patience(tries=2))
    if sent.failed:
        raise ConfigError(f"the listener did not take {len(sent.failed)} of its images: {sent.failed[0].reason}")


def _phantom(folder: Path) -> list[Path]:
    return write_study(chest_phantom(SEED, GRID, nodules=1, noise_hu=18.0, healthy=True), folder, seed=SEED)


def judge(story: StudyStory | None) -> tuple[bool, str] | None:
    """Whether a study arrived, and the reason when it did not; None while it is on its way."""
    if story is None or story.study.state != "COMPLETE" or story.study.routed_revision < story.study.revision:
        return None
    if not story.jobs:
        why = "; ".join(dict.fromkeys(d.reason for d in story.decisions if d.reason))
        return False, f"no model reads it: {why}"
    if not all(job.row.state in ENDED for job in story.jobs):
        return None
    for job in story.jobs:
        if job.row.state != JobState.COMPLETED:
            return False, f"{job.row.model} {job.row.state}: {job.row.reason}"
    if not any(job.deliveries for job in story.jobs):
        return False, "it was read, and nothing of it goes to a destination with canary = true"
    return True, ""


def where(story: StudyStory | None) -> str:
    """How far a study has come, in words."""
    if story is None:
        return "the ledger does not know its images"
    if not story.jobs:
        return f"the study is {story.study.state}"
    return "; ".join(f"{job.row.model} is {job.row.state} {job.row.reason}".strip() for job in story.jobs)
