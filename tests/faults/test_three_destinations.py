"""1,000 results to three destinations, of which one is down and one loses every tenth object."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from house import free_ports, wait_for
from outgoing import Forgetful, fill

from overread.deliver.dimse import Calling, DimseDestination
from overread.deliver.outbox import Outbox, settle
from overread.deliver.patience import Patience
from overread.deliver.proofs import by_find
from overread.deliver.round import Terms
from overread.domain import events
from overread.domain.peer import Peer
from overread.ledger import destinations, open_ledger, views
from overread.simulate.pacs import Pacs
from overread.spool.files import dataset_start

pytestmark = pytest.mark.slow

NAMES = ("well", "forgetful", "down")


def outbox(ledger: object, name: str, port: int, data: Path, told: list[events.Event]) -> Outbox:
    peer = Peer(name.upper(), "127.0.0.1", port)
    there = DimseDestination(name, Calling(peer, "OVERREAD", timeout_s=20.0, associations=2), witness=by_find)
    terms = Terms(Patience(0.3, 2.0, 7 * 86400.0), "test", timeout_s=20.0)
    return Outbox(ledger, there, terms, lambda path: data / "spool" / path, told.append, concurrency=2)


@pytest.mark.timeout(240)
def test_a_thousand_results_to_three_destinations_of_which_one_is_down_and_one_forgets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The two that live get everything, whole and proven, and wait for nobody; what was forgotten was sent again. The
    third gets everything as soon as it is back, and nothing in between was lost or given up."""
    made = fill(tmp_path, 125, 8, dict.fromkeys(NAMES, ("seg", "sr")))
    assert len(made) == 1000
    ledger, told = open_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), []
    (dead_port,) = free_ports(1)
    with Pacs(tmp_path / "well", "WELL") as well, Forgetful(tmp_path / "forgetful", "FORGETFUL") as forgetful:
        ports = {"well": well.port, "forgetful": forgetful.port, "down": dead_port}
        boxes = [outbox(ledger, name, port, tmp_path, told) for name, port in ports.items()]
        started = time.monotonic()
        for box in boxes:
            box.start()

        def count(name: str, state: str) -> int:
            return views.backlog(ledger, 0).deliveries.get((name, state), 0)

        wait_for(lambda: count("well", "VERIFIED") == 1000, 90, lambda: f"well: {views.backlog(ledger, 0).deliveries}")
        well_s = time.monotonic() - started
        wait_for(lambda: count("forgetful", "VERIFIED") == 1000, 90, "the forgetful one's last")
        forgetful_s = time.monotonic() - started
        assert destinations.stand(ledger, "down").is_open
        assert count("down", "PENDING") == 1000
        assert len(forgetful.dropped) == 100
        assert {uid: forgetful.received[uid] for uid in forgetful.dropped} == dict.fromkeys(forgetful.dropped, 2)
        assert set(well.received.values()) == {1}
        with Pacs(tmp_path / "down", "DOWN", port=dead_port) as back:
            wait_for(lambda: count("down", "VERIFIED") == 1000, 90, "the third one's last")
            for pacs in (well, forgetful, back):
                _whole(tmp_path, pacs, made)
        for box in boxes:
            box.stop()
    settle(ledger, told.append)
    assert {moved.after for moved in told if isinstance(moved, events.JobMoved)} == {"COMPLETED"}
    assert [e.open for e in told if isinstance(e, events.DestinationTurned)] == [True, False]
    ledger.close()
    with capsys.disabled():
        took = time.monotonic() - started
        print(f"\n1,000 results: well {well_s:.0f} s, forgetful {forgetful_s:.0f} s, all three {took:.0f} s")
    assert not [t for t in threading.enumerate() if t.name.startswith("deliver ")]


def _whole(data: Path, pacs: Pacs, made: list) -> None:
    kept = {path.stem: path for path in pacs.files()}
    assert len(kept) == len(pacs.files()) == len(made)
    for result in made:
        sent, got = data / "spool" / result.path, kept[result.sop_instance_uid]
        assert _data_set(got) == _data_set(sent)


def _data_set(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(dataset_start(file))
        return file.read()
