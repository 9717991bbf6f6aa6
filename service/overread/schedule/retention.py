"""Making room: finished studies are removed from the spool when they are old, or earlier when room is needed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from overread.ledger import Ledger, views
from overread.spool import Spool
from overread.spool.quarantine import Quarantine

REST_S = 600.0
MOST_AT_ONCE = 500


@dataclass(frozen=True)
class Limits:
    """What the spool may hold: for ``keep_s`` seconds; ``max_bytes`` (0: no limit); ``min_free_bytes`` left free."""

    keep_s: float
    max_bytes: int = 0
    min_free_bytes: int = 0


def retire(ledger: Ledger, spool: Spool, limits: Limits, now: float) -> int:
    """Remove images and results of finished studies that are too old or, the oldest first, too many.

    Returns how many studies; the next call goes on where this one stopped. What lies in quarantine goes with age, and
    for want of room before any study. The ledger keeps the study, its jobs and their events. A FAILED job keeps its
    study until a person has decided; for want of room nothing goes that came or ended within the last ten minutes.
    """
    quarantine = Quarantine(spool.root / "quarantine")
    quarantine.clear(now - limits.keep_s)
    retired, before = 0, now - limits.keep_s
    for study_uid in views.disposable(ledger, before, now):
        if retired < MOST_AT_ONCE and _retire(ledger, spool, study_uid, before, now) is not None:
            retired += 1
    excess, before = _excess(ledger, spool, limits), now - REST_S
    excess -= quarantine.relieve(excess, before)
    for study_uid in views.settled(ledger, before, now) if excess > 0 else ():
        if excess <= 0 or retired >= MOST_AT_ONCE:
            break
        freed = _retire(ledger, spool, study_uid, before, now, young=True)
        if freed is not None:
            # Counted, not asked for again: a file system may give back later what was deleted.
            excess, retired = excess - freed, retired + 1
    return retired


def _excess(ledger: Ledger, spool: Spool, limits: Limits) -> int:
    """How many bytes must go."""
    excess = limits.min_free_bytes - spool.free_bytes()
    if limits.max_bytes:
        results = sum(stat.st_size for _, stat in _below(spool.root / "results"))
        excess = max(excess, views.instance_bytes(ledger) + results - limits.max_bytes)
    return excess


def _retire(
    ledger: Ledger, spool: Spool, study_uid: str, before: float, now: float, *, young: bool = False
) -> int | None:
    """Remove one study; returns how many bytes that gave back, or None when it stays.

    It stays when a file of it is newer than ``before``, for it is being sent again, and its sender is told that it is
    safe. A ``young`` one stays, too, when the ledger does not know all that came of it yet.
    """
    told = views.story(ledger, study_uid)
    files = {str(path.relative_to(spool.root)): stat for path, stat in _below(spool.study_folder(study_uid))}
    if told is None or any(stat.st_mtime >= before for stat in files.values()):
        return None
    if young and not _newest(files) <= views.instance_paths(ledger, study_uid):
        return None
    jobs = [job.row.id or 0 for job in told.jobs]
    results = [stat for job in jobs for _, stat in _below(spool.root / "results" / str(job))]
    if views.purge(ledger, study_uid, before, now) is None:
        return None
    spool.remove_study(study_uid, jobs, (), before)
    return sum(stat.st_size for stat in (*files.values(), *results))


def _newest(files: Mapping[str, os.stat_result]) -> set[str]:
    """Of each instance the content that came last: ``<instance>-<digest>.dcm`` are the names."""
    by_age = sorted(files, key=lambda path: files[path].st_mtime)
    return set({path.rpartition("-")[0]: path for path in by_age}.values())


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files in a folder and in the folders in it; what is not there or goes away meanwhile is left out."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.is_dir():
                    yield from _below(path)
                else:
                    yield path, path.stat()
