"""The folders in which models' processes write: one each, gone with its process.

Its keeper holds a lock on it, which ends with the keeper however that ends: so it can be told what was left behind,
also by a service in another container.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "overread-model-"


class Scratch:
    """A new folder in ``home``, or where temporary files go."""

    def __init__(self, home: Path | None = None) -> None:
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=home)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # a file system without locks, or somebody cleans it away at this very moment
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._lock).st_nlink:
                return
            os.close(self._lock)

    def held_bytes(self) -> int:
        """How much of the disk its files take."""
        held = 0
        for folder, _, files in os.walk(self.path):
            for name in files:
                with suppress(OSError):  # removed meanwhile
                    held += Path(folder, name).lstat().st_blocks * 512
        return held

    def remove(self) -> None:
        """Remove it with all that is in it; once is enough, more does no harm."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def clean(home: Path) -> int:
    """Remove those that nobody holds any more; returns how many."""
    removed = 0
    for path in home.glob(f"{PREFIX}*"):
        with suppress(OSError):  # held, or gone meanwhile
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed += 1
            finally:
                os.close(lock)
    return removed
