"""kill -9 of the listener while it takes images: all it acknowledged is there, and all that is there is whole."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from house import Service, wait_for
from material import Made, kept, make, new_uid, require_kept, split_file, stored_files
from wire import Wire

KILLS, STUDIES = 50, 6
Make = Callable[..., Service]


@dataclass
class Pusher:
    """Sends one instance after the other, each until it is acknowledged, over as many associations as that takes."""

    port: int
    rng: random.Random
    studies: list[str]
    sent: dict[str, bytes] = field(default_factory=dict)
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    refused: list[int] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        waiting: Made | None = None
        while not self.stopping.is_set():
            try:
                with Wire(self.port, 20) as wire:
                    wire.associate()
                    while not self.stopping.is_set():
                        waiting = waiting or self._another()
                        self._note(waiting, wire.store(waiting.uid, waiting.data))
                        waiting = None
            except OSError:  # killed; it comes back
                time.sleep(0.02)

    def _another(self) -> Made:
        made = make(self.rng, int(10_000 * 10 ** self.rng.random()), self.rng.choice(self.studies))
        self.sent[made.uid] = made.data
        return made

    def _note(self, made: Made, status: int) -> None:
        if status == 0x0000:
            self.acknowledged[made.uid] = made.data
        else:
            self.refused.append(status)


@dataclass
class Census:
    """Every file under a final name, read once when it is new: is it one of those that were sent, and whole?"""

    spool: Path
    seen: dict[Path, str] = field(default_factory=dict)

    def take(self, sent: dict[str, bytes]) -> None:
        for path in set(stored_files(self.spool)) - self.seen.keys():
            _, data = split_file(path)
            owners = [uid for uid, bytes_ in sent.items() if bytes_ == data]
            assert owners, f"{path} holds {len(data)} bytes that nobody sent so: part of a file under a final name"
            self.seen[path] = owners[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_at_random_moments_lose_nothing_that_was_acknowledged(
    service: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two senders never pause; each kill strikes within 0.3 s of the first image after the start."""
    rng, started = random.Random(20261121), time.monotonic()
    house = service(role="listen")
    studies = [new_uid(rng) for _ in range(STUDIES)]
    pushers = [Pusher(house.port, random.Random(seed), studies) for seed in (1, 2)]
    threads = [threading.Thread(target=p.run) for p in pushers]
    census = Census(house.data / "spool")
    for thread in threads:
        thread.start()
    try:
        for _ in range(KILLS):
            _live_and_die(house, pushers, rng.uniform(0, 0.3))
            _look(census, pushers)
    finally:
        for pusher in pushers:
            pusher.stopping.set()
        for thread in threads:
            thread.join(30)
    house.start()
    _all_is_well_in_the_end(house, pushers)
    with capsys.disabled():
        count = sum(len(p.acknowledged) for p in pushers)
        print(f"\n{KILLS} kills, {count} instances acknowledged, none lost, {time.monotonic() - started:.0f} s")


def _live_and_die(house: Service, pushers: list[Pusher], moment_s: float) -> None:
    before = sum(len(p.acknowledged) for p in pushers)
    house.start(wait=False)
    wait_for(lambda: sum(len(p.acknowledged) for p in pushers) > before, 30, lambda: f"an image ({house.tail()})")
    time.sleep(moment_s)
    house.kill()


def _look(census: Census, pushers: list[Pusher]) -> None:
    # Acknowledgements first: what is acknowledged from here on is looked at after the next kill.
    acknowledged = {uid for p in pushers for uid in list(p.acknowledged)}
    census.take({uid: data for p in pushers for uid, data in list(p.sent.items())})
    lost = acknowledged - set(census.seen.values())
    assert not lost, f"{len(lost)} acknowledged instances are not in the spool"
    gone = [path for path in census.seen if not path.exists()]
    assert not gone, f"{len(gone)} files have gone again"


def _all_is_well_in_the_end(house: Service, pushers: list[Pusher]) -> None:
    acknowledged = {uid: data for p in pushers for uid, data in p.acknowledged.items()}
    spool = house.data / "spool"
    assert len(acknowledged) >= KILLS
    assert [status for p in pushers for status in p.refused] == []
    require_kept(spool, acknowledged)
    there = kept(spool)
    assert {uid for uid, contents in there.items() if len(contents) > 1} == set()
    known = {uid for (uid,) in house.rows("SELECT sop_instance_uid FROM instance")}
    assert known == there.keys()
    assert not list((spool / "incoming").iterdir())
