"""One herald made of several: what fails in one of them reaches neither the others nor the caller."""

from __future__ import annotations

import logging
from collections.abc import Callable

from overread.domain.events import Event
from overread.ports import Herald

_log = logging.getLogger(__name__)


class Heralds:
    """Gives each event to every herald in turn (metrics, log, audit …). Never raises.

    ``on_failure`` is called for each event that one herald failed to take, usually ``Metrics.count_herald_failure``.
    The first failure of each herald is also logged, with the class of the error only.
    """

    def __init__(self, *heralds: Herald, on_failure: Callable[[], None]) -> None:
        self._heralds = heralds
        self._on_failure = on_failure
        self._complained: set[int] = set()

    def __call__(self, event: Event) -> None:
        """Tell everybody."""
        for number, herald in enumerate(self._heralds):
            try:
                herald(event)
            except Exception as error:  # an edge: watching must never stop what is watched
                self._note(number, event, error)

    def _note(self, number: int, event: Event, error: Exception) -> None:
        try:
            self._on_failure()
            if number not in self._complained:
                self._complained.add(number)
                _log.error("herald %d cannot take %s: %s", number, type(event).__name__, type(error).__name__)
        except Exception:  # the same edge: nobody is left to tell
            return
