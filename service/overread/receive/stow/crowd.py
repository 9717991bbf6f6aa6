"""Requests for which the gate has no place yet: somebody slow makes way for them, the newest first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from overread.receive.stow.doorkeeper import Guest, Turned

# How long a request waits for a place, and how often it asks.
PATIENCE_S, STEP_S = 0.8, 0.02


class Crowd:
    """Waits for a place. Who came last goes first: what floods has come before, and a patient line would serve it all.

    Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: list[object] = []

    def wait(self, ask: Callable[[], Guest | Turned], make_way: Callable[[], bool]) -> Guest | Turned:
        """Ask until there is a place or patience ends. ``make_way`` frees one if it can, and says whether it did."""
        place, until = object(), time.monotonic() + PATIENCE_S
        with self._lock:
            self._line.append(place)
        try:
            answer = ask()
            while isinstance(answer, Turned) and answer.crowded and time.monotonic() < until:
                if self._line[-1] is not place or not make_way():
                    time.sleep(STEP_S)
                if self._line[-1] is place:
                    answer = ask()
            return answer
        finally:
            with self._lock:
                self._line.remove(place)
