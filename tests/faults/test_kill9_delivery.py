"""kill -9 of who delivers, at random moments of sending, proving and writing down: nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from house import Service, dataset_bytes, destination, wait_for
from outgoing import Forgetful, fill

from overread.simulate.mischief import Fault, Mishap
from overread.simulate.pacs import Pacs

pytestmark = pytest.mark.slow

KILLS = 30
Make = Callable[..., Service]


@dataclass
class Sender:
    """The role ``watch`` of a service, killed and started again."""

    service: Service
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        command = [sys.executable, "-m", "overread", "--config", str(self.service.config), "run", "--role", "watch"]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with self.service.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.service.tail()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)

    def states(self) -> Counter[str]:
        return Counter(state for (state,) in self.service.rows("SELECT state FROM delivery"))


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[list[Pacs]]:
    """Two PACS that take their time, one of which loses every tenth object."""
    with Pacs(tmp_path / "one", "ONE") as one, Forgetful(tmp_path / "two", "TWO") as two:
        one.delay_s = two.delay_s = 0.005
        yield [one, two]


@pytest.fixture
def sender(service: Make, pacs: list[Pacs]) -> Iterator[Sender]:
    to = [destination(p.ae_title.lower(), p.port, first_retry_s=0.2, longest_retry_s=0.5) for p in pacs]
    made = Sender(service(to, role="watch"))
    yield made
    made.end()


@pytest.mark.timeout(400)
def test_kill9_at_thirty_random_moments_of_delivery(
    sender: Sender, pacs: list[Pacs], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each start sends a little further; every result ends proven at both, bit by bit and once, and no job waits."""
    rng, started, fallen = random.Random(20261121), time.monotonic(), Counter[str]()
    kinds = {p.ae_title.lower(): ("seg", "sr") for p in pacs}
    made = fill(sender.service.data, 80, 6, kinds, pad=20_000)
    kills = 0
    while kills < KILLS:
        before = sum(sum(p.received.values()) for p in pacs)
        sender.start()
        wait_for(lambda before=before: _moved(sender, pacs, before), 30, sender.service.tail)
        time.sleep(rng.uniform(0.0, 0.8))
        sender.kill()
        kills += 1
        fallen.update(_where(sender))
    sender.start()
    total = len(made) * len(pacs)
    wait_for(lambda: sender.states()["VERIFIED"] == total, 120, lambda: f"{sender.states()} {sender.service.tail()}")
    wait_for(lambda: sender.service.rows("SELECT 1 FROM job WHERE state != 'COMPLETED'") == [], 20, "the jobs' end")
    for one in pacs:
        kept = {path.stem: path for path in one.files()}
        assert len(one.files()) == len(kept) == len(made)
        for result in made:
            sent = sender.service.data / "spool" / result.path
            assert dataset_bytes(kept[result.sop_instance_uid]) == dataset_bytes(sent)
    again = sum(n - 1 for p in pacs for n in p.received.values())
    assert again <= kills * len(pacs) * 2 * 54 + len(made), "only what was under way is sent again"
    with capsys.disabled():
        took = time.monotonic() - started
        print(f"\n{kills} kills in {took:.0f} s; {again} of {total} were sent again; struck while {dict(fallen)}")


STEPS = {
    "the association is open": Mishap.STALL_ACCEPTED,
    "an object is on its way": Mishap.STALL_TRANSFER,
    "it is kept and not yet acknowledged": Mishap.STALL_RESPONSE,
    "the PACS is asked for it": Mishap.STALL_QUERY,
}


@pytest.mark.timeout(120)
def test_kill9_at_every_step_of_delivery(service: Make, tmp_path: Path) -> None:
    """The PACS holds still at a step, and whoever waits for it is killed there, once at each step, in one run."""
    with Pacs(tmp_path / "pacs", "ONE") as pacs:
        to = destination("one", pacs.port, concurrency=1, first_retry_s=0.2, longest_retry_s=0.5)
        sender = Sender(service([to], role="watch"))
        made = fill(sender.service.data, 8, 2, {"one": ("seg", "sr")})
        try:
            for step in STEPS.values():
                pacs.mischief.add(Fault(step, times=1))
                sender.start()
                wait_for(lambda: pacs.mischief.told()[0]["struck"], 30, lambda step=step: f"{step} {sender.states()}")
                sender.kill()
                pacs.mischief.clear()
            sender.start()
            wait_for(lambda: sender.states()["VERIFIED"] == len(made), 60, lambda: str(sender.states()))
        finally:
            sender.end()
        kept = {path.stem: dataset_bytes(path) for path in pacs.files()}
        assert len(kept) == len(pacs.files())
        assert kept == {r.sop_instance_uid: dataset_bytes(sender.service.data / "spool" / r.path) for r in made}


def _moved(sender: Sender, pacs: list[Pacs], before: int) -> bool:
    done = sender.states()["VERIFIED"] == sum(sender.states().values())
    return done or sum(sum(p.received.values()) for p in pacs) > before


def _where(sender: Sender) -> Iterator[str]:
    """What was under way when it was killed: claimed deliveries by their state."""
    with contextlib.suppress(Exception):
        for (state,) in sender.service.rows("SELECT DISTINCT state FROM delivery WHERE worker != ''"):
            yield f"claimed {state}"
