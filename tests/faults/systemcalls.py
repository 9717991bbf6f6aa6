"""What a process asked the kernel to do, in order: strace's log as records."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from house import wait_for
from material import tool
from vitals import family

WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range", "splice")
SYNCS = ("fsync", "fdatasync", "syncfs")
RENAMES = ("rename", "renameat", "renameat2", "link", "linkat")
FOLDERS = ("mkdir", "mkdirat")
OPENS = ("open", "openat", "creat")
SENDS = ("sendto", "sendmsg", "sendmmsg")

LINE = re.compile(r"^(\d+)\s+(.*)$")
CALL = re.compile(r"^(\w+)\((.*?)(?: <unfinished \.\.\.>|\)\s*= (-?\d+|\?).*)$")
RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*?)\)\s*= (-?\d+|\?).*$")
DESCRIPTOR = re.compile(r"^\d+<(.*?)>(?:, |$)")
AT = re.compile(r'(?:AT_FDCWD(?:<[^>]*>)?|\d+<([^>]*)>), "([^"]*)"')
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass
class Call:
    """One system call; ``began`` and ``ended`` are places in the log, so that calls of threads can be ordered."""

    name: str
    arguments: str
    began: int
    ended: int = -1
    result: int = -1

    @property
    def file(self) -> str:
        """The path behind the first argument, when that is a descriptor."""
        found = DESCRIPTOR.match(self.arguments)
        return found[1] if found else ""

    @property
    def paths(self) -> list[str]:
        """The paths named in the arguments, those beside a folder's descriptor made absolute."""
        named = [(folder, path) for folder, path in AT.findall(self.arguments)]
        if not named:
            return QUOTED.findall(self.arguments)
        return [f"{folder}/{path}" if folder and not path.startswith("/") else path for folder, path in named]

    @property
    def is_answer(self) -> bool:
        """Whether this begins a P-DATA-TF PDU on a TCP connection."""
        return "TCP" in self.file and '"\\4\\0' in self.arguments

    @property
    def worked(self) -> bool:
        return self.result >= 0


def read_calls(log: Path) -> list[Call]:
    """strace's log; a call that another thread interrupted ends where it was resumed."""
    calls: list[Call] = []
    open_: dict[str, Call] = {}
    for place, line in enumerate(log.read_text("utf-8", "replace").splitlines()):
        split = LINE.match(line)
        if split is None:
            continue
        thread, text = split.groups()
        if again := RESUMED.match(text):
            if (call := open_.pop(thread, None)) is not None:
                call.arguments += again[2]
                call.ended, call.result = place, _number(again[3])
        elif found := CALL.match(text):
            call = Call(found[1], found[2], place)
            calls.append(call)
            if found[3] is None:
                open_[thread] = call
            else:
                call.ended, call.result = place, _number(found[3])
    return calls


def _number(text: str) -> int:
    return -1 if text == "?" else int(text)


@contextlib.contextmanager
def traced(pid: int, log: Path) -> Iterator[None]:
    """The process ``pid``, its children and all their threads write their calls to ``log`` while the block lasts."""
    names = ",".join(("ftruncate", "fallocate", *WRITES, *SYNCS, *RENAMES, *FOLDERS, *OPENS, *SENDS))
    command = [tool("strace"), "-f", "-yy", "-s", "24", "-e", f"trace={names}", "-o", str(log)]
    command += [word for process in family(pid) for word in ("-p", str(process))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as strace:
        assert strace.stderr is not None
        wait_for(lambda: _is_traced(pid) or strace.poll() is not None, 10, "strace to attach")
        if strace.poll() is not None:
            pytest.skip(f"strace may not attach here: {strace.stderr.read().decode().strip()}")
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)
            strace.communicate(timeout=30)


def _is_traced(pid: int) -> bool:
    statuses = [p.read_text() for one in family(pid) for p in Path(f"/proc/{one}/task").glob("*/status")]
    return all("TracerPid:\t0" not in status for status in statuses)
