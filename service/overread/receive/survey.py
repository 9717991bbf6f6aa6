"""Spool and ledger side by side: what lies there without a row, and which rows have lost their file.

Both are read in the order of their paths and joined like two sorted lists, so that millions of files need no more
memory than a handful.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from overread.domain.errors import Refused
from overread.domain.events import SpoolDiscrepancy
from overread.ledger import Ledger, arrivals
from overread.ledger.arrivals import Arrival, Place
from overread.ports import Herald
from overread.receive.entries import enter
from overread.spool import Spool
from overread.spool.files import dataset_digest, dataset_start
from overread.spool.header import read_file

UNINDEXED = "unindexed"
MISSING = "missing"
AGREE = ""

BATCH = 200
BREATH = 2000
NAMED = 10
YOUNG_S = 0.5

_log = logging.getLogger("overread.receive")


@dataclass(frozen=True)
class Survey:
    """What a comparison came to: files that had no row and have one now, rows whose file is not there, and files that
    cannot be read."""

    found: int = 0
    missing: int = 0
    unreadable: int = 0


def compare(spool: Spool, ledger: Ledger) -> Iterator[tuple[str, str]]:
    """What spool and ledger do not agree on, as (kind, path relative to the spool), ordered by path; changes nothing.

    ``unindexed``: a file that the ledger does not know, or content that was set aside and has come once more since.
    ``missing``: the ledger knows it as an instance's current content, and it is not there.
    """
    return ((kind, path) for kind, path in _joined(spool, ledger) if kind != AGREE)


def reconcile(
    spool: Spool,
    ledger: Ledger,
    herald: Herald,
    breathe: Callable[[], Collection[str]] = frozenset,
) -> Survey:
    """Tell the ledger of files that it does not know, and everybody of files that it misses.

    ``breathe`` is called every few thousand files, and before files are read: it returns the paths of arrivals that are
    on their way to the ledger already. What it raises ends the comparison.
    """
    work = _Reconciliation(spool, ledger, herald, breathe)
    with closing(_joined(spool, ledger)) as pairs:
        for number, (kind, path) in enumerate(pairs):
            work.see(kind, path)
            if number % BREATH == 0:
                breathe()
    work.write()
    survey = Survey(work.found, len(work.missing), len(work.unreadable))
    _tell(survey, work, herald)
    return survey


class _Names:
    """Counts paths, and remembers the first few to name them."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._count = 0

    def add(self, path: str) -> None:
        self._count += 1
        if self._count <= NAMED:
            self._first.append(path)

    def __len__(self) -> int:
        return self._count

    def __str__(self) -> str:
        return ", ".join(self._first) + (f" and {self._count - NAMED} more" if self._count > NAMED else "")


class _Reconciliation:
    def __init__(self, spool: Spool, ledger: Ledger, herald: Herald, breathe: Callable[[], Collection[str]]) -> None:
        self._spool, self._ledger, self._herald, self._breathe = spool, ledger, herald, breathe
        self._paths: list[str] = []
        self.found = 0
        self.missing = _Names()
        self.unreadable = _Names()

    def see(self, kind: str, path: str) -> None:
        if kind == MISSING:
            self.missing.add(path)
        elif kind == UNINDEXED:
            self._paths.append(path)
            if len(self._paths) >= BATCH:
                self.write()

    def write(self) -> None:
        # What came during the comparison is on its way, or was written meanwhile: it is no news. What has only just
        # come may not have been announced yet.
        if any(_is_young(self._spool.absolute(path)) for path in self._paths):
            time.sleep(YOUNG_S)
        on_their_way = self._breathe() if self._paths else ()
        known = arrivals.known_paths(self._ledger, self._paths) if self._paths else ()
        read = (self._read(p) for p in self._paths if p not in on_their_way and p not in known)
        batch = [arrival for arrival in read if arrival is not None]
        self._paths = []
        if batch:
            enter(self._ledger, batch, self._herald)
            self.found += len(batch)

    def _read(self, path: str) -> Arrival | None:
        file = self._spool.absolute(path)
        try:
            instance = replace(read_file(file), path=path, digest=dataset_digest(file))
            at, size_bytes = file.stat().st_mtime, _dataset_bytes(file)
        except (Refused, OSError):
            if file.exists():  # otherwise it was removed meanwhile, which is how images end
                self.unreadable.add(path)
            return None
        # When it came, not when it was found: of two contents under one UID the later one stays the current one.
        return Arrival(instance, size_bytes, at, found=True)


def _is_young(file: Path) -> bool:
    try:
        return 0 <= time.time() - file.stat().st_mtime < YOUNG_S
    except OSError:
        return False


def _dataset_bytes(file: Path) -> int:
    # Without preamble and file meta information (PS3.10 Section 7.1), as it is counted when it comes.
    with file.open("rb") as opened:
        return file.stat().st_size - dataset_start(opened)


def _joined(spool: Spool, ledger: Ledger) -> Generator[tuple[str, str], None, None]:
    with closing(arrivals.places(ledger)) as known:
        # The first row opens the ledger's view before the spool is listed, so that whatever has a row there is listed.
        place = next(known, None)
        for path in spool.instance_paths():
            while place is not None and place.path < path:
                yield from _without_file(spool, ledger, place)
                place = next(known, None)
            if place is None or place.path != path:
                yield UNINDEXED, path
                continue
            yield (UNINDEXED if _came_again(spool, place) else AGREE), path
            while place is not None and place.path == path:
                place = next(known, None)
        for left in itertools.chain(() if place is None else (place,), known):
            yield from _without_file(spool, ledger, left)


def _without_file(spool: Spool, ledger: Ledger, place: Place) -> Iterator[tuple[str, str]]:
    # It may have been removed by retention, row and file, since the comparison began.
    gone = place.path == place.current and not spool.absolute(place.path).exists()
    if gone and arrivals.known_paths(ledger, [place.path]):
        yield MISSING, place.path


def _came_again(spool: Spool, place: Place) -> bool:
    # Both times are the disk's: the clock of a file server may differ from ours.
    try:
        return place.path != place.current and _written_at(spool, place.path) > _written_at(spool, place.current)
    except OSError:
        return False


def _written_at(spool: Spool, path: str) -> float:
    return spool.absolute(path).stat().st_mtime


def _tell(survey: Survey, work: _Reconciliation, herald: Herald) -> None:
    for kind, count in ((UNINDEXED, survey.found), (MISSING, survey.missing), ("unreadable", survey.unreadable)):
        herald(SpoolDiscrepancy(kind, count))
    if survey == Survey():
        _log.info("spool and ledger agree")
        return
    parts = [f"{survey.found} files were not in the ledger and are now"]
    if survey.missing:
        parts.append(f"{survey.missing} files are missing; send their studies again, each is then written anew")
        parts.append(f"missing: {work.missing}")
    if survey.unreadable:
        parts.append(f"{survey.unreadable} files cannot be read; send their studies again")
        parts.append(f"not readable: {work.unreadable}")
    _log.log(logging.WARNING if len(parts) > 1 else logging.INFO, "spool and ledger compared: %s", "; ".join(parts))
