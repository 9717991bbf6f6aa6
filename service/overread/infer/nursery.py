"""How a worker process comes into being: what it inherits, and nothing else.

Python's multiprocessing would give it a pipe to the keeper's resource tracker, and a pipe by which the keeper learns of
its end; a model could write to both.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

from overread.domain.errors import WorkerLost
from overread.infer import blocks
from overread.infer.cage import Cage
from overread.infer.guard import PID
from overread.infer.protocol import Start

BIRTH_S = 60.0  # within which a bare interpreter starts, on whatever machine
CODE = (
    "import pickle, sys; path, given = pickle.load(open(int(sys.argv[1]), 'rb')); sys.path[:] = path; "
    "from overread.infer.entry import begin; begin(*pickle.loads(given))"
)


@dataclass(frozen=True)
class Newborn:
    """A worker process: ``guard`` is its parent (``guard``), ``pid`` its own number; ``said`` gives what it writes."""

    guard: subprocess.Popen[bytes]
    pid: int
    channel: socket.socket
    said: int


def start(cage: Cage, what: Start) -> Newborn:
    """Start one; raises WorkerLost when it does not come to be."""
    ours, theirs = socket.socketpair()
    said, saying = os.pipe()
    vigil, telling = os.pipe()
    try:
        with theirs, ExitStack() as handed:
            inherited = (theirs.fileno(), telling)
            given = pickle.dumps((*inherited, cage, os.getpid(), pickle.dumps(what)))
            opening = blocks.written(pickle.dumps((sys.path, given)))
            for descriptor in (saying, telling, opening):
                handed.callback(os.close, descriptor)
            guard = _run([sys.executable, "-c", CODE, str(opening)], saying, (*inherited, opening))
        return Newborn(guard, _told(vigil, guard), ours, said)
    except BaseException:
        ours.close()
        os.close(said)
        raise
    finally:
        os.close(vigil)


def _run(command: list[str], output: int, inherited: tuple[int, ...]) -> subprocess.Popen[bytes]:
    def run() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=inherited,
            start_new_session=True,
        )

    if threading.current_thread() is threading.main_thread():
        return run()
    return _thread().submit(run).result()


def _told(vigil: int, guard: subprocess.Popen[bytes]) -> int:
    """The number of the worker process."""
    waiting = select.poll()
    waiting.register(vigil, select.POLLIN)
    said = os.read(vigil, PID.size) if waiting.poll(BIRTH_S * 1000) else b""
    if len(said) < PID.size:
        guard.kill()
        guard.wait()
        raise WorkerLost("the model's process could not be started")
    return int(PID.unpack(said)[0])


@cache
def _thread() -> ThreadPoolExecutor:
    # A process dies with the thread that has started it (PR_SET_PDEATHSIG), so that this one starts them all.
    return ThreadPoolExecutor(1, thread_name_prefix="nursery")
