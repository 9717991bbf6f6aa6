"""APScheduler as a clock and nothing more: no job store, no truth, no missed tick dropped in silence."""

from __future__ import annotations

import time
from collections.abc import Callable

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from overread.domain.events import Trouble
from overread.ports import Herald

STUCK_S = 600.0


class Clock:
    """Calls functions every so many seconds, each in a thread of its own, never twice at once."""

    def __init__(self, herald: Herald, threads: int = 8) -> None:
        self._herald = herald
        self._beats: dict[str, float] = {}
        self._due_s: dict[str, float] = {}
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(threads)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
            timezone="UTC",
        )

    def every(self, seconds: float, name: str, work: Callable[[], object]) -> None:
        """Call ``work`` now and then every ``seconds``; what it raises is told and forgotten."""
        self._beats[name], self._due_s[name] = time.monotonic(), seconds

        def tick() -> None:
            try:
                work()
            except Exception as error:
                # The edge of a tick: the next one starts from what the ledger says, so nothing is lost by going on.
                self._herald(Trouble(name, type(error).__name__))
            self._beats[name] = time.monotonic()

        self._scheduler.add_job(tick, "interval", seconds=seconds, id=name, next_run_time=_soon())

    def start(self) -> None:
        """Begin to tick."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop ticking; what runs is waited for."""
        self._scheduler.shutdown(wait=True)

    def stuck(self) -> list[str]:
        """Names of functions that are ten minutes late."""
        now = time.monotonic()
        return [name for name, beat in self._beats.items() if now - beat > STUCK_S + self._due_s[name]]


def _soon() -> object:
    from datetime import UTC, datetime

    return datetime.now(UTC)
