"""A modality stores, asks for commitment and hangs up, and the service is killed: it is told all the same, and once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from house import Service, Study, free_ports, scan, small_study, wait_for
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

COMMITMENT, ITS_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Reports:
    """What the modality was told: event type, committed and failed SOP Instance UIDs."""

    told: list[tuple[int, set[str], set[str]]] = field(default_factory=list)

    def take(self, event: Any) -> tuple[int, None]:
        information = event.event_information
        good, bad = (
            {str(item.ReferencedSOPInstanceUID) for item in information.get(keyword, [])}
            for keyword in ("ReferencedSOPSequence", "FailedSOPSequence")
        )
        self.told.append((event.event_type, good, bad))
        return 0x0000, None

    @property
    def handlers(self) -> list[tuple[Any, Any]]:
        return [(evt.EVT_N_EVENT_REPORT, self.take)]


@contextmanager
def modality(port: int, reports: Reports) -> Iterator[None]:
    """The modality listens for reports, as an SCU that lets itself be called."""
    entity = AE("SCANNER")
    entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=reports.handlers)
    try:
        yield
    finally:
        server.shutdown()


def ask(service: Service, transaction: str, uids: list[str], reports: Reports, stay: Callable[[], object]) -> int:
    """N-ACTION, then ``stay`` on the association; returns its status."""
    entity = AE("SCANNER")
    entity.add_requested_context(COMMITMENT)
    line = entity.associate(
        "127.0.0.1",
        service.port,
        ae_title="OVERREAD",
        ext_neg=[build_role(COMMITMENT, scu_role=True)],
        evt_handlers=reports.handlers,
    )
    assert line.is_established
    asked = Dataset()
    asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = []
    for uid in uids:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
        asked.ReferencedSOPSequence.append(item)
    status, _ = line.send_n_action(asked, 1, COMMITMENT, ITS_INSTANCE)
    stay()
    line.release()
    line.join(10)
    return int(status.Status)


def test_commitment_on_the_same_association_then_on_a_new_one_after_kill_9(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    peers = [{"ae_title": "SCANNER", "host": "127.0.0.1", "port": port}]
    one = service(receive={"commitment": {"first_retry_s": 0.5, "peers": peers}}).start()
    study = small_study(tmp_path, "committed")
    assert scan(one, study.files).stored
    reports = Reports()
    uids = study.instance_uids

    assert ask(one, "1.2.840.1", uids, reports, lambda: wait_for(lambda: reports.told, 20, "the report")) == 0
    assert reports.told == [(1, set(uids), set())]

    assert ask(one, "1.2.840.2", [*uids, "1.2.840.404"], reports, lambda: None) == 0  # nobody listens at its port yet
    one.kill()
    one.start()
    with modality(port, reports):
        wait_for(lambda: len(reports.told) > 1, 40, one.tail)
        said = one.rows("SELECT state FROM commitment ORDER BY id")
        wait_for(lambda: one.rows("SELECT DISTINCT state FROM commitment") == [("REPORTED",)], 20, f"both ({said})")
        time.sleep(1.0)
    assert reports.told[1:] == [(2, set(uids), {"1.2.840.404"})]
    _is_told(one, study)
    one.stop()


def _is_told(service: Service, study: Study) -> None:
    told = service.ask("explain", study.uid).stdout
    assert "Storage commitment for SCANNER" in told
    assert f"{len(study.instance_uids)} of {len(study.instance_uids) + 1} instances committed; reported" in told
    assert "commitments 2 REPORTED" in service.ask("status").stdout
    assert 'overread_commitment_reports_total{outcome="new-association"} 1.0' in service.page("listen", "metrics")[1]
