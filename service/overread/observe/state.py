"""Numbers of state, read when Prometheus asks: the ledger's backlog and the room left on the spool's disk.

State survives a restart of the process, so it is never counted up and down in memory.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from overread.domain.backlog import Backlog
from overread.domain.job import JobState
from overread.domain.result import DeliveryState

_log = logging.getLogger(__name__)
_LEDGER_PATIENCE_S: Final = 5.0


class BacklogCollector(Collector):
    """Turns one ``Backlog`` a scrape into gauges.

    ``read`` is called from the HTTP server's threads, never twice at once. When it raises, or an earlier call has not
    returned for five seconds, the scrape still succeeds and holds nothing of the backlog but ``overread_ledger_up 0``.
    """

    def __init__(
        self, read: Callable[[], Backlog], models: Sequence[str] = (), destinations: Sequence[str] = ()
    ) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._jobs = {(m, s.value): 0 for m in models for s in JobState}
        self._deliveries = {(d, s.value): 0 for d in destinations for s in DeliveryState}
        self._destinations = tuple(destinations)

    def describe(self) -> Iterable[Metric]:
        """Names without numbers, so that registering does not read the ledger."""
        yield _ledger_up(False)
        yield from _families(Backlog())

    def collect(self) -> Iterator[Metric]:
        """Read the ledger once."""
        backlog = self._try_read()
        yield _ledger_up(backlog is not None)
        if backlog is not None:
            yield from _families(
                Backlog(
                    studies=backlog.studies,
                    jobs=self._jobs | backlog.jobs,
                    deliveries=self._deliveries | backlog.deliveries,
                    oldest_job_s=backlog.oldest_job_s,
                    oldest_delivery_s=backlog.oldest_delivery_s,
                    open_destinations=backlog.open_destinations,
                ),
                self._destinations,
            )

    def _try_read(self) -> Backlog | None:
        if not self._lock.acquire(timeout=_LEDGER_PATIENCE_S):
            _log.warning("the ledger has not answered an earlier scrape yet")
            return None
        try:
            return self._read()
        except Exception as error:  # an edge: a broken ledger must show as a number, not as a missing scrape
            _log.warning("the ledger could not be read for a scrape: %s", type(error).__name__)
            return None
        finally:
            self._lock.release()


class DiskCollector(Collector):
    """Free and total bytes of the file system that holds ``path``; nothing when it cannot be asked."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def describe(self) -> Iterable[Metric]:
        """Names without numbers."""
        return _disk(None)

    def collect(self) -> Iterator[Metric]:
        """Ask the operating system once."""
        try:
            usage = shutil.disk_usage(self._path)
        except OSError as error:
            _log.warning("the spool's disk cannot be asked for its free space: %s", error.strerror)
            return
        yield from _disk((usage.free, usage.total))


def _ledger_up(up: bool) -> Metric:
    return GaugeMetricFamily("overread_ledger_up", "1 when the ledger answered this scrape, else 0.", value=float(up))


def _families(backlog: Backlog, destinations: Sequence[str] = ()) -> Iterator[Metric]:
    studies = GaugeMetricFamily("overread_studies", "Studies in the ledger by state.", labels=["state"])
    for state, count in sorted(backlog.studies.items()):
        studies.add_metric([state], count)
    yield studies
    jobs = GaugeMetricFamily("overread_jobs", "Jobs in the ledger by model and state.", labels=["model", "state"])
    for job, count in sorted(backlog.jobs.items()):
        jobs.add_metric(list(job), count)
    yield jobs
    deliveries = GaugeMetricFamily(
        "overread_deliveries", "Deliveries in the ledger by destination and state.", labels=["destination", "state"]
    )
    for delivery, count in sorted(backlog.deliveries.items()):
        deliveries.add_metric(list(delivery), count)
    yield deliveries
    breakers = GaugeMetricFamily(
        "overread_destination_open",
        "1 while a destination's circuit breaker is open and nothing but probes is sent to it, else 0.",
        labels=["destination"],
    )
    for name in destinations:
        breakers.add_metric([name], float(name in backlog.open_destinations))
    yield breakers
    yield GaugeMetricFamily(
        "overread_oldest_job_age_seconds",
        "Age of the oldest job that waits for a worker, 0 when none waits.",
        value=backlog.oldest_job_s,
    )
    yield GaugeMetricFamily(
        "overread_oldest_delivery_age_seconds",
        "Age of the oldest delivery that waits for its destination, 0 when none waits.",
        value=backlog.oldest_delivery_s,
    )


def _disk(usage: tuple[int, int] | None) -> Iterator[Metric]:
    free, size = usage or (None, None)
    yield GaugeMetricFamily("overread_spool_free_bytes", "Bytes that may still be written to the spool.", value=free)
    yield GaugeMetricFamily("overread_spool_size_bytes", "Bytes of the file system under the spool.", value=size)
