"""Events are counted in the right place, and nobody outside can make series without end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from overread.domain import events
from overread.domain.backlog import Backlog
from overread.observe import state
from overread.observe.labels import Bounded
from overread.observe.metrics import Metrics

MODEL = "ct_chest"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("0.1.0", models=[MODEL], destinations=["pacs"])


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"overread_{name}", labels)


def received(caller: str = "CT1", size: int = 1000) -> events.InstanceReceived:
    return events.InstanceReceived(caller, "1.2.3", "1.2", size, 0.004)


def test_every_kind_of_event_is_counted(metrics: Metrics) -> None:
    assert metrics.handled() == frozenset(events.Event.__subclasses__())


def test_an_unknown_event_is_ignored(metrics: Metrics) -> None:
    metrics(events.Event())


def test_instances_and_bytes_by_calling_ae(metrics: Metrics) -> None:
    metrics(received())
    metrics(received(size=500))
    assert value(metrics, "instances_received_total", calling_ae="CT1") == 2
    assert value(metrics, "received_bytes_total", calling_ae="CT1") == 1500
    assert value(metrics, "receive_duration_seconds_count") == 2
    assert (value(metrics, "last_instance_timestamp_seconds") or 0) > 1.7e9


def test_what_became_of_instances_in_the_ledger(metrics: Metrics) -> None:
    metrics(events.InstancesIndexed(100, 7, 0))
    metrics(events.InstancesIndexed(50, 0, 2))
    names = ("instances_indexed_total", "instances_duplicate_total", "instances_conflicting_total")
    assert [value(metrics, name) for name in names] == [150, 7, 2]


def test_a_comparison_of_spool_and_ledger_replaces_the_one_before(metrics: Metrics) -> None:
    for count in (9, 4):
        metrics(events.SpoolDiscrepancy("missing", count))
    assert value(metrics, "spool_discrepancies", kind="missing") == 4
    assert value(metrics, "spool_discrepancies", kind="half-written") == 0


def test_associations_open_and_close(metrics: Metrics) -> None:
    metrics(events.AssociationOpened("CT1", "127.0.0.1"))
    metrics(events.AssociationOpened("CT2", "127.0.0.1"))
    metrics(events.AssociationClosed("CT1"))
    assert value(metrics, "associations_open") == 1
    assert value(metrics, "associations_total") == 2


def test_refusals_by_reason_and_status(metrics: Metrics) -> None:
    metrics(events.AssociationRefused("WHO", "127.0.0.1", "calling-ae"))
    metrics(events.InstanceRefused("CT1", 0xA700, "storage full"))
    assert value(metrics, "associations_refused_total", reason="calling-ae") == 1
    assert value(metrics, "instances_refused_total", status="0xA700") == 1


def test_studies_and_routing(metrics: Metrics) -> None:
    metrics(events.StudyCompleted("1.2.3", 300, 0))
    metrics(events.StudyRouted("1.2.3", 2, 3))
    names = ("studies_completed_total", "studies_routed_total", "routed_jobs_total", "routing_declined_total")
    assert [value(metrics, name) for name in names] == [1, 1, 2, 3]


def test_jobs_stages_and_results(metrics: Metrics) -> None:
    metrics(events.JobMoved(1, MODEL, "1.2.3", "RUNNING", "DELIVERING", ""))
    metrics(events.StageTimed(MODEL, "infer", 12.0))
    metrics(events.ResultArrived(MODEL, 100.0))
    assert value(metrics, "job_transitions_total", model=MODEL, state="DELIVERING") == 1
    assert value(metrics, "stage_duration_seconds_sum", model=MODEL, stage="infer") == 12
    assert value(metrics, "result_latency_seconds_bucket", model=MODEL, le="90.0") == 0
    assert value(metrics, "result_latency_seconds_bucket", model=MODEL, le="120.0") == 1


def test_a_model_is_loaded_until_its_worker_dies(metrics: Metrics) -> None:
    metrics(events.ModelLoaded(MODEL, "cpu", 4.0))
    assert value(metrics, "model_loaded", model=MODEL, device="cpu") == 1
    metrics(events.WorkerDied(MODEL, "memory"))
    assert value(metrics, "model_loaded", model=MODEL, device="cpu") == 0
    assert value(metrics, "worker_deaths_total", model=MODEL, reason="memory") == 1
    assert value(metrics, "model_load_duration_seconds_sum", model=MODEL, device="cpu") == 4


def test_a_model_whose_process_is_replaced_has_not_died(metrics: Metrics) -> None:
    metrics(events.ModelLoaded(MODEL, "cpu", 4.0))
    metrics(events.ModelReplaced(MODEL))
    assert value(metrics, "model_loaded", model=MODEL, device="cpu") == 0
    assert not value(metrics, "worker_deaths_total", model=MODEL, reason="crash")


def test_deliveries_and_troubles(metrics: Metrics) -> None:
    metrics(events.DeliveryTried("pacs", "seg", "unreachable", 30.0))
    metrics(events.Trouble("deliver", "OSError"))
    labels = {"destination": "pacs", "kind": "seg", "outcome": "unreachable"}
    assert value(metrics, "delivery_attempts_total", **labels) == 1
    assert value(metrics, "delivery_duration_seconds_sum", destination="pacs") == 30
    assert value(metrics, "troubles_total", where="deliver", error="OSError") == 1


def test_what_can_be_known_starts_at_zero(metrics: Metrics) -> None:
    """Without a first 0, Prometheus does not see the first failure as an increase."""
    assert value(metrics, "job_transitions_total", model=MODEL, state="FAILED") == 0
    assert value(metrics, "worker_deaths_total", model=MODEL, reason="crash") == 0
    assert value(metrics, "associations_refused_total", reason="storage-full") == 0
    assert value(metrics, "instances_refused_total", status="0xA700") == 0
    assert value(metrics, "delivery_attempts_total", destination="pacs", kind="sr", outcome="rejected") == 0


def test_a_stranger_makes_a_hundred_series_and_no_more(metrics: Metrics) -> None:
    for number in range(500):
        metrics(received(f"AE{number}"))
    metrics(received("AE7"))
    callers = [
        sample
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "overread_instances_received_total"
    ]
    assert len(callers) == 101
    assert value(metrics, "instances_received_total", calling_ae="other") == 400
    assert value(metrics, "instances_received_total", calling_ae="AE7") == 2


def test_refused_strangers_use_up_no_names(metrics: Metrics) -> None:
    for number in range(500):
        metrics(events.AssociationRefused(f"AE{number}", "127.0.0.1", "calling-ae"))
    metrics(received("CT1"))
    assert value(metrics, "instances_received_total", calling_ae="CT1") == 1


def test_no_uid_and_no_address_becomes_a_label(metrics: Metrics) -> None:
    uid = "1.2.840.99999.7"
    metrics(events.AssociationOpened("CT1", "192.0.2.77"))
    metrics(events.InstanceReceived("CT1", uid, uid, 1, 0.1))
    metrics(events.JobMoved(1, MODEL, uid, "RUNNING", "FAILED", uid))
    metrics(events.StudyCompleted(uid, 1, 0))
    text = generate_latest(metrics.registry).decode()
    assert uid not in text
    assert "192.0.2.77" not in text


@pytest.mark.parametrize("name", ["a\nb", 'a"b', "a\\b", "\x00\x1b[31m", "\ud800", "", " ", "é" * 500, "\u2028"])
def test_no_calling_ae_breaks_the_exposition(metrics: Metrics, name: str) -> None:
    metrics(received(name))
    text = generate_latest(metrics.registry).decode()
    families = list(text_string_to_metric_families(text))
    assert sum(f.name == "overread_instances_received" for f in families) == 1
    assert generate_openmetrics(metrics.registry).endswith(b"# EOF\n")


def test_bounded_from_many_threads() -> None:
    bounded, seen = Bounded(most=10), list[str]()

    def ask(start: int) -> None:
        seen.extend(bounded(str(start + n)) for n in range(200))

    threads = [threading.Thread(target=ask, args=(n * 50,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 11


def test_two_processes_worth_of_metrics_do_not_share_anything() -> None:
    one, other = Metrics("1"), Metrics("1")
    one(events.StudyCompleted("1.2.3", 1, 0))
    assert value(one, "studies_completed_total") == 1
    assert value(other, "studies_completed_total") == 0


def test_backlog_is_read_at_each_scrape_with_zeros_for_what_is_configured(metrics: Metrics) -> None:
    reads: list[int] = []

    def read() -> Backlog:
        reads.append(1)
        return Backlog({"RECEIVING": len(reads)}, {(MODEL, "SCHEDULED"): 4}, {("pacs", "PENDING"): 2}, 12.5, 3.0)

    metrics.watch_backlog(read)
    assert not reads
    text = generate_latest(metrics.registry).decode()
    assert len(reads) == 1
    for line in (
        'overread_studies{state="RECEIVING"} 1.0',
        'overread_jobs{model="ct_chest",state="SCHEDULED"} 4.0',
        'overread_jobs{model="ct_chest",state="FAILED"} 0.0',
        'overread_deliveries{destination="pacs",state="PENDING"} 2.0',
        'overread_deliveries{destination="pacs",state="FAILED"} 0.0',
        "overread_oldest_job_age_seconds 12.5",
        "overread_oldest_delivery_age_seconds 3.0",
        "overread_ledger_up 1.0",
    ):
        assert line in text.splitlines()


def test_a_broken_ledger_costs_its_own_numbers_only(metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
    def read() -> Backlog:
        raise RuntimeError("SELECT … parameters: Doe^John")

    metrics.watch_backlog(read)
    metrics(events.StudyCompleted("1.2.3", 1, 0))
    text = generate_latest(metrics.registry).decode()
    assert "overread_ledger_up 0.0" in text
    assert "overread_studies_completed_total 1.0" in text
    assert "overread_jobs{" not in text
    assert "Doe" not in caplog.text


def test_a_hanging_ledger_holds_one_scrape_and_not_the_next(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_LEDGER_PATIENCE_S", 0.05)
    begun, release = threading.Event(), threading.Event()

    def read() -> Backlog:
        begun.set()
        release.wait(20)
        return Backlog()

    metrics.watch_backlog(read)
    first = threading.Thread(target=generate_latest, args=(metrics.registry,))
    first.start()
    assert begun.wait(10)
    assert value(metrics, "ledger_up") == 0
    release.set()
    first.join(10)
    assert value(metrics, "ledger_up") == 1


def test_disk_under_the_spool(metrics: Metrics, tmp_path: Path) -> None:
    metrics.watch_disk(tmp_path)
    free, size = value(metrics, "spool_free_bytes"), value(metrics, "spool_size_bytes")
    assert free is not None and size is not None
    assert 0 < free <= size


def test_a_disk_that_is_gone_does_not_break_the_scrape(metrics: Metrics, tmp_path: Path) -> None:
    metrics.watch_disk(tmp_path / "gone")
    assert "overread_spool_free_bytes " not in generate_latest(metrics.registry).decode()
    assert value(metrics, "build_info", version="0.1.0", python=__import__("platform").python_version()) == 1
