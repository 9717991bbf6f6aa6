"""The cases that are open: one file in the spool each, exchanged as a whole at each step, so that a crash loses none.

    asked ──judge──▶ judged ──reporter──▶ told ──judge──▶ (in the ledger; the file goes)
                       ▲   │
                       └───┘ the modality does not answer: later again
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path

from overread.domain.errors import Unreachable
from overread.spool.durable import sync_folder, write_durable

ASKED, JUDGED, TOLD = "asked", "judged", "told"
MOST_OPEN = 10_000


@dataclass(frozen=True)
class Case:
    """One request for storage commitment; times in seconds since the epoch.

    ``references`` are SOP Instance UID → SOP Class UID, ``failures`` SOP Instance UID → Failure Reason once it is
    judged. ``owner`` is the process that holds the association on which it was asked.
    """

    calling_ae: str
    transaction_uid: str
    references: dict[str, str]
    asked_at: float
    owner: int = 0
    state: str = ASKED
    failures: dict[str, int] = field(default_factory=dict)
    judged_at: float = 0.0
    attempts: int = 0
    not_before: float = 0.0
    outcome: str = ""
    reason: str = ""
    told_at: float = 0.0

    @cached_property
    def digest(self) -> str:
        """Of the instances that are asked for."""
        return hashlib.sha256(json.dumps(sorted(self.references.items())).encode()).hexdigest()

    @cached_property
    def name(self) -> str:
        """The same for the same request of the same caller; nothing that came from the wire becomes a path."""
        return hashlib.sha256(f"{self.calling_ae}\n{self.transaction_uid}\n{self.digest}".encode()).hexdigest()[:32]


class Docket:
    """The folder ``root``. Safe to use from many threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seen: dict[str, tuple[tuple[int, int], Case | None]] = {}
        root.mkdir(parents=True, exist_ok=True)

    def file(self, case: Case) -> None:
        """Take a new request; it would survive a power cut when this returns.

        Raises Unreachable when too many are open, OSError when the disk does not take it.
        """
        if sum(1 for _ in self._names()) >= MOST_OPEN:
            raise Unreachable(f"{MOST_OPEN} requests for storage commitment are open")
        self._write(case)

    def cases(self) -> list[Case]:
        """All that are open, the oldest first; what cannot be read is left out. For one thread at a time."""
        found: dict[str, tuple[tuple[int, int], Case | None]] = {}
        for name in self._names():
            with contextlib.suppress(OSError):
                stat = self._path(name).stat()
                key = (stat.st_mtime_ns, stat.st_ino)
                known = self._seen.get(name)
                found[name] = known if known and known[0] == key else (key, self._read(name))
        self._seen = found
        return sorted((c for _, c in found.values() if c is not None), key=lambda c: c.asked_at)

    @contextmanager
    def claim(self, case: Case) -> Iterator[bool]:
        """Whether the case is as it was seen, and nobody else's until the block ends; who is killed holds nothing."""
        lock = self.root / f"{case.name}.lock"
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            try:
                yield self._read(case.name) == case
            finally:
                lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def advance(self, before: Case, after: Case) -> bool:
        """Exchange a claimed case; False, and nothing changes, when it was asked for anew meanwhile. Raises OSError."""
        now = self._read(before.name)
        if now is None or now.asked_at != before.asked_at:
            return False
        self._write(after)
        return True

    def close(self, case: Case) -> None:
        """A claimed case has ended."""
        self._path(case.name).unlink(missing_ok=True)
        sync_folder(self.root)

    def _names(self) -> Iterator[str]:
        with os.scandir(self.root) as entries:
            for entry in entries:
                if entry.name.endswith(".json") and not entry.name.startswith("."):
                    yield entry.name.removesuffix(".json")

    def _path(self, name: str) -> Path:
        return self.root / f"{name}.json"

    def _write(self, case: Case) -> None:
        write_durable(json.dumps(asdict(case)).encode(), self._path(case.name))

    def _read(self, name: str) -> Case | None:
        try:
            values = json.loads(self._path(name).read_bytes())
            return Case(**{f.name: values[f.name] for f in fields(Case)})
        except (OSError, ValueError, TypeError, KeyError):
            return None
