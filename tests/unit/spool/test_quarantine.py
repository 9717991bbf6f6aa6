"""What could not be taken is kept with its facts, found again, and gone when it is dropped."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from overread.domain.errors import Refused
from overread.spool.quarantine import LOST, Facts, Quarantine

FACTS = Facts(1000.0, "StudyInstanceUID is empty", 0xC000, "CT1", "1.2.840.1", "1.2.3", "1.2.840.10008.1.2.1", 7)


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    return Quarantine(tmp_path / "quarantine")


@pytest.fixture
def came(tmp_path: Path, quarantine: Quarantine):
    """``came(**facts)``: something more is in quarantine; its id."""

    def admit(content: bytes = b"rubbish", **facts) -> str:
        file = tmp_path / "1-1"
        file.write_bytes(content)
        return quarantine.admit(file, replace(FACTS, **facts))

    return admit


def names(quarantine: Quarantine) -> list[str]:
    return sorted(path.name for path in quarantine.root.iterdir())


def test_the_bytes_and_the_facts_are_found_again(quarantine: Quarantine, came, tmp_path: Path) -> None:
    name = came()
    entry = Quarantine(quarantine.root).entry(name)
    assert (entry.id, entry.facts, entry.facts_lost) == (name, FACTS, False)
    assert entry.file.read_bytes() == b"rubbish"
    assert names(quarantine) == [f"{name}.dcm", f"{name}.json"]
    assert not (tmp_path / "1-1").exists()
    assert json.loads((quarantine.root / f"{name}.json").read_bytes())["id"] == name


def test_the_facts_are_durable_before_the_file_has_its_name(
    quarantine: Quarantine, came, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut at any moment leaves no file without facts."""
    calls: list[str] = []
    fsync, move = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().suffix)
        fsync(descriptor)

    def moved(path: Path, to: Path) -> Path:
        calls.append(f"rename {to.suffix}")
        return move(path, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", moved)
    came()
    assert calls == ["sync .part", "rename .json", "sync ", "sync ", "rename .dcm", "sync "]


@pytest.mark.parametrize("at", range(4))
def test_what_the_disk_does_not_take_leaves_nothing(
    quarantine: Quarantine, came, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    fsync, count = os.fsync, iter(range(99))

    def failing(descriptor: int) -> None:
        if next(count) == at:
            raise OSError(errno.EIO, "no")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="no"):
        came()
    assert names(quarantine) == []


def test_what_came_first_stands_first(quarantine: Quarantine, came) -> None:
    ids = [came(at=30.0), came(at=10.0), came(at=20.0)]
    assert [e.id for e in quarantine.entries()] == [ids[1], ids[2], ids[0]]


def test_for_want_of_room_the_oldest_go_and_no_more_than_must(quarantine: Quarantine, came) -> None:
    ids = [came(at=at) for at in (10.0, 20.0, 30.0)]
    size = quarantine.entry(ids[0]).file.stat().st_size
    assert quarantine.relieve(0, 100.0) == 0
    assert quarantine.relieve(size + 1, 25.0) == 2 * size
    assert [e.id for e in quarantine.entries()] == [ids[2]]
    assert quarantine.relieve(size, 25.0) == 0


WRONG_TIME = json.dumps({**FACTS.__dict__, "at": None}).encode()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b"\xff", b'{"at": "x"}', b"[" * 99999, WRONG_TIME])
def test_an_entry_without_its_facts_is_listed_all_the_same(quarantine: Quarantine, came, content) -> None:
    name = came()
    told = quarantine.root / f"{name}.json"
    told.unlink() if content is None else told.write_bytes(content)
    os.utime(quarantine.root / f"{name}.dcm", (500, 500))
    (entry,) = quarantine.entries()
    assert (entry.facts.reason, entry.facts.at, entry.facts.size_bytes) == (LOST, 500.0, 7)
    assert entry.facts_lost
    quarantine.drop(name)
    assert names(quarantine) == []


def test_facts_without_a_file_are_no_entry(quarantine: Quarantine, came) -> None:
    """So a crash between the two leaves it: the bytes are in incoming/, which is cleared at the next start."""
    name = came()
    (quarantine.root / f"{name}.dcm").unlink()
    assert list(quarantine.entries()) == []
    with pytest.raises(Refused, match=name):
        quarantine.entry(name)


@pytest.mark.parametrize("name", ["", "../../x", "/etc/passwd", "0" * 11, "0" * 13, "0" * 12 + "\n", "ABCDEF012345"])
def test_no_id_becomes_a_path(quarantine: Quarantine, tmp_path: Path, name: str) -> None:
    (tmp_path / "x.dcm").write_bytes(b"")
    for ask in (quarantine.entry, quarantine.drop):
        with pytest.raises(Refused, match="nothing in quarantine has the id"):
            ask(name)


def test_words_of_strangers_do_not_reach_a_terminal_as_they_are(quarantine: Quarantine, came) -> None:
    name = came(calling_ae="\x1b[2J", reason="a\nb\u202ec")
    assert quarantine.entry(name).facts.calling_ae == "?[2J"
    assert quarantine.entry(name).facts.reason == "a?b?c"


def test_dropping_removes_one_entry_whole(quarantine: Quarantine, came) -> None:
    one, other = came(), came()
    quarantine.drop(one)
    assert [e.id for e in quarantine.entries()] == [other]
    assert len(names(quarantine)) == 2
    with pytest.raises(Refused):
        quarantine.drop(one)


def test_quarantine_is_emptied_with_time(quarantine: Quarantine, came) -> None:
    """What could not be read may hold a patient's data; it is not kept longer than the images that could."""
    came(at=999.0)
    new = came(at=1000.0)
    assert quarantine.clear(before=1000.0) == 1
    assert names(quarantine) == [f"{new}.dcm", f"{new}.json"]


def test_what_belongs_to_no_entry_goes_with_time_too(quarantine: Quarantine, came) -> None:
    kept = came(at=2000.0)
    os.utime(quarantine.root / f"{kept}.json", (1, 1))
    for name in ("0123456789ab.json", ".x.json.1.part", "old.bin", "old.txt", "new.bin"):
        (quarantine.root / name).write_bytes(b"x")
        os.utime(quarantine.root / name, (2000, 2000) if name == "new.bin" else (1, 1))
    assert quarantine.clear(before=1000.0) == 0
    assert names(quarantine) == sorted([f"{kept}.dcm", f"{kept}.json", "new.bin"])


def test_it_is_counted(quarantine: Quarantine, came) -> None:
    assert quarantine.count_and_bytes() == (0, 0)
    came(b"1234"), came(b"12345")
    assert quarantine.count_and_bytes() == (2, 9)


def test_without_durability_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("synced"))
    fast = Quarantine(tmp_path / "q", durable=False)
    (tmp_path / "1-1").write_bytes(b"x")
    name = fast.admit(tmp_path / "1-1", FACTS)
    assert fast.entry(name).facts == FACTS
    fast.drop(name)
