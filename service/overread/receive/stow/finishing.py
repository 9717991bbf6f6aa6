"""Instances of a request are judged and synced beside the thread that reads the next; the answer waits for all.

A sync that waits for the disk alone is as slow as one that waits with others, which file systems write together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
THREADS = 8


class Finishing(Generic[T]):
    """A few threads, for all connections. Nothing waits for one: when all are at work, the caller does it itself."""

    def __init__(self, threads: int = THREADS) -> None:
        self._free = threading.BoundedSemaphore(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stow-finish")

    def begin(self, work: Callable[[], T]) -> Future[T]:
        """Do ``work``, now or meanwhile."""
        if self._free.acquire(blocking=False):
            try:
                begun = self._pool.submit(work)
            except RuntimeError:  # it was stopped, or no thread can be had
                self._free.release()
            else:
                begun.add_done_callback(lambda _: self._free.release())
                return begun
        done: Future[T] = Future()
        done.set_result(work())
        return done

    def stop(self) -> None:
        """Wait for what was begun."""
        self._pool.shutdown()
