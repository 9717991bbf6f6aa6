"""The disk fails at every single call that one C-STORE makes, in turn: never acknowledged, nothing half kept."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from frailty import SYNCS, Frailty, Touch, frail
from material import Made, kept, make, new_uid, stored_files
from wire import Wire, associated

from overread.ledger.arrivals import Arrival
from overread.receive.admission import Admission
from overread.receive.intake import Intake
from overread.receive.listener import Door, Listener
from overread.spool import Spool
from overread.spool.quarantine import Quarantine

OK, OUT_OF_RESOURCES = 0x0000, 0xA700
MOST_CALLS = 60


@dataclass
class Home:
    """A listener in this process, and the frail disk under its spool."""

    listener: Listener
    spool: Path
    disk: Frailty
    told: list[Arrival] = field(default_factory=list)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """The one place that knows how a Listener is made."""
    spool, told = Spool(tmp_path / "spool"), list[Arrival]()
    quarantine = Quarantine(spool.root / "quarantine")
    admission = Admission([("*", "127.0.0.0/8")], "OVERREAD", 10, lambda: True)
    door = Door("OVERREAD", "127.0.0.1", 0, 16384, 5.0, 5.0, 5.0)
    with frail(tmp_path / "spool") as disk:
        intake = Intake(spool, quarantine, admission.has_room, told.append, lambda _: None)
        listener = Listener(door, admission, intake, lambda _: None)
        listener.start()
        try:
            yield Home(listener, tmp_path / "spool", disk, told)
        finally:
            listener.stop()


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("new_study", [False, True], ids=["known study", "new study"])
def test_whichever_call_fails_the_image_is_not_acknowledged(
    home: Home, *, new_study: bool, error: int, lasting: bool
) -> None:
    """For every k: the k-th call fails and the answer is 0xA700; then all is well and the same image is taken."""
    rng = random.Random(5)
    first, failed = make(rng, 6000), Counter[str]()
    with associated(home.listener.port) as wire:
        assert wire.store(first.uid, first.data) == OK
        for k in range(1, MOST_CALLS):
            made = make(rng, 6000, new_uid(rng) if new_study else first.study)
            home.disk.arm(k, error, lasting=lasting)
            status = wire.store(made.uid, made.data)
            home.disk.disarm()
            if not home.disk.failures:
                assert status == OK
                break
            failed[home.disk.failures[0].name] += 1
            _was_not_acknowledged(home, made, status)
            _is_taken_now(home, wire, made)
        else:
            raise AssertionError(f"more than {MOST_CALLS} calls for one image: {failed}")
    assert failed.keys() & set(SYNCS) and failed.keys() & {"rename", "replace"} and failed["open"]
    assert not new_study or failed["mkdir"]


def _was_not_acknowledged(home: Home, made: Made, status: int) -> None:
    assert status == OUT_OF_RESOURCES, f"0x{status:04X} although {home.disk.failures[0]} failed"
    assert made.uid not in {arrival.instance.sop_instance_uid for arrival in home.told}
    # The whole file may be there when only the sync of its name failed. Part of one never may.
    assert kept(home.spool).get(made.uid, [made.data]) == [made.data]
    assert all(path.suffix == ".dcm" for path in stored_files(home.spool))
    for path, calls in _syncs_by_file(home.disk.touches).items():
        assert False not in calls[:-1], f"{path} was synced again after its sync had failed"


def _syncs_by_file(touches: list[Touch]) -> dict[Path, list[bool]]:
    # A folder is no such file: what a sync of it could lose is written anew by the next image.
    found: dict[Path, list[bool]] = {}
    for touch in touches:
        if touch.name in SYNCS and "incoming" in touch.path.parts and touch.path.name != "incoming":
            found.setdefault(touch.path, []).append(touch.worked)
    return found


def _is_taken_now(home: Home, wire: Wire, made: Made) -> None:
    before = home.disk.touches
    home.disk.watch()
    assert wire.store(made.uid, made.data) == OK
    assert kept(home.spool)[made.uid] == [made.data]
    # A file that is whole under its name since the first attempt may stay; its name was not synced then.
    both = before + home.disk.touches
    rename = max(n for n, t in enumerate(both) if t.target is not None and t.worked)
    source, target = both[rename].path, both[rename].target
    assert target is not None
    assert source in _synced(both[:rename]), "named without a sync of its own"
    assert target.parent in _synced(both[rename:]), "acknowledged without a sync of its name"
    for number, touch in enumerate(both):  # what the failed attempt left unsynced, nobody else will sync
        if touch.name == "mkdir" and touch.worked:
            assert touch.path.parent in _synced(both[number:]), f"{touch.path} might be lost"


def _synced(touches: list[Touch]) -> set[Path]:
    return {t.path for t in touches if t.name in SYNCS and t.worked}


def test_a_disk_that_fails_in_the_middle_leaves_no_litter(home: Home) -> None:
    """A hundred images at the wrong moment must not fill the spool with their parts."""
    rng = random.Random(6)
    first = make(rng, 6000)
    with associated(home.listener.port) as wire:
        assert wire.store(first.uid, first.data) == OK
        for _ in range(100):
            made = make(rng, 6000, first.study)
            home.disk.arm(rng.randrange(1, 5), errno.EIO)
            assert wire.store(made.uid, made.data) == OUT_OF_RESOURCES
            home.disk.disarm()
    assert not list((home.spool / "incoming").iterdir())
