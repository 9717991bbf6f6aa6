"""What a process takes from the machine, from /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

MB = 1 << 20


@dataclass(frozen=True)
class Vitals:
    """Memory in bytes, threads and open descriptors of a process."""

    rss: int
    threads: int
    descriptors: int


def vitals(pid: int) -> Vitals:
    """As they are now."""
    return Vitals(_bytes(pid, "VmRSS"), int(_status(pid)["Threads"]), len(list(Path(f"/proc/{pid}/fd").iterdir())))


def peak_rss(pid: int) -> int:
    """The most memory since ``forget_peak``."""
    return _bytes(pid, "VmHWM")


def forget_peak(pid: int) -> int:
    """Let the peak start at what it takes now, and return that; skips where the kernel does not let us."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"the peak of memory cannot be reset here: {error.strerror}")
    return peak_rss(pid)


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def _bytes(pid: int, name: str) -> int:
    return int(_status(pid)[name].split()[0]) * 1024
