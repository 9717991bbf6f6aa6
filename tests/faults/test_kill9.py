"""kill -9 of anything at any moment loses no acknowledged image, no study, and doubles no result."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from house import SEG, SR, Service, Study, dataset_bytes, destination, scan, small_study, tiny_model, wait_for
from pydicom import dcmread

from overread.domain.errors import Unreachable
from overread.simulate.pacs import Pacs

pytestmark = [pytest.mark.slow, pytest.mark.alone]

VICTIMS = ("listen", "work", "model", "watch", "keeper")
ROUNDS = 5
Make = Callable[..., Service]


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Pacs]:
    """A PACS that takes 0.2 s for each object, so that a delivery can be interrupted."""
    with Pacs(tmp_path / "pacs") as one:
        one.delay_s = 0.2
        yield one


@dataclass
class Scanner:
    """Sends a study until every instance is acknowledged, and remembers what was."""

    service: Service
    acknowledged: dict[str, bytes] = field(default_factory=dict)

    def send(self, study: Study, seconds: float = 90.0) -> None:
        left, deadline = list(study.files), time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            with contextlib.suppress(Unreachable):
                failed = {f.path for f in scan(self.service, left, tries=1, timeout_s=15).failed}
                for path in (p for p in left if p not in failed):
                    uid = str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
                    self.acknowledged[uid] = dataset_bytes(path)
                left = [p for p in left if p in failed]
            time.sleep(0.2 if left else 0.0)
        assert not left, f"{len(left)} instances were never acknowledged\n{self.service.tail()}"


def strike(service: Service, victim: str) -> bool:
    """kill -9; False when there was nobody to kill. A keeper takes all with it and is started again."""
    if victim == "keeper":
        service.kill()
        service.start(wait=False)
        return True
    if victim == "model":
        wait_for(service.model_pids, 30, "a model to be started")
    pids = service.model_pids() if victim == "model" else [service.role_pid(victim)]
    for pid in filter(None, pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


@pytest.mark.timeout(900)
def test_kill9_of_anything_at_any_moment(
    service: Make, pacs: Pacs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """25 studies, a kill at a random moment of each; the next study is sent while the earlier ones are still read."""
    rng, fallen = random.Random(20261121), Counter[str]()
    models = tiny_model(tmp_path / "models", attempts=10)
    started = time.monotonic()
    slow = {"quiet_s": 10.0, "quiet_by_modality_s": {}}
    house = service([destination("pacs", pacs.port)], models=models, assemble=slow)
    scanner = Scanner(house.start())
    studies = []
    for number, victim in enumerate(VICTIMS * ROUNDS):
        studies.append(small_study(tmp_path / "studies", f"kill-{number}"))
        sending = threading.Thread(target=scanner.send, args=(studies[-1],))
        sending.start()
        time.sleep(rng.uniform(0, 0.3 if victim == "listen" else 3.0))
        fallen[victim] += strike(house, victim)
        sending.join(120)
        assert not sending.is_alive()
    for study in studies:
        house.wait_states(study.uid, ["COMPLETED"], 240)
    with capsys.disabled():
        took = time.monotonic() - started
        print(f"\n{sum(fallen.values())} kills {dict(fallen)}, {len(studies)} studies whole after {took:.0f} s")
    assert sum(fallen.values()) >= 20
    _nothing_lost(house, scanner, studies)
    _nothing_doubled(pacs, studies)
    house.stop()
    assert not list((house.data / "spool" / "incoming").iterdir())


def _nothing_lost(house: Service, scanner: Scanner, studies: list[Study]) -> None:
    assert len(scanner.acknowledged) == sum(len(s.files) for s in studies)
    kept = {}
    for path in (house.data / "spool" / "instances").rglob("*.dcm"):
        kept[str(dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)] = dataset_bytes(path)
    assert kept.keys() == scanner.acknowledged.keys()
    assert [uid for uid, data in scanner.acknowledged.items() if kept[uid] != data] == []
    known = {uid for (uid,) in house.rows("SELECT sop_instance_uid FROM instance")}
    assert known == kept.keys()


def _nothing_doubled(pacs: Pacs, studies: list[Study]) -> None:
    held: dict[str, list[str]] = {s.uid: [] for s in studies}
    for path in pacs.files():
        result = dcmread(path, specific_tags=["StudyInstanceUID", "SOPClassUID"])
        held[str(result.StudyInstanceUID)].append(str(result.SOPClassUID))
    assert {uid: sorted(kinds) for uid, kinds in held.items()} == {s.uid: sorted([SEG, SR]) for s in studies}


@pytest.mark.parametrize("stage", ["sending", "reading", "delivering"])
def test_kill9_of_the_whole_service(service: Make, pacs: Pacs, tmp_path: Path, stage: str) -> None:
    """The keeper is killed at a known stage; no process is left behind, and a new start finishes the work."""
    house = service([destination("pacs", pacs.port)], assemble={"quiet_s": 6.0, "quiet_by_modality_s": {}}).start()
    study, scanner = small_study(tmp_path, stage), Scanner(house)
    pacs.delay_s = 2.0 if stage == "delivering" else 0.0
    sending = threading.Thread(target=scanner.send, args=(study,))
    sending.start()
    reached = {
        "sending": lambda: any((house.data / "spool" / "instances").rglob("*.dcm")),
        "reading": lambda: house.states(study.uid) == ["RUNNING"],
        "delivering": lambda: pacs.received,
    }
    wait_for(reached[stage], 90, stage)
    house.kill()
    pacs.delay_s = 0.0
    house.start(wait=False)
    sending.join(90)
    house.wait_states(study.uid, ["COMPLETED"])
    _nothing_lost(house, scanner, [study])
    _nothing_doubled(pacs, [study])
