"""Events in, Prometheus metrics out. One ``Metrics`` for each role process; nothing here is global.

Every name starts with ``overread_``; times are in seconds, sizes in bytes. No label ever holds a UID or anything of a
patient, and every label has at most 100 values (``labels.Bounded``).
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from overread.domain import events
from overread.domain.backlog import Backlog
from overread.domain.death import KINDS as DEATHS
from overread.domain.device import Device
from overread.domain.job import JobState
from overread.domain.warm import Warm
from overread.observe import values
from overread.observe.devices import WarmCollector
from overread.observe.labels import Bounded
from overread.observe.state import BacklogCollector, DiskCollector


class Metrics:
    """All metrics of one process, in a registry of its own. Call it with an event (it is a ``Herald``).

    Naming ``models``, ``destinations`` and result ``kinds`` makes their series start at 0 instead of appearing with the
    first event, without which Prometheus cannot see a first failure.
    Thread-safe. Raises nothing for an event that it does not know: it is ignored.
    """

    def __init__(
        self,
        version: str,
        *,
        models: Sequence[str] = (),
        destinations: Sequence[str] = (),
        kinds: Sequence[str] = ("seg", "sr"),
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, read by nobody
        self.registry = CollectorRegistry(auto_describe=False)
        self._models, self._destinations = tuple(models), tuple(destinations)
        self._bounds: dict[str, Bounded] = {}
        self._callers: dict[str, tuple[Counter, Counter]] = {}
        ProcessCollector(registry=self.registry)
        self._make_receiving()
        self._make_reading()
        self._make_delivering()
        self._make_canary()
        self._make_service(version)
        self._start_at_zero(kinds)
        self._takers = self._table()

    def __call__(self, event: events.Event) -> None:
        """Count one event."""
        taker = self._takers.get(type(event))
        if taker is not None:
            taker(event)

    def handled(self) -> frozenset[type[events.Event]]:
        """The kinds of event that are counted."""
        return frozenset(self._takers)

    def count_herald_failure(self) -> None:
        """A herald raised and its event was dropped for it."""
        self._herald_failures.inc()

    def watch_backlog(self, read: Callable[[], Backlog]) -> None:
        """Export the ledger's backlog; ``read`` is called at each scrape, from another thread."""
        self.registry.register(BacklogCollector(read, self._models, self._destinations))

    def watch_warm(self, read: Callable[[], Sequence[Warm]], device: Callable[[], Sequence[Device]]) -> None:
        """Export what warm models hold and how the devices stand, asked at each scrape."""
        self.registry.register(WarmCollector(read, device))

    def watch_disk(self, path: Path) -> None:
        """Export free and total bytes of the file system under ``path``, asked at each scrape."""
        self.registry.register(DiskCollector(path))

    def _make_receiving(self) -> None:
        self._associations_open = self._gauge("associations_open", "Associations open now.")
        self._associations = self._counter("associations", "Associations accepted.")
        self._associations_refused = self._counter("associations_refused", "Associations refused.", "reason")
        self._connections_dropped = self._counter(
            "connections_dropped", "Connections ended before, or for want of places in, an association.", "reason"
        )
        self._certificate_left = self._gauge(
            "certificate_remaining_seconds", "Until a file of TLS expires; 86400 are a day, negative: it has.", "kind"
        )
        self._certificates_not_taken = self._counter(
            "certificates_not_taken", "Times that changed files of TLS could not be used; those from before still are."
        )
        self._instances = self._counter(
            "instances_received", "Instances acknowledged with 0x0000, duplicates included.", "calling_ae"
        )
        self._bytes = self._counter("received_bytes", "Bytes of the instances acknowledged.", "calling_ae")
        self._indexed = self._counter("instances_indexed", "New instances written to the ledger.")
        self._duplicates = self._counter(
            "instances_duplicate", "Instances acknowledged that were there already, counted when written to the ledger."
        )
        self._conflicts = self._counter(
            "instances_conflicting", "Instances that came with other content than before under the same UID."
        )
        self._discrepancies = self._gauge(
            "spool_discrepancies", "What the last comparison of spool and ledger found, by kind.", "kind"
        )
        self._instances_refused = self._counter(
            "instances_refused", "Instances answered with a failure, by C-STORE status.", "status"
        )
        self._requests = self._counter("stow_requests", "Requests of STOW-RS, by the HTTP status answered.", "status")
        self._receive_seconds = self._histogram(
            "receive_duration_seconds", "Seconds from a C-STORE request to its answer.", values.RECEIVE_S
        )
        self._last_instance = self._gauge(
            "last_instance_timestamp_seconds", "Unix time of the last instance acknowledged, 0 before the first."
        )
        self._commitments = self._counter(
            "commitment_requests", "Requests for storage commitment, by N-ACTION status.", "status"
        )
        self._committed = self._counter(
            "commitment_instances", "Instances that were asked to be committed, by verdict.", "verdict"
        )
        self._commitment_reports = self._counter(
            "commitment_reports", "Attempts to tell the outcome of a storage commitment.", "outcome"
        )
        self._completed = self._counter("studies_completed", "Studies found complete.")
        self._routed = self._counter("studies_routed", "Studies that routing has decided on.")
        self._routed_jobs = self._counter("routed_jobs", "Jobs that routing asked for.")
        self._declined = self._counter("routing_declined", "Pairs of study and model that routing declined.")

    def _make_reading(self) -> None:
        self._transitions = self._counter(
            "job_transitions", "Jobs that moved, by model and the state they moved to.", "model", "state"
        )
        self._stage_seconds = self._histogram(
            "stage_duration_seconds", "Seconds a job spent in a stage.", values.STAGE_S, "model", "stage"
        )
        self._load_seconds = self._histogram(
            "model_load_duration_seconds",
            "Seconds to make a model ready on a device.",
            values.LOAD_S,
            "model",
            "device",
        )
        self._loaded = self._gauge(
            "model_loaded", "1 since a worker loaded the model, 0 since that worker died.", "model", "device"
        )
        self._deaths = self._counter("worker_deaths", "Worker processes that died.", "model", "reason")
        self._evictions = self._counter("model_evictions", "Times that a model made way for another.", "model")
        self._shortages = self._counter(
            "memory_shortages", "Readings that ran out of memory, by what was tried next.", "model", "remedy"
        )
        self._rests = self._counter(
            "reading_rest_seconds", "Seconds that readings rested, so that urgent ones had the device.", "model"
        )
        self._unconfined = self._counter(
            "workers_unconfined", "Processes of models that the system did not let overread confine in full.", "network"
        )
        self._waits = self._histogram(
            "queue_wait_seconds", "Seconds from the planning of a job to its claim.", values.WAIT_S, "urgency"
        )
        self._overdue = self._counter("jobs_overdue", "Jobs that went before others, having waited too long.")
        self._late = self._counter("deadlines_missed", "Jobs whose results were not at home when wanted.", "model")
        self._latency = self._histogram(
            "result_latency_seconds",
            "Seconds from a study's last image to its results at home.",
            values.LATENCY_S,
            "model",
        )
        self._devices: dict[str, set[str]] = {}

    def _make_delivering(self) -> None:
        self._attempts = self._counter(
            "delivery_attempts", "Attempts to bring results home.", "destination", "kind", "outcome"
        )
        self._delivery_seconds = self._histogram(
            "delivery_duration_seconds", "Seconds an attempt took.", values.DELIVERY_S, "destination"
        )
        self._lost = self._counter(
            "deliveries_lost", "Results that a destination had proven and that are not there any more.", "destination"
        )
        self._turned = self._counter(
            "destination_turns", "Times that a destination's circuit breaker opened or closed.", "destination", "to"
        )

    def _make_canary(self) -> None:
        self._canaries = self._counter("canaries", "Canaries that came home, or did not.", "outcome")
        for outcome in values.CANARY_OUTCOMES:
            self._canaries.labels(outcome)
        self._canary_home = self._gauge("canary_home", "1 unless the latest canary did not come home.")
        self._canary_home.set(1)
        self._canary_latency = self._gauge(
            "canary_latency_seconds", "Seconds from sending the latest canary that came home to its proof."
        )

    def _canary_ended(self, event: events.CanaryEnded) -> None:
        self._canaries.labels(values.CANARY_OUTCOMES[0] if event.arrived else values.CANARY_OUTCOMES[1]).inc()
        self._canary_home.set(int(event.arrived))
        if event.arrived:
            self._canary_latency.set(event.seconds)

    def _make_service(self, version: str) -> None:
        self._troubles = self._counter("troubles", "Failures that were contained at an edge.", "where", "error")
        self._herald_failures = self._counter("herald_failures", "Events that metrics, logs or audit failed to take.")
        build = self._gauge("build_info", "Always 1; what runs is in the labels.", "version", "python")
        build.labels(version, platform.python_version()).set(1)

    def _start_at_zero(self, kinds: Sequence[str]) -> None:
        for reason in values.REFUSALS:
            self._associations_refused.labels(self._bound("reason", reason))
        for reason in values.DROPS:
            self._connections_dropped.labels(self._bound("drop", reason))
        for kind in values.DISCREPANCIES:
            self._discrepancies.labels(self._bound("discrepancy", kind))
        for status in values.STATUSES:
            self._instances_refused.labels(self._bound("status", f"0x{status:04X}"))
        self._start_commitment()
        for http_status in values.HTTP_STATUSES:
            self._requests.labels(self._bound("http_status", str(http_status)))
        for model in self._models:
            self._start_model(self._bound("model", model))
        for destination in self._destinations:
            self._start_destination(self._bound("destination", destination), kinds)

    def _start_commitment(self) -> None:
        for status in values.ACTION_STATUSES:
            self._commitments.labels(self._bound("action status", f"0x{status:04X}"))
        for verdict in ("committed", "failed"):
            self._committed.labels(verdict)
        for report in values.REPORTS:
            self._commitment_reports.labels(self._bound("report", report))

    def _start_model(self, model: str) -> None:
        for state in JobState:
            self._transitions.labels(model, self._bound("state", state.value))
        for stage in values.STAGES:
            self._stage_seconds.labels(model, self._bound("stage", stage))
        for death in DEATHS:
            self._deaths.labels(model, self._bound("death", death))
        for remedy in values.REMEDIES:
            self._shortages.labels(model, self._bound("remedy", remedy))
        for counter in (self._evictions, self._rests, self._late):
            counter.labels(model)
        self._latency.labels(model)

    def _start_destination(self, destination: str, kinds: Sequence[str]) -> None:
        self._delivery_seconds.labels(destination)
        self._lost.labels(destination)
        for turn in values.TURNS:
            self._turned.labels(destination, self._bound("turn", turn))
        for kind in kinds:
            for outcome in values.OUTCOMES:
                self._attempts.labels(destination, self._bound("kind", kind), self._bound("outcome", outcome))

    def _table(self) -> dict[type[events.Event], Callable[[Any], None]]:
        return {
            events.AssociationOpened: self._association_opened,
            events.AssociationClosed: lambda _: self._associations_open.dec(),
            events.AssociationRefused: lambda e: self._associations_refused.labels(
                self._bound("reason", e.reason)
            ).inc(),
            events.ConnectionDropped: lambda e: self._connections_dropped.labels(self._bound("drop", e.reason)).inc(),
            events.CertificateRead: self._certificate_read,
            events.CertificatesNotTaken: lambda _: self._certificates_not_taken.inc(),
            events.InstanceReceived: self._instance_received,
            events.InstanceRefused: lambda e: self._instances_refused.labels(
                self._bound("status", f"0x{e.status & 0xFFFF:04X}")
            ).inc(),
            events.RequestAnswered: lambda e: self._requests.labels(self._bound("http_status", str(e.status))).inc(),
            events.InstancesIndexed: self._instances_indexed,
            events.SpoolDiscrepancy: lambda e: self._discrepancies.labels(self._bound("discrepancy", e.kind)).set(
                e.count
            ),
            events.CommitmentRequested: lambda e: self._commitments.labels(
                self._bound("action status", f"0x{e.status & 0xFFFF:04X}")
            ).inc(),
            events.CommitmentJudged: self._commitment_judged,
            events.CommitmentReported: lambda e: self._commitment_reports.labels(
                self._bound("report", e.outcome)
            ).inc(),
            events.StudyCompleted: lambda _: self._completed.inc(),
            events.StudyRouted: self._study_routed,
            events.JobMoved: self._job_moved,
            events.ModelLoaded: self._model_loaded,
            events.ModelUnloaded: self._model_unloaded,
            events.ModelReplaced: lambda e: self._forget(self._bound("model", e.model)),
            events.WorkerDied: self._worker_died,
            events.WorkerUnconfined: lambda e: self._unconfined.labels("open" if e.network else "closed").inc(),
            events.MemoryShort: lambda e: self._shortages.labels(
                self._bound("model", e.model), self._bound("remedy", e.remedy)
            ).inc(),
            events.ReadingRested: lambda e: self._rests.labels(self._bound("model", e.model)).inc(e.seconds),
            events.JobClaimed: self._job_claimed,
            events.DeadlineMissed: lambda e: self._late.labels(self._bound("model", e.model)).inc(),
            events.StageTimed: self._stage_timed,
            events.DeliveryTried: self._delivery_tried,
            events.DeliveriesLost: lambda e: self._lost.labels(self._bound("destination", e.destination)).inc(e.count),
            events.DestinationTurned: self._destination_turned,
            events.ResultArrived: self._result_arrived,
            events.CanaryEnded: self._canary_ended,
            events.Trouble: self._trouble,
        }

    def _association_opened(self, _event: events.AssociationOpened) -> None:
        self._associations.inc()
        self._associations_open.inc()

    def _certificate_read(self, event: events.CertificateRead) -> None:
        left = self._certificate_left.labels(self._bound("certificate", event.kind))
        left.set_function(lambda: event.expires_at - time.time())

    def _instance_received(self, event: events.InstanceReceived) -> None:
        caller = self._bound("calling_ae", event.calling_ae)
        if caller not in self._callers:
            self._callers[caller] = self._instances.labels(caller), self._bytes.labels(caller)
        instances, size_bytes = self._callers[caller]
        instances.inc()
        size_bytes.inc(event.size_bytes)
        self._receive_seconds.observe(event.seconds)
        self._last_instance.set_to_current_time()

    def _instances_indexed(self, event: events.InstancesIndexed) -> None:
        self._indexed.inc(event.instances)
        self._duplicates.inc(event.duplicates)
        self._conflicts.inc(event.conflicts)

    def _commitment_judged(self, event: events.CommitmentJudged) -> None:
        self._committed.labels("committed").inc(event.committed)
        self._committed.labels("failed").inc(event.failed)

    def _study_routed(self, event: events.StudyRouted) -> None:
        self._routed.inc()
        self._routed_jobs.inc(event.jobs)
        self._declined.inc(event.declined)

    def _job_moved(self, event: events.JobMoved) -> None:
        self._transitions.labels(self._bound("model", event.model), self._bound("state", event.after)).inc()

    def _model_loaded(self, event: events.ModelLoaded) -> None:
        model, device = self._bound("model", event.model), self._bound("device", event.device)
        self._devices.setdefault(model, set()).add(device)
        self._load_seconds.labels(model, device).observe(event.seconds)
        self._loaded.labels(model, device).set(1)

    def _worker_died(self, event: events.WorkerDied) -> None:
        model = self._bound("model", event.model)
        self._deaths.labels(model, self._bound("death", event.reason)).inc()
        self._forget(model)

    def _model_unloaded(self, event: events.ModelUnloaded) -> None:
        self._forget(self._bound("model", event.model))
        self._evictions.labels(self._bound("model", event.model)).inc()

    def _job_claimed(self, event: events.JobClaimed) -> None:
        self._waits.labels(self._bound("urgency", event.urgency)).observe(event.waited_s)
        self._overdue.inc(int(event.overdue))

    def _forget(self, model: str) -> None:
        for device in tuple(self._devices.get(model, ())):
            self._loaded.labels(model, device).set(0)

    def _stage_timed(self, event: events.StageTimed) -> None:
        model, stage = self._bound("model", event.model), self._bound("stage", event.stage)
        self._stage_seconds.labels(model, stage).observe(event.seconds)

    def _destination_turned(self, event: events.DestinationTurned) -> None:
        turn = self._bound("turn", values.TURNS[0] if event.open else values.TURNS[1])
        self._turned.labels(self._bound("destination", event.destination), turn).inc()

    def _delivery_tried(self, event: events.DeliveryTried) -> None:
        destination = self._bound("destination", event.destination)
        kind, outcome = self._bound("kind", event.kind), self._bound("outcome", event.outcome)
        self._attempts.labels(destination, kind, outcome).inc()
        self._delivery_seconds.labels(destination).observe(event.seconds)

    def _result_arrived(self, event: events.ResultArrived) -> None:
        self._latency.labels(self._bound("model", event.model)).observe(event.seconds)

    def _trouble(self, event: events.Trouble) -> None:
        self._troubles.labels(self._bound("where", event.where), self._bound("error", event.error)).inc()

    def _bound(self, label: str, value: str) -> str:
        return self._bounds.setdefault(label, Bounded())(value)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"overread_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"overread_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"overread_{name}", text, labels, buckets=buckets, registry=self.registry)
