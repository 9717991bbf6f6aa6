"""Models that turn against their keeper: none is believed, none keeps it waiting, and nothing of theirs is left."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mischief
import numpy as np
import pytest
from mischief import MB, silent

from overread.domain.card import Card, read_card
from overread.domain.errors import Canceled, WorkerLost
from overread.domain.events import Event, WorkerDied, WorkerUnconfined
from overread.domain.volume import Volume
from overread.infer import witness
from overread.infer.pool import Terms, WorkerPool
from overread.infer.scratch import Scratch

pytestmark = pytest.mark.alone

NO_MESSAGE = "what the model's process sent is no message of ours; it was ended"
Volumes = Callable[[str], Volume]
SAYS = {
    "garbage": NO_MESSAGE,
    "smuggle": NO_MESSAGE,
    "forge": NO_MESSAGE,
    "torrent": NO_MESSAGE,
    "half": "did not answer within 3 s",
}


@pytest.mark.parametrize("deed", list(SAYS))
def test_a_process_that_says_what_is_no_message_is_ended_in_time_and_nothing_of_it_is_run(
    pool: WorkerPool, card: Card, volume: Volumes, deed: str, *, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Rubbish, a pickle with code in it, half a message, a torrent, an answer that is not there."""
    target = tmp_path / "smuggled"
    monkeypatch.setenv("MISCHIEF_TARGET", str(target))
    pool.warm(card)
    began = time.monotonic()
    with pytest.raises(WorkerLost, match=SAYS[deed]):
        pool.read(card, [volume(deed)], silent)
    assert time.monotonic() - began < 3 + 2
    assert not target.exists(), "the keeper ran what a model had sent"
    assert pool.pids() == {}
    np.testing.assert_array_equal(pool.read(card, [volume("well")], silent).label_map, volume("well").voxels > 200)


def test_half_a_message_does_not_keep_a_reading_that_nobody_wants(
    pool: WorkerPool, card: Card, volume: Volumes
) -> None:
    pool.warm(card)
    began = time.monotonic()

    def wanted(_fraction: float) -> None:
        if time.monotonic() - began > 0.5:
            raise Canceled("a person")

    with pytest.raises(Canceled):
        pool.read(card, [volume("half")], wanted)
    assert time.monotonic() - began < 0.5 + 1.0
    assert pool.pids() == {}


def test_children_of_a_process_that_died_by_itself_end_too(pool: WorkerPool, card: Card, volume: Volumes) -> None:
    with pytest.raises(WorkerLost, match="ended by itself with exit code 5") as failure:
        pool.read(card, [volume("orphan")], silent)
    assert failure.value.death is not None
    assert not runs(int(failure.value.death.said.split("child ")[1].split()[0], 16))


def test_children_of_a_process_that_was_killed_end_too(pool: WorkerPool, card: Card, volume: Volumes) -> None:
    """kill -9 by whomever; nobody says that memory was short when it was not."""
    pool.warm(card)
    pid, seen = pool.pids()["mischief"], []

    def then(_fraction: float) -> None:
        if not seen and (child := _child(pid)):
            seen.append(child)
            os.kill(pid, 9)

    with pytest.raises(WorkerLost, match="ended by SIGKILL, and not by overread") as failure:
        pool.read(card, [volume("litter")], then)
    assert failure.value.kind == "crash"
    assert seen
    assert not runs(seen[0])


def test_children_of_a_process_whose_keeper_was_killed_end_too(tmp_path: Path) -> None:
    model = (
        "import os, subprocess, sys, time\n"
        "from overread.infer import guard\n"
        "guard.stand(os.pipe()[1], os.dup(0), os.getppid())\n"
        "print(os.getpid(), subprocess.Popen(['sleep', '600'], start_new_session=True).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    keeper = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {model!r}])"
    with subprocess.Popen([sys.executable, "-c", keeper], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert all(runs(pid) for pid in pids)
        process.kill()
    deadline = time.monotonic() + 10
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_reading_that_nobody_wants_leaves_no_children(pool: WorkerPool, card: Card, volume: Volumes) -> None:
    pool.warm(card)
    pid, seen = pool.pids()["mischief"], []

    def wanted(_fraction: float) -> None:
        if child := _child(pid):
            seen.append(child)
            raise Canceled("a person")

    with pytest.raises(Canceled):
        pool.read(card, [volume("litter")], wanted)
    assert not runs(seen[0])
    assert pool.pids() == {}, "its process had one more child than before, and must have gone with it"


def test_what_a_process_has_started_counts_as_its_memory(pool: WorkerPool, house: Path, volume: Volumes) -> None:
    """Eight children of 100 MB, with 400 MB allowed."""
    card = read_card(mischief.model(house / "models", runtime="timeout_s = 30\nmemory_mb = 400"))
    with pytest.raises(WorkerLost, match="took more than its 400 MB of memory") as failure:
        pool.read(card, [volume("swarm")], silent)
    assert failure.value.kind == "memory"
    assert failure.value.death is not None
    assert failure.value.death.peak_bytes > 400 * MB


def test_models_that_together_take_too_much_lose_one_of_them(house: Path, volume: Volumes) -> None:
    """Each was known to be small, and each alone stays within the budget."""
    cards = [read_card(mischief.model(house / "models", name)) for name in ("a", "b")]
    known = {f"{name} 1.0 cpu": {"host_bytes": 60 * MB, "device_bytes": 0} for name in "ab"}
    (house / "workers").mkdir()
    (house / "workers" / "footprints.json").write_text(json.dumps(known))
    pool = WorkerPool(lambda _: None, device="cpu", terms=Terms(1, 450 * MB, "available", house / "workers"))

    def read(card: Card) -> WorkerLost | None:
        try:
            pool.read(card, [volume("grow")], silent)
        except WorkerLost as error:
            return error
        return None

    try:
        with ThreadPoolExecutor(2) as both:
            ends = list(both.map(read, cards))
    finally:
        pool.close()
    lost = [error for error in ends if error is not None]
    assert [error.kind for error in lost] == ["memory"]
    assert re.search(r"all models together held more than the 450 MB .* 66 MB it was given room for", str(lost[0]))
    learned = json.loads((house / "workers" / "footprints.json").read_text())
    assert all(one["host_bytes"] > 150 * MB for one in learned.values()), "neither is believed to be small any more"


def test_a_warm_process_that_dies_while_idle_is_counted_no_more(
    pool: WorkerPool, card: Card, events: list[Event]
) -> None:
    pool.warm(card)
    assert len(pool.warm_models()) == 1
    os.kill(pool.pids()["mischief"], signal.SIGKILL)
    deadline = time.monotonic() + 5
    while pool.warm_models():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [e.reason for e in events if isinstance(e, WorkerDied)] == ["crash"]


def test_only_when_the_system_has_killed_for_memory_is_a_kill_told_as_that(
    pool: WorkerPool, card: Card, volume: Volumes, *, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counter = tmp_path / "vmstat"
    counter.write_text("nr_free_pages 1\noom_kill 4\n")
    monkeypatch.setattr(witness, "VMSTAT", counter)
    pool.warm(card)
    pid = pool.pids()["mischief"]

    def system(_fraction: float) -> None:
        if counter.read_text().endswith("4\n"):
            counter.write_text("nr_free_pages 1\noom_kill 5\n")
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WorkerLost, match="ended by SIGKILL: the system ran out of memory") as failure:
        pool.read(card, [volume("slow")], system)
    assert failure.value.kind == "memory"


def test_the_folder_of_a_process_whose_keeper_was_killed_is_removed_at_the_next_start(house: Path) -> None:
    """And only that: what a living keeper holds stays."""
    home = house / "workers"
    home.mkdir()
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from overread.infer.scratch import Scratch\n"
        "(Path(Scratch(Path(sys.argv[1])).path) / 'weights').write_bytes(b'x')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(home)], check=False)
    mine = Scratch(home)
    assert len(list(home.iterdir())) == 2
    WorkerPool(lambda _: None, device="cpu", terms=Terms(1, 0, "available", home)).close()
    assert [str(path) for path in home.iterdir()] == [mine.path]
    mine.remove()
    assert not list(home.iterdir())


def test_a_model_finds_nothing_in_shared_memory_and_leaves_nothing_there(
    pool: WorkerPool, card: Card, volume: Volumes, events: list[Event], *, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Path("/dev/shm") / f"others-{os.getpid()}"
    target.write_bytes(b"voxels")
    monkeypatch.setenv("MISCHIEF_TARGET", str(target))
    try:
        before = set(Path("/dev/shm").iterdir())
        said = pool.read(card, [volume("hide")], silent).notes
        if not any(isinstance(e, WorkerUnconfined) and "files" in e.lacking for e in events):
            assert said == ("PermissionError",) * 3
            assert target.read_bytes() == b"voxels"
            assert set(Path("/dev/shm").iterdir()) <= before
    finally:
        target.unlink()


def _child(pid: int) -> int:
    """A child of a process that sleeps, 0 while there is none."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except OSError:
            continue
        if "(sleep" in name and int(rest.split()[1]) == pid:
            return int(stat.parent.name)
    return 0


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
