"""Questions about health: are the loops turning, can the work be done?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

Check = Callable[[], str | None]
"""None when all is well, else the reason, for an administrator to read."""

_PATIENCE_S: Final = 3.0


class Pulse:
    """Loops say that they turn, and whoever asks learns which do not.

    ``limits_s``: for each loop the seconds between two beats after which it counts as stuck. A loop that has not begun
    yet is given the same time. Thread-safe.
    """

    def __init__(self, limits_s: Mapping[str, float], now: Callable[[], float] = time.monotonic) -> None:
        self._limits_s = dict(limits_s)
        self._now = now
        self._last = dict.fromkeys(self._limits_s, now())

    def beat(self, loop: str) -> None:
        """``loop`` turns. Raises KeyError for a loop without a limit."""
        if loop not in self._limits_s:
            raise KeyError(loop)
        self._last[loop] = self._now()

    def stuck(self) -> list[str]:
        """Names of the loops that have not turned within their limit, with the seconds since they last did."""
        now = self._now()
        silent = {loop: now - self._last[loop] for loop in self._limits_s}
        return [f"{loop} ({silent[loop]:.0f} s)" for loop, limit in self._limits_s.items() if silent[loop] > limit]


class Questions:
    """Asks every check at once and waits at most ``patience_s`` in all.

    A check that does not answer counts as failing, and is not asked again before its earlier call returns, so that a
    hanging disk costs one thread and not one a question.
    """

    def __init__(self, checks: Mapping[str, Check], patience_s: float = _PATIENCE_S) -> None:
        self._checks = dict(checks)
        self._patience_s = patience_s
        self._asked: dict[str, _Asked] = {}
        self._lock = threading.Lock()

    def failing(self) -> dict[str, str]:
        """Reason by name of each check that fails, in the order in which they were given."""
        deadline = time.monotonic() + self._patience_s
        asked = {name: self._ask(name, check) for name, check in self._checks.items()}
        told = {name: one.answer(deadline, self._patience_s) for name, one in asked.items()}
        return {name: reason for name, reason in told.items() if reason is not None}

    def _ask(self, name: str, check: Check) -> _Asked:
        with self._lock:
            earlier = self._asked.get(name)
            if earlier is None or earlier.done.is_set():
                self._asked[name] = _Asked(name, check)
            return self._asked[name]


class _Asked:
    """One call of one check in a daemon thread."""

    def __init__(self, name: str, check: Check) -> None:
        self.done = threading.Event()
        self._check = check
        self._reason: str | None = None
        threading.Thread(target=self._run, name=f"check-{name}", daemon=True).start()

    def answer(self, deadline: float, patience_s: float) -> str | None:
        if not self.done.wait(max(0.0, deadline - time.monotonic())):
            return f"no answer within {patience_s:g} s"
        return self._reason

    def _run(self) -> None:
        try:
            self._reason = self._check()
        except Exception as error:  # an edge: a check that breaks is a check that fails
            self._reason = f"the check itself failed: {type(error).__name__}"
        finally:
            self.done.set()
