"""Twenty thousand associations later the listener is as light as after the first ones."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from house import Service, wait_for
from material import Made, kept, make
from vitals import MB, Vitals, vitals
from wire import Wire

pytestmark = pytest.mark.alone

ASSOCIATIONS = int(os.environ.get("OVERREAD_SOAK", "20000"))
THREADS, WARM_UP = 4, 60
SLACK_BYTES, SLACK_COUNT = 16 * MB, 3
Make = Callable[..., Service]


class Guests:
    """They come one after the other, in a few queues at once; each behaves as its number says."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._number = 0
        self.done = Counter[str]()
        self.wrong: list[str] = []
        self.stored: dict[str, bytes] = {}

    def come(self, count: int) -> None:
        """So many associations; returns when the last has gone."""
        last = self._number + count
        queues = [threading.Thread(target=self._queue, args=(last, f"{last} {n}")) for n in range(THREADS)]
        for queue in queues:
            queue.start()
        for queue in queues:
            queue.join()
        assert not self.wrong, f"{len(self.wrong)} guests were not served, such as: {self.wrong[:5]}"

    def _queue(self, last: int, seed: str) -> None:
        rng = random.Random(seed)
        again = make(rng, 500)
        while (number := self._take(last)) is not None:
            try:
                with Wire(self._port) as wire:
                    self.done[self._behave(wire, number, again if number % 20 else make(rng, 500))] += 1
            except Exception as error:  # a thread's edge: the test tells of it
                self.wrong.append(f"{number}: {type(error).__name__} {error}")
                return

    def _take(self, last: int) -> int | None:
        with self._lock:
            if self._number == last:
                return None
            self._number += 1
            return self._number

    def _behave(self, wire: Wire, number: int, made: Made) -> str:
        if number % 10 == 1:
            return "connected only"
        wire.associate()
        if number % 10 == 0:
            assert wire.store(made.uid, made.data) == 0x0000
            with self._lock:
                self.stored[made.uid] = made.data
            wire.release()
            return "stored"
        if number % 10 == 3:  # without a word, and without waiting for what is under way
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return "vanished"
        assert wire.echo() == 0x0000
        if number % 10 in (2, 4):
            wire.abort() if number % 10 == 2 else wire.close()
            return "aborted" if number % 10 == 2 else "closed"
        wire.release()
        return "echoed"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thousands_of_associations_leave_nothing_behind(service: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Echoed, stored, aborted, vanished: memory, threads and descriptors stay where they were."""
    house = service(role="listen").start()
    guests = Guests(house.port)
    guests.come(WARM_UP)
    start = _settled(house, vitals(house.pid))
    guests.come(ASSOCIATIONS // 10)
    early, started = vitals(house.pid), time.monotonic()
    guests.come(ASSOCIATIONS - ASSOCIATIONS // 10)
    took = time.monotonic() - started
    end = _settled(house, start)
    with capsys.disabled():
        rate = (ASSOCIATIONS - ASSOCIATIONS // 10) / took
        print(f"\n{dict(guests.done)}, {rate:.0f}/s: {early.rss / MB:.1f} MB early, {end.rss / MB:.1f} MB in the end")
        print(f"  at the start {start}, in the end {end}")
    assert end.rss <= early.rss + SLACK_BYTES
    assert abs(end.threads - start.threads) <= SLACK_COUNT
    assert abs(end.descriptors - start.descriptors) <= SLACK_COUNT
    there = kept(house.data / "spool")
    assert there == {uid: [data] for uid, data in guests.stored.items()}
    assert _open_associations(house) == 0


def _settled(house: Service, goal: Vitals) -> Vitals:
    """What it takes once the last guests' traces are gone; after ten seconds as it is."""
    quiet = vitals(house.pid)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(0.5)
        before, quiet = quiet, vitals(house.pid)
        counts_rest = (before.threads, before.descriptors) == (quiet.threads, quiet.descriptors)
        if counts_rest and quiet.threads <= goal.threads and quiet.descriptors <= goal.descriptors:
            break
    return quiet


def _open_associations(house: Service) -> float:
    def asked() -> list[float]:
        text = house.page("listen", "metrics")[1]
        return [float(line.split()[1]) for line in text.splitlines() if line.startswith("overread_associations_open ")]

    return float(wait_for(asked, 10, "/metrics")[0])
