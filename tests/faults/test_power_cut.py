"""The power fails at an acknowledgement: what was acknowledged until then is there when the machine comes back.

The data folder lies in an ext4 image behind a loop device. Copying the image while the listener stands still gives what
a power cut leaves: all that the file system had handed to its disk, and nothing of what only the page cache knew.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from house import Service, wait_for
from material import make, new_uid, require_kept, tool
from mounts import ext4_image, image_mounted
from wire import associated

IMAGE_MB, CUTS = 96, (1, 7, 20)
# The journal must not be written by a timer that happens to fire: what is there, the listener has synced.
NO_TIMER = "commit=300"
Make = Callable[..., Service]


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("not root: loop devices cannot be mounted")


def cut(house: Service, image: Path, copy: Path) -> None:
    """Copy the image between two system calls of the listener; a file that nobody synced is to prove the method."""
    os.kill(house.pid, signal.SIGSTOP)
    wait_for(lambda: _stands_still(house.pid), 10, "the listener to stand still")
    unsynced = house.data / "unsynced"
    unsynced.write_bytes(b"lost" * 1000)
    subprocess.run([tool("cp"), "--sparse=always", str(image), str(copy)], check=True)
    unsynced.unlink()
    os.kill(house.pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    threads = [p.read_text().rpartition(")")[2].split()[0] for p in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(threads) == {"T"}


def test_what_is_acknowledged_survives_a_power_cut(service: Make, tmp_path: Path) -> None:
    """Cuts at the 1st, 7th and 20th acknowledgement: so many of so many files, and so many of so many in the ledger."""
    rng, image = random.Random(20), ext4_image(tmp_path / "disk.img", IMAGE_MB)
    studies = [new_uid(rng), new_uid(rng)]
    acknowledged: dict[str, bytes] = {}
    left: dict[int, dict[str, bytes]] = {}
    house = service(role="listen")
    with image_mounted(image, house.data, NO_TIMER):
        with associated(house.start().port) as wire:
            for number in range(1, max(CUTS) + 1):
                made = make(rng, rng.choice([5_000, 50_000, 200_000]), studies[number % 2])
                assert wire.store(made.uid, made.data) == 0x0000
                acknowledged[made.uid] = made.data
                if number in CUTS:
                    cut(house, image, tmp_path / f"cut-{number}.img")
                    left[number] = dict(acknowledged)
        house.end()
    for number in CUTS:
        assert len(left[number]) == number
        _comes_back(service(role="listen"), tmp_path / f"cut-{number}.img", left[number])


def _comes_back(house: Service, copy: Path, acknowledged: dict[str, bytes]) -> None:
    """The copy is mounted, which replays its journal, and a listener starts on it."""
    with image_mounted(copy, house.data):
        unsynced = house.data / "unsynced"
        assert not unsynced.exists() or unsynced.stat().st_size == 0, "this cut loses nothing: it proves nothing"
        require_kept(house.data / "spool", acknowledged)
        try:
            house.start()
            wait_for(lambda: acknowledged.keys() <= _in_the_ledger(house), 10, "the ledger to know them all")
            assert not list((house.data / "spool" / "incoming").iterdir())
        finally:
            house.end()


def _in_the_ledger(house: Service) -> set[str]:
    return {uid for (uid,) in house.rows("SELECT sop_instance_uid FROM instance")}
