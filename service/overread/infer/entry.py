"""Where a worker process begins: its guard and the cage first, then everything else, which is imported inside."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import socket
import sys

from overread.infer import guard
from overread.infer.cage import Cage, enter


def begin(channel: int, vigil: int, cage: Cage, keeper: int, start: bytes) -> None:
    """Entry point of a process that the keeper has started. ``start`` is a pickled ``protocol.Start``: what it is made
    of is not imported before the cage is shut. ``channel`` and ``vigil`` are inherited, see ``nursery``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = guard.stand(vigil, channel, keeper)
    os.set_inheritable(channel, False)
    os.setsid()
    sys.stdout = sys.stderr = open(2, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    faulthandler.enable(all_threads=False)
    walls = enter(cage, parent)
    from overread.infer.child import main

    main(socket.socket(fileno=channel), pickle.loads(start), walls)
