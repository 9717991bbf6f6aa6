"""A process and all that it has started: who they are, what they hold, and their end.

Only the standard library's smallest parts, for the guard of a model's process uses it, see ``guard``.
"""

from __future__ import annotations

import os
import signal
import time

END_S = 10.0  # within which all of a family have ended, also one that goes on forking


def descendants(root: int) -> list[int]:
    """All processes that a process has started and those that they have; the dead that wait to be reaped left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  # pathlib is more than the guard needs
        if name.isdigit() and (parent := _parent(name)):
            children.setdefault(parent, []).append(int(name))
    found, level = [], [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ())]
        found += level
    return found


def end(root: int) -> None:
    """Kill all that ``root`` has started, again and again until none is left, for some may start others meanwhile."""
    deadline = time.monotonic() + END_S
    while (left := descendants(root)) and time.monotonic() < deadline:
        tell(left, signal.SIGKILL)
        time.sleep(0.005)


def tell(pids: list[int], number: int) -> None:
    """Send a signal to those that still are."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def held_bytes(pids: list[int]) -> int:
    """What processes hold together; what several share, as children share their parent's pages, counts once."""
    return sum(_share(pid) for pid in pids)


def _parent(name: str) -> int:
    """The parent of a process, 0 when it has ended."""
    try:
        with open(f"/proc/{name}/stat") as stat:  # noqa: PTH123
            state, parent = stat.read().rpartition(")")[2].split(maxsplit=2)[:2]
    except (OSError, ValueError):
        return 0
    return 0 if state in "ZX" else int(parent)


def _share(pid: int) -> int:
    """The proportional set size; where the kernel does not tell that, all that is resident."""
    for file, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            with open(f"/proc/{pid}/{file}") as lines:  # noqa: PTH123
                for line in lines:
                    if line.startswith(key):
                        return int(line.split()[1]) * 1024
        except (OSError, ValueError):
            continue
    return 0
