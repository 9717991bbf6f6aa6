"""What a process and its children use, read from /proc."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROC = Path("/proc")
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
STILL_S = 0.5
LISTEN = "0A"


def cpu_s(root: int) -> float:
    """User and system time of the tree, with that of children which have ended."""
    return sum(ticks for pid in members(root) for ticks in _ticks(pid)) * TICK_S


def members(root: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield root
    try:
        threads = list((PROC / str(root) / "task").iterdir())
        children = [pid for thread in threads for pid in (thread / "children").read_text().split()]
    except OSError:
        return
    for pid in children:
        yield from members(int(pid))


def _ticks(pid: int) -> list[int]:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return [int(value) for value in stat.rpartition(")")[2].split()[11:15]]


def wait_still(root: int, patience_s: float, done: Callable[[], bool] = lambda: True) -> bool:
    """Wait until the tree has used at most one tick in half a second and ``done``; False when it never came to that."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        before = cpu_s(root)
        time.sleep(STILL_S)
        if cpu_s(root) - before < 1.5 * TICK_S and done():
            return True
    return False


def listens(port: int) -> bool:
    """Whether somebody listens on a TCP port; asks the kernel, so that the listener does not notice."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == LISTEN and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


class PeakMemory(threading.Thread):
    """Watches the tree's resident memory; ``stop`` says its peak in MB: the highest sum seen, or one process's own."""

    def __init__(self, root: int, every_s: float = 0.1) -> None:
        super().__init__(daemon=True)
        self._root, self._every_s, self._peak_kb = root, every_s, 0
        self._stopping = threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._stopping.wait(self._every_s):
            self._sample()

    def stop(self) -> float:
        """The peak in MB."""
        self._stopping.set()
        self.join()
        self._sample()
        return self._peak_kb / 1024

    def _sample(self) -> None:
        memory = [_resident_kb(pid) for pid in members(self._root)]
        self._peak_kb = max(self._peak_kb, sum(now for now, _ in memory), *(peak for _, peak in memory))


def _resident_kb(pid: int) -> tuple[int, int]:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0, 0
    values = {name: text for name, _, text in (line.partition(":") for line in lines)}
    now, peak = (int(values.get(name, "0").split()[0]) for name in ("VmRSS", "VmHWM"))
    return now, peak
