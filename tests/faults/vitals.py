"""What a process and its children take from the machine, from /proc."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

MB = 1 << 20


@dataclass(frozen=True)
class Vitals:
    """Memory in bytes, threads and open descriptors of a process and its children."""

    rss: int
    threads: int
    descriptors: int


def vitals(pid: int) -> Vitals:
    """As they are now."""
    them = family(pid)
    descriptors = sum(len(list(Path(f"/proc/{p}/fd").iterdir())) for p in them)
    return Vitals(sum(_bytes(p, "VmRSS") for p in them), sum(int(_status(p)["Threads"]) for p in them), descriptors)


def peak_rss(pid: int) -> int:
    """The most memory since ``forget_peak``: of each process its own, and the sum of them."""
    return sum(_bytes(p, "VmHWM") for p in family(pid))


def forget_peak(pid: int) -> int:
    """Let the peak start at what it takes now, and return that; skips where the kernel does not let us."""
    try:
        for process in family(pid):
            Path(f"/proc/{process}/clear_refs").write_text("5")
    except OSError as error:
        pytest.skip(f"the peak of memory cannot be reset here: {error.strerror}")
    return peak_rss(pid)


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    children = [int(c) for f in Path(f"/proc/{pid}/task").glob("*/children") for c in _said(f)]
    return [pid, *(one for child in children for one in family(child))]


def _said(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # a thread that has just ended
        return []


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def _bytes(pid: int, name: str) -> int:
    return int(_status(pid)[name].split()[0]) * 1024
