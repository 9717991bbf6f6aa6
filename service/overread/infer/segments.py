"""Names of shared memory: whose they are, so that what a killed keeper left behind can be found and removed."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from uuid import uuid4

HOME = Path("/dev/shm")
_OURS = re.compile(r"overread-(\d+)\.(\d+)-[0-9a-f]{32}-")


def prefix() -> str:
    """A prefix that no other task has; it names this process, by its number and when it started."""
    return f"overread-{os.getpid()}.{_started(os.getpid())}-{uuid4().hex}-"


def clean() -> int:
    """Remove the blocks of keepers that do not live any more; returns how many."""
    removed = 0
    for path in HOME.glob("overread-*") if HOME.is_dir() else ():
        found = _OURS.match(path.name)
        if found is None or _started(int(found[1])) == int(found[2]):
            continue
        with contextlib.suppress(OSError):  # another service's, which cleans up itself, or gone meanwhile
            path.unlink()
            removed += 1
    return removed


def _started(pid: int) -> int:
    """When a process started, in the kernel's own count; 0 when there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0
