"""A PACS that was asked for storage commitment reports on an association of its own to the listener."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role

from overread.domain.events import Event
from overread.receive.commitment.request import PUSH_MODEL, WELL_KNOWN_INSTANCE
from overread.receive.commitment_report import PROCESSING_FAILURE, SUCCESS, Reports
from overread.receive.upper_layer import FAST, STOCK
from overread.spool.answers import AnswerBox

from .conftest import CT, EXPLICIT, House


def _report(transaction_uid: str, uid: str) -> Dataset:
    item, information = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, uid
    information.TransactionUID, information.ReferencedSOPSequence = transaction_uid, [item]
    return information


def _reported(home: House, information: Dataset) -> int:
    """The status of the answer to an N-EVENT-REPORT of who also proposes to store."""
    pacs = AE("CT1")
    pacs.acse_timeout = pacs.dimse_timeout = pacs.network_timeout = 10
    pacs.add_requested_context(CT, EXPLICIT)
    pacs.add_requested_context(PUSH_MODEL)
    roles_proposed = [build_role(PUSH_MODEL, scu_role=False, scp_role=True)]
    line = pacs.associate("127.0.0.1", home.listener.port, ae_title="OVERREAD", ext_neg=roles_proposed)
    try:
        assert line.is_established
        answer, _ = line.send_n_event_report(information, 1, PUSH_MODEL, WELL_KNOWN_INSTANCE)
        return int(answer.Status)
    finally:
        line.release()


@pytest.mark.parametrize("layers", [FAST, STOCK])
def test_a_report_is_kept_before_it_is_acknowledged(house: Callable[..., House], tmp_path: Path, layers: Any) -> None:
    events: list[Event] = []
    box = AnswerBox(tmp_path / "answers")
    home = house(layers=layers, reports=Reports(box, events.append))
    assert _reported(home, _report("2.25.7", "1.2.3")) == SUCCESS
    ((_, kept),) = box.answers()
    assert (kept.transaction_uid, kept.succeeded) == ("2.25.7", {"1.2.3"})


def test_what_cannot_be_kept_is_not_acknowledged(house: Callable[..., House], tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("a file where the folder should be")
    events: list[Event] = []
    home = house(reports=Reports(AnswerBox(tmp_path / "answers"), events.append))
    assert _reported(home, _report("2.25.7", "1.2.3")) == PROCESSING_FAILURE
    assert events
