"""The guard of a model's process: its parent, which inherits what it leaves behind, and ends that.

A process that a model has started becomes, when its parent dies, the child of the nearest ancestor that reaps
(prctl(2), PR_SET_CHILD_SUBREAPER). Were that the init process, nobody could tell any more whose it was. The guard is a
process of ours outside the cage with nothing in its memory, and whatever it is the parent of is the model's.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from typing import NoReturn

from overread.infer import family

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PID = struct.Struct("i")


def stand(vigil: int, channel: int, keeper: int) -> int:
    """Fork: returns the guard's number in the model's process; this one stays as the guard and ends as that does.

    ``vigil`` is told the number of the model's process. With ``keeper``, its parent, the guard ends, and all of them.
    """
    signal.signal(signal.SIGTERM, lambda *_: _end_all())
    libc = ctypes.CDLL(None)
    if sys.platform == "linux":
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != keeper:
        os._exit(1)
    guard = os.getpid()
    worker = os.fork()
    if not worker:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(vigil)
        return guard
    os.write(vigil, PID.pack(worker))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)  # the keeper is to hear when the last of the model's has closed its own
    for descriptor in (vigil, channel, null):
        os.close(descriptor)
    _end_like(_wait(worker))


def _wait(worker: int) -> int:
    """How the model's process ended."""
    while True:
        pid, status = os.waitpid(-1, 0)  # others are what it has left to us already
        if pid == worker:
            family.end(os.getpid())
            return status


def _end_like(status: int) -> NoReturn:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def _end_all() -> NoReturn:
    family.end(os.getpid())
    os._exit(1)
