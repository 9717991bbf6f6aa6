"""Label values that cannot hurt: short, printable, and never more than a fixed number of them."""

from __future__ import annotations

import threading
from typing import Final

MOST_VALUES: Final = 100
OTHER: Final = "other"
NONE: Final = "none"
_LONGEST: Final = 64


class Bounded:
    """Lets the first ``most`` distinct values of one label pass and calls every later one ``other``.

    Values that come over the network (a calling AE title) would otherwise make a time series each. May be called from
    several threads.
    """

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, value: str) -> str:
        """The label value to use: ``none`` for an empty one, at most 64 printable characters, or ``other``."""
        if value in self._known:  # clean, then, and the way of nearly all
            return value
        clean = _clean(value)
        with self._lock:
            if clean in self._known:
                return clean
            if len(self._known) >= self._most:
                return OTHER
            self._known.add(clean)
            return clean


def _clean(value: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in value.strip()[:_LONGEST])
    return shown or NONE
