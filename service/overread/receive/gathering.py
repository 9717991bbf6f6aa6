"""What one thread puts into a queue one by one, and another takes out in batches."""

from __future__ import annotations

import queue
import time
from typing import Any

ENOUGH = 100
LINGER_S = 0.02
BEAT_S = 1.0


def gather(waiting: queue.SimpleQueue[Any]) -> tuple[list[Any], bool]:
    """What has come, after at most a second, and whether a None says that no more will.

    The first waits a moment for others, so that under load batches are few and large.
    """
    batch: list[Any] = []
    until = time.monotonic() + BEAT_S
    while len(batch) < ENOUGH:
        try:
            one = waiting.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            break
        if one is None:
            return batch, True
        if not batch:
            until = time.monotonic() + LINGER_S
        batch.append(one)
    return batch, False
