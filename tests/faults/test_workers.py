"""Each way in which a model's process can die fails its own attempt only, and leaves its evidence."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import mischief
import numpy as np
import pytest
from mischief import MB, silent
from pydicom import dcmread

from overread.domain.card import Card, read_card
from overread.domain.errors import Canceled, CardError, Outranked, OverreadError, Stumbled, WorkerLost
from overread.domain.events import Event, MemoryShort, ModelUnloaded, ReadingRested, WorkerDied, WorkerUnconfined
from overread.domain.pace import Pace
from overread.domain.volume import Volume
from overread.infer.pool import Terms, WorkerPool

pytestmark = pytest.mark.alone


def know(house: Path, **megabytes: int) -> None:
    """What models have taken so far."""
    (house / "workers").mkdir(exist_ok=True)
    table = {f"{name} 1.0 cpu": {"host_bytes": mb * MB, "device_bytes": 0} for name, mb in megabytes.items()}
    (house / "workers" / "footprints.json").write_text(json.dumps(table))


WAYS = {
    "segfault": (WorkerLost, "ended by SIGSEGV", ("crash", "SIGSEGV")),
    "exit": (WorkerLost, "ended by itself with exit code 7", ("crash", "")),
    "abort": (WorkerLost, "ended by SIGABRT", ("crash", "SIGABRT")),
    "hang": (WorkerLost, "did not answer within 3 s; it was ended", ("timeout", "SIGKILL")),
    "swell": (WorkerLost, "took more than its 400 MB of memory and was ended", ("memory", "SIGKILL")),
    "scribble": (WorkerLost, "wrote more than 64 MB into its folder and was ended", ("disk", "SIGKILL")),
    "device": (WorkerLost, "the device failed: RuntimeError: CUDA error", ("device", "SIGKILL")),
    "hog": (WorkerLost, "out of memory", None),
    "raise": (Stumbled, r"ValueError: a model's own fault \(.*mischief_engine.py:\d+ in raise_\)", None),
    "nan": (Stumbled, "holds values that are no numbers", None),
    "shape": (CardError, "answers an array of", None),
}


@pytest.mark.parametrize("deed", list(WAYS))
def test_each_way_to_die_fails_its_attempt_only(
    pool: WorkerPool,
    card: Card,
    volume: Callable[[str], Volume],
    events: list[Event],
    *,
    blocks: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    deed: str,
) -> None:
    """The evidence is there, no memory stays taken, the next reading is well, and another model's process lives."""
    monkeypatch.setattr("overread.infer.worker.SCRATCH_BYTES", 64 * MB)
    other = read_card(mischief.model(card.folder.parent, "neighbour"))
    pool.warm(other)
    neighbour, before = pool.pids()["neighbour"], blocks()
    kind, reason, evidence = WAYS[deed]
    with pytest.raises(kind, match=reason) as failure:
        pool.read(card, [volume(deed)], silent)
    death = getattr(failure.value, "death", None)
    assert (death and (death.kind, death.signal)) == evidence
    if death is not None:
        assert death.peak_bytes > 10 * MB
    died = [(e.reason, e.signal) for e in events if isinstance(e, WorkerDied)]
    assert died == ([evidence] if evidence else []), "what a process throws and survives is no death of it"
    assert blocks() == before
    found = pool.read(card, [volume("well")], silent).label_map
    np.testing.assert_array_equal(found, volume("well").voxels > 200)
    if deed not in ("swell", "hog"):  # short of memory, others make way first
        assert pool.pids()["neighbour"] == neighbour


def test_what_a_process_said_last_is_kept_without_the_patient(
    pool: WorkerPool,
    card: Card,
    volume: Callable[[str], Volume],
    tiny_ct: list[Path],
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = str(dcmread(tiny_ct[1]).PatientName)
    monkeypatch.setenv("MISCHIEF_SAYS", name.replace("^", ", ").upper())
    given = volume("chatter")
    given = Volume(given.voxels, given.stack, tuple(str(path) for path in tiny_ct[1:]))
    with pytest.raises(WorkerLost) as failure:
        pool.read(card, [given], silent)
    assert failure.value.death is not None
    said = failure.value.death.said
    assert "Fatal Python error: Aborted" in said
    assert re.search(r"mischief_engine.py\S*, line \d+ in chatter", said)
    assert "Extension modules" not in said
    words = [*name.lower().split("^"), "1.2.840.113619", "123456789"]
    assert not any(word in said.lower() for word in words), said
    with pytest.raises(WorkerLost) as failure:
        pool.read(card, [volume("segfault")], silent)
    assert failure.value.death is not None
    assert "about to follow a null pointer" in failure.value.death.said


def test_what_a_model_throws_is_told_without_the_patient_with_what_it_said_last(
    pool: WorkerPool,
    card: Card,
    volume: Callable[[str], Volume],
    tiny_ct: list[Path],
    *,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    header = dcmread(tiny_ct[1])
    name, number = str(header.PatientName), str(header.PatientID)
    monkeypatch.setenv("MISCHIEF_SAYS", f"{name.replace('^', ', ').upper()} {number}")
    given = volume("name")
    given = Volume(given.voxels, given.stack, tuple(str(path) for path in tiny_ct[1:]))
    with pytest.raises(
        Stumbled, match=r"ValueError: no room: .*mischief_engine.py:\d+ in name.*said last: a look at"
    ) as failed:
        pool.read(card, [given], silent)
    said = str(failed.value).lower()
    words = [*name.lower().split("^"), number.lower(), "1.2.840.113619", "123456789"]
    assert not any(word in said for word in words if word), said


def test_a_model_reaches_no_network_and_writes_in_its_own_folder_only(
    pool: WorkerPool,
    card: Card,
    volume: Callable[[str], Volume],
    events: list[Event],
    *,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    target = tmp_path / "elsewhere"
    Path(f"{target}.secret").write_text("the patient's name")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind("\0overread-test")
        local.listen()
        monkeypatch.setenv("MISCHIEF_PORT", str(server.getsockname()[1]))
        monkeypatch.setenv("MISCHIEF_TARGET", str(target))
        dialled = pool.read(card, [volume("dial")], silent).notes
        written = pool.read(card, [volume("write")], silent).notes
    lacking = [e for e in events if isinstance(e, WorkerUnconfined)]
    assert dialled[0] in ("PermissionError", "OSError"), "a model reached the network"
    if not any("files" in e.lacking for e in lacking):
        assert written == ("PermissionError", "PermissionError", "written", "PermissionError")
        assert dialled[1] != "reached"
        assert not target.exists()


def test_a_model_changes_nothing_that_is_not_its_own(
    pool: WorkerPool, card: Card, volume: Callable[[str], Volume], *, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What Landlock does not rule: local sockets by their path, modes and times of files."""
    target = tmp_path / "elsewhere"
    target.write_text("others'")
    target.chmod(0o600)
    before = target.stat()
    monkeypatch.setenv("MISCHIEF_TARGET", str(target))
    with socket.socket(socket.AF_UNIX) as line, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as box:
        line.bind(f"{target}.line")
        line.listen()
        box.bind(f"{target}.box")
        said = pool.read(card, [volume("meddle")], silent).notes
    assert said == ("PermissionError",) * 3
    assert (target.stat().st_mode, target.stat().st_mtime) == (before.st_mode, before.st_mtime)


def test_walls_that_a_system_does_not_let_be_built_are_told(
    house: Path, card: Card, volume: Callable[[str], Volume], events: list[Event]
) -> None:
    """With confine = off nothing is taken; where nothing can be, required refuses with the reason."""
    code = (
        "import sys, os\n"
        "from overread.infer import cage, landlock, seccomp\n"
        "def no(*_): raise OSError(1, 'Operation not permitted')\n"
        "cage._own_network = cage._no_capabilities = seccomp.restrict = landlock.restrict = no\n"
        "walls = cage.enter(cage.Cage(sys.argv[1]), os.getppid())\n"
        "print(len(walls.had), len(walls.lacking), walls.open, walls.lacking[-1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(house)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 4 True its own files only (Operation not permitted)"
    free = WorkerPool(events.append, device="cpu", terms=Terms(1, 0, "off", house / "workers"))
    try:
        assert free.read(card, [volume("well")], silent).label_map is not None
    finally:
        free.close()


def test_memory_that_is_short_is_taken_from_others_then_asked_for_in_smaller_pieces_then_waited_for(
    pool: WorkerPool, card: Card, volume: Callable[[str], Volume], events: list[Event]
) -> None:
    pool.warm(read_card(mischief.model(card.folder.parent, "neighbour")))
    with pytest.raises(WorkerLost, match="out of memory: MemoryError"):
        pool.read(card, [volume("hog")], silent)
    assert [e.remedy for e in events if isinstance(e, MemoryShort)] == ["smaller", "patience"]
    assert [e.model for e in events if isinstance(e, ModelUnloaded)] == ["neighbour"]


def test_processes_are_admitted_by_what_they_take_and_evicted_by_least_use(
    house: Path, volume: Callable[[str], Volume], events: list[Event]
) -> None:
    """What a model takes is learned from its readings, outlives the service, and decides who has room."""
    cards = [read_card(mischief.model(house / "models", name)) for name in ("a", "b", "c")]
    terms = Terms(1, 400 * MB, "available", house / "workers")
    pool = WorkerPool(events.append, device="cpu", keep_warm=8, terms=terms)
    for card in cards:
        pool.read(card, [volume("well")], silent)  # each believed to need 2 GB: the others make way
    assert list(pool.pids()) == ["c"]
    for card in cards:
        pool.read(card, [volume("well")], silent)  # known by now: small
    assert set(pool.pids()) == {"a", "b", "c"}
    pool.close()
    learned = json.loads((house / "workers" / "footprints.json").read_text())
    assert all(10 * MB < learned[f"{name} 1.0 cpu"]["host_bytes"] < 120 * MB for name in "abc")
    know(house, a=300, b=90, c=20)
    again = WorkerPool(events.append, device="cpu", keep_warm=8, terms=terms)
    slow = threading.Thread(target=_quietly(lambda: again.read(cards[0], [volume("slow")], silent)))
    slow.start()
    try:
        _until(lambda: "a" in again.pids())
        assert again.refused(cards) == {"a", "b"}, "there is room for the smallest only"
    finally:
        again.close()
        slow.join(10)


def test_a_reading_that_nobody_wants_ends_within_a_second_and_its_model_stays(
    pool: WorkerPool, card: Card, volume: Callable[[str], Volume]
) -> None:
    pool.warm(card)
    pid, began = pool.pids()["mischief"], time.monotonic()

    def wanted(_fraction: float) -> None:
        if time.monotonic() - began > 0.5:
            raise Canceled("a person")

    with pytest.raises(Canceled, match="a person"):
        pool.read(card, [volume("slow")], wanted)
    assert time.monotonic() - began < 1.5
    assert pool.pids()["mischief"] == pid
    assert pool.read(card, [volume("well")], silent).label_map is not None
    began = time.monotonic()
    with pytest.raises(Canceled):
        pool.read(card, [volume("hang")], wanted)
    assert time.monotonic() - began < 2
    assert pool.pids() == {}, "it held the GIL and could not hear"


@pytest.mark.parametrize("pace", [Pace.USUAL, Pace.OVERDUE])
def test_urgent_readings_have_the_device_to_themselves(
    pool: WorkerPool,
    card: Card,
    volume: Callable[[str], Volume],
    events: list[Event],
    *,
    monkeypatch: pytest.MonkeyPatch,
    pace: Pace,
) -> None:
    """A routine reading rests, though it has waited too long; resting is not held against its time."""
    monkeypatch.setenv("MISCHIEF_WINDOWS", "8")
    pool.warm(card, 2)
    ends: dict[str, float] = {}

    def run(name: str, pace: Pace) -> threading.Thread:
        def body() -> None:
            pool.read(card, [volume("slow")], silent, pace)
            ends[name] = time.monotonic()

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    began = time.monotonic()
    usual = run("usual", pace)
    time.sleep(0.5)
    urgent = run("urgent", Pace.URGENT)
    urgent.join()
    usual.join()
    alone = 8 * mischief.WINDOW_S
    assert ends["urgent"] - began < 0.5 + alone + 1.0
    assert ends["usual"] - began > 1.8 * alone, "it did not rest"
    assert [round(e.seconds / alone) for e in events if isinstance(e, ReadingRested)] == [1]


def test_an_urgent_reading_without_room_has_a_usual_one_make_way(
    house: Path, card: Card, volume: Callable[[str], Volume]
) -> None:
    know(house, mischief=300)
    pool = WorkerPool(silent_herald, device="cpu", terms=Terms(1, 400 * MB, "available", house / "workers"))
    faults: list[OverreadError] = []

    def routine() -> None:
        try:
            pool.read(card, [volume("slow")], silent)
        except OverreadError as error:
            faults.append(error)

    thread = threading.Thread(target=routine)
    thread.start()
    try:
        _until(lambda: bool(pool.pids()))
        began = time.monotonic()
        assert pool.read(card, [volume("well")], silent, Pace.URGENT).label_map is not None
        assert time.monotonic() - began < 5
        thread.join(10)
        assert [type(e) for e in faults] == [Outranked]
    finally:
        pool.close()


def test_an_overdue_reading_makes_way_once(house: Path, card: Card, volume: Callable[[str], Volume]) -> None:
    """Then it is read to its end, however urgent the next one is."""
    know(house, mischief=300)
    pool = WorkerPool(silent_herald, device="cpu", terms=Terms(1, 400 * MB, "available", house / "workers"))
    at_work = [threading.Event(), threading.Event()]
    ends: list[str] = []
    given = volume("busy")
    given = Volume(given.voxels, given.stack, ("its first file",))

    def overdue() -> None:
        for began in at_work:
            try:
                pool.read(card, [given], partial(_tell, began), Pace.OVERDUE)
                ends.append("read")
            except Outranked:
                ends.append("made way")

    thread = threading.Thread(target=overdue)
    thread.start()
    try:
        for began in at_work:
            assert began.wait(20)
            pool.read(card, [volume("well")], silent, Pace.URGENT)
        thread.join(10)
    finally:
        pool.close()
    assert ends == ["made way", "read"]


def test_what_a_model_has_started_ends_with_it(
    pool: WorkerPool, card: Card, volume: Callable[[str], Volume], house: Path
) -> None:
    with pytest.raises(WorkerLost, match="did not answer") as failure:
        pool.read(card, [volume("spawn")], silent)
    assert failure.value.death is not None
    pid = int(failure.value.death.said.split("child ")[1].split()[0], 16)
    _until(lambda: not _runs(pid))


def _tell(began: threading.Event, fraction: float) -> None:
    if fraction > 0:
        began.set()


def silent_herald(_event: Event) -> None:
    """Nobody listens."""


def _quietly(work: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except OverreadError:
            return

    return run


def _until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
