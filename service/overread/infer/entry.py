"""Where a worker process begins: the cage first, then everything else, which is imported inside."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection

from overread.infer.cage import Cage, enter


def begin(pipe: Connection, said: Connection, cage: Cage, keeper: int, start: bytes) -> None:
    """Entry point of the spawned process. ``start`` is a pickled ``protocol.Start``: what it is made of is not imported
    before the cage is shut. What the process writes goes to ``said``."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in (1, 2):
        os.dup2(said.fileno(), descriptor)
    said.close()
    sys.stdout = sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    faulthandler.enable()
    walls = enter(cage, keeper)
    from overread.infer.child import main

    main(pipe, pickle.loads(start), walls)
