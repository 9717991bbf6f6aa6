"""Several windows at a time on a CPU, each by one thread.

Threads that share one convolution wait for each other at its end, spinning; on a machine with other work that may cost
more than the convolution. Threads that have a window each do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

MEMBERS = 4  # each has the activations of a window


class Crew:
    """``members`` threads that run ``network``; ``around`` makes what each enters (autocast is a thread's own)."""

    def __init__(
        self, network: Callable[..., Any], members: int, around: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        self._network, self._around, self.members = network, around, members
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def at_work(self) -> Iterator[Crew]:
        """The threads are there; each, and this one, works alone meanwhile."""
        before = torch.get_num_threads()
        torch.set_num_threads(max(1, before // self.members))
        with ThreadPoolExecutor(self.members, "window") as pool:
            self._pool = pool
            try:
                yield self
            finally:
                self._pool = None
                torch.set_num_threads(before)

    def __call__(self, windows: torch.Tensor) -> Iterator[Any]:
        """The answers to ``windows`` (n, channels, x, y, z): to the first of them, and so on, as they are asked for."""
        if self._pool is None or len(windows) < 2 or windows.is_cuda:
            return iter((self._network(windows),))
        return self._pool.map(self._one, windows.chunk(self.members))

    def _one(self, windows: torch.Tensor) -> Any:
        with torch.inference_mode(), self._around():
            return self._network(windows)


def members(device: torch.device) -> int:
    """How many windows at a time."""
    return 1 if device.type != "cpu" else max(1, min(MEMBERS, torch.get_num_threads()))
