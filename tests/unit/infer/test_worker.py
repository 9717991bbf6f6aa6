"""One process a model: right masks, and whatever the model does to its process, this one goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from overread.domain.card import Card
from overread.domain.errors import CardError, Stumbled, WorkerLost
from overread.domain.events import Event, ModelLoaded, WorkerDied
from overread.domain.volume import Volume
from overread.infer.pool import WorkerPool
from overread.infer.worker import WorkerProcess

from .conftest import DIRECTIONS, THRESHOLD, with_timeout

pytestmark = pytest.mark.alone

Volumes = Callable[..., Volume]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_mask_lies_on_the_voxels_it_was_made_from(worker: WorkerProcess, volume: Volumes, direction: str) -> None:
    """The network marks what is above 50: any flip, turn or shift on the way there or back would show."""
    given = volume(direction)
    mask = worker.read([given], lambda _: None).label_map
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, given.voxels > THRESHOLD)


def test_volumes_of_other_sizes_and_types_are_read_by_the_same_process(worker: WorkerProcess, volume: Volumes) -> None:
    pid = worker.pid
    small = volume(shape=(4, 5, 6))
    floats = Volume(small.voxels.astype(np.float32) + np.float32(0.25), small.stack, ())
    for given in (volume(shape=(20, 9, 17)), small, floats):
        np.testing.assert_array_equal(worker.read([given], lambda _: None).label_map, given.voxels > THRESHOLD)
    assert worker.pid == pid


def test_progress_grows_to_one(worker: WorkerProcess, volume: Volumes) -> None:
    told: list[float] = []
    worker.read([volume(shape=(20, 20, 20))], told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert any(0.2 < fraction < 0.8 for fraction in told)


@pytest.mark.parametrize(
    ("deed", "error", "reason"),
    [
        (2003, Stumbled, "the model failed: SystemExit: 3"),
        (2004, WorkerLost, "out of memory: MemoryError: cannot allocate"),
        (2006, Stumbled, r"the model failed: ValueError: a model's own fault \(scripts/mischief.py:\d+ in __call__\)"),
        (2011, CardError, "the bundle's output has shape"),
        (2012, CardError, "the bundle's output has values outside 0 to 65535"),
        (2013, CardError, "the bundle's output has values that are no numbers"),
    ],
    ids=["exits", "memory", "raises", "wrong shape", "too large", "no number"],
)
def test_what_a_model_throws_is_told(
    worker: WorkerProcess, volume: Volumes, blocks: Callable[[], int], *, deed: int, error: type[Exception], reason: str
) -> None:
    before = blocks()
    with pytest.raises(error, match=reason):
        worker.read([volume(deed=deed)], lambda _: None)
    assert blocks() == before
    assert worker.alive


def test_a_model_that_hangs_is_ended_at_its_time(
    worker: WorkerProcess, card: Card, volume: Volumes, blocks: Callable[[], int]
) -> None:
    worker.card = with_timeout(card, 0.5)
    started, before = time.monotonic(), blocks()
    with pytest.raises(WorkerLost, match=r"the model did not answer within 0.5 s; it was ended"):
        worker.read([volume(deed=2005)], lambda _: None)
    assert time.monotonic() - started < 5
    assert not worker.alive
    assert blocks() == before


def test_a_model_that_crashes_takes_down_its_own_process_only(card: Card, volume: Volumes) -> None:
    """Aborts, is killed, leaves: each time the reading is lost, the next one has a new process and succeeds."""
    events: list[Event] = []
    pool = WorkerPool(events.append, device="cpu", threads=1)
    warmer = threading.Thread(target=pool.warm_all, args=([card],))
    warmer.start()
    warmer.join()
    time.sleep(0.3)
    first = pool.pids()["threshold"]
    assert Path(f"/proc/{first}").exists(), "the worker died with the thread that had warmed it"
    with pytest.raises(WorkerLost, match="the model's process was ended by SIGABRT"):
        pool.read(card, [volume(deed=2001)], lambda _: None)
    np.testing.assert_array_equal(pool.read(card, [volume()], lambda _: None).label_map, volume().voxels > THRESHOLD)
    second = pool.pids()["threshold"]
    assert second != first
    with pytest.raises(WorkerLost, match="ended by SIGKILL, and not by overread"):
        pool.read(card, [volume(deed=2002)], lambda _: None)
    assert pool.pids() == {}
    died = [e.reason for e in events if isinstance(e, WorkerDied)]
    assert died == ["crash", "crash"]
    assert [(e.model, e.device) for e in events if isinstance(e, ModelLoaded)] == [("threshold", "cpu")] * 2
    pool.close()


def test_a_worker_dies_with_its_keeper(card: Card) -> None:
    """kill -9 of the keeper must not leave a process that holds the GPU."""
    code = (
        "import sys, time, pathlib\n"
        "from overread.domain.card import read_card\n"
        "from overread.infer.worker import WorkerProcess\n"
        "print(WorkerProcess(read_card(pathlib.Path(sys.argv[1])), 'cpu', 1).pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    keeper = subprocess.Popen(
        [sys.executable, "-c", code, str(card.folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert keeper.stdout is not None
    pid = int(keeper.stdout.readline())
    keeper.send_signal(signal.SIGKILL)
    keeper.wait()
    keeper.stdout.close()
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_closing_the_pool_ends_a_reading_that_runs(card: Card, volume: Volumes) -> None:
    pool = WorkerPool(lambda _: None, device="cpu", threads=1)
    pool.warm(card)
    faults: list[Exception] = []

    def read() -> None:
        try:
            pool.read(card, [volume(deed=2005)], lambda _: None)
        except Exception as error:
            faults.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    time.sleep(0.5)
    pool.close()
    reading.join(10)
    assert not reading.is_alive()
    assert [type(e) for e in faults] == [WorkerLost]
