"""Seen from the kernel: bytes, their sync, their name, its sync, and only then the word "stored"."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from house import Service
from material import make, new_uid, stored_files
from systemcalls import FOLDERS, RENAMES, SYNCS, WRITES, Call, read_calls, traced
from wire import associated

STUDIES, IMAGES = 3, 5
LONG_GONE = 1 << 60
Make = Callable[..., Service]


@dataclass
class Store:
    """The calls of one C-STORE, up to where the sending of its answer began."""

    calls: list[Call]
    answered: int

    def synced(self, path: str, after: int) -> int:
        """Where a sync of ``path`` that began later than ``after`` had ended; long after all else if there is none."""
        found = (c.ended for c in self.calls if c.name in SYNCS and c.file == path and c.began > after and c.worked)
        return min(found, default=LONG_GONE)


@pytest.fixture
def stores(service: Make, tmp_path: Path) -> tuple[Path, list[Store]]:
    """The spool, and what the listener did for each of fifteen images of three studies, the first of them new ones."""
    rng, log = random.Random(15), tmp_path / "calls"
    house = service(role="listen").start()
    studies = [new_uid(rng) for _ in range(STUDIES)]
    with associated(house.port) as wire:
        assert wire.echo() == 0x0000
        with traced(house.pid, log):
            for number in range(STUDIES * IMAGES):
                made = make(rng, rng.choice([4_000, 60_000, 400_000]), studies[number % STUDIES])
                assert wire.store(made.uid, made.data) == 0x0000
    spool = house.data / "spool"
    return spool, _by_answer(read_calls(log), spool)


def _by_answer(calls: list[Call], spool: Path) -> list[Store]:
    of_the_spool = [c for c in calls if str(spool) in c.arguments]
    found, start = [], -1
    for answer in (c for c in calls if c.is_answer):
        mine = [c for c in of_the_spool if start < c.began < answer.began]
        found.append(Store(mine, answer.began))
        start = answer.began
    return found


def test_an_image_is_acknowledged_after_its_bytes_and_its_name_are_on_disk(stores: tuple[Path, list[Store]]) -> None:
    """Writes → sync of the file → rename → sync of the folder → answer, each ended before the next began."""
    spool, all_stores = stores
    assert len(all_stores) == STUDIES * IMAGES == len(stored_files(spool))
    named = [_require_order(spool, store) for store in all_stores]
    assert sorted(named) == sorted(map(str, stored_files(spool)))


def _require_order(spool: Path, store: Store) -> str:
    (rename,) = [c for c in store.calls if c.name in RENAMES and c.worked]
    source, target = rename.paths
    assert Path(target).is_relative_to(spool / "instances")
    writes = [c for c in store.calls if c.name in WRITES and c.file == source and c.result > 0]
    assert sum(c.result for c in writes) == Path(target).stat().st_size, "not every byte was seen being written"
    assert store.synced(source, max(c.ended for c in writes)) < rename.began, "named before its bytes were synced"
    assert store.synced(str(Path(target).parent), rename.ended) < store.answered, "answered before its name was synced"
    return target


def test_no_image_is_written_under_its_final_name(stores: tuple[Path, list[Store]]) -> None:
    """Whoever opens a file in ``instances`` finds all of it, also after a crash in between."""
    spool, all_stores = stores
    for store in all_stores:
        for call in store.calls:
            assert not (call.name in WRITES and call.file.startswith(str(spool / "instances"))), call


def test_a_new_study_is_acknowledged_after_its_folders_are_on_disk(stores: tuple[Path, list[Store]]) -> None:
    """Each folder that was made: its parent is synced before the first image in it is acknowledged."""
    spool, all_stores = stores
    made = [(store, call) for store in all_stores for call in store.calls if call.name in FOLDERS and call.worked]
    assert len([call for _, call in made if len(Path(call.paths[0]).relative_to(spool).parts) == 3]) == STUDIES
    for store, call in made:
        (folder,) = call.paths
        assert store.synced(str(Path(folder).parent), call.ended) < store.answered, f"{folder} might be lost"
