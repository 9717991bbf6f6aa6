"""What the spool acknowledges survives, and what it does not take leaves no part behind."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
import xxhash
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info

from overread.domain.study import Instance
from overread.spool import Spool
from overread.spool.files import dataset_digest
from overread.spool.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, file_meta

META = file_meta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1", "CT1")


def files(spool: Spool) -> list[Path]:
    return sorted(p for p in spool.root.rglob("*") if p.is_file())


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every write, fsync and rename in order, as (call, path)."""
    calls: list[tuple[str, str]] = []
    write, fsync, fdatasync, rename = os.write, os.fsync, os.fdatasync, os.rename

    def name(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append(("write", name(fd))), write(fd, data))[1])
    monkeypatch.setattr(os, "fdatasync", lambda fd: (calls.append(("fsync", name(fd))), fdatasync(fd))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(("fsync", name(fd))), fsync(fd))[1])
    monkeypatch.setattr(os, "rename", lambda p, to: (calls.append(("rename", str(to))), rename(p, to))[1])
    return calls


@pytest.mark.parametrize("uid", ["../../x", "/etc/passwd", "a/b", "1.2\0.3", ".", "", "x" * 500])
def test_no_uid_becomes_a_path(spool: Spool, uid: str) -> None:
    stored = spool.keep(uid, uid, META, b"data")
    path = spool.absolute(stored.path)
    assert path.is_file()
    assert path.resolve().is_relative_to((spool.root / "instances").resolve())
    assert all(set(part) <= set("0123456789abcdef-.dcm") for part in path.relative_to(spool.root / "instances").parts)


def test_a_file_is_meta_and_then_the_data_set_byte_for_byte(spool: Spool) -> None:
    data = bytes(range(256)) * 999
    stored = spool.keep("1.2", "1.2.3", META, memoryview(data))
    path = spool.absolute(stored.path)
    assert path.read_bytes() == META + data
    assert (stored.digest, stored.size_bytes) == (xxhash.xxh3_128_hexdigest(data), len(data))
    assert dataset_digest(path) == stored.digest


def test_the_meta_information_is_what_pydicom_reads(spool: Spool) -> None:
    stored = spool.keep("1.2", "1.2.3", META, b"")
    meta = pydicom.dcmread(spool.absolute(stored.path)).file_meta
    assert (meta.MediaStorageSOPInstanceUID, meta.SourceApplicationEntityTitle) == ("1.2.3", "CT1")
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_the_same_content_is_the_same_file_and_other_content_another(spool: Spool) -> None:
    first = spool.keep("1.2", "1.2.3", META, b"one")
    assert spool.keep("1.2", "1.2.3", META, b"one") == first
    second = spool.keep("1.2", "1.2.3", META, b"two")
    assert second.path != first.path
    assert sorted(spool.instance_paths()) == sorted([first.path, second.path])


def test_a_file_is_written_synced_renamed_and_its_folder_synced_before_it_is_acknowledged(
    spool: Spool, told: list[tuple[str, str]]
) -> None:
    target = spool.absolute(spool.keep("1.2", "1.2.3", META, b"data").path)
    kinds = [(call, "incoming" if "/incoming/" in path else path) for call, path in told]
    assert kinds[0] == ("write", "incoming")
    assert kinds[-3:] == [("fsync", "incoming"), ("rename", str(target)), ("fsync", str(target.parent))]


def test_the_folders_above_a_new_study_are_synced_too(spool: Spool, told: list[tuple[str, str]]) -> None:
    folder = spool.absolute(spool.keep("1.2", "1.2.3", META, b"data").path).parent
    synced = [path for call, path in told if call == "fsync"]
    assert {str(folder), str(folder.parent), str(folder.parent.parent)} <= set(synced)


def test_a_folder_that_another_made_but_did_not_sync_is_synced(spool: Spool, told: list[tuple[str, str]]) -> None:
    """Two associations may bring one study; the second must not rely on the first having come as far as its sync."""
    folder = spool.study_folder("1.2")
    folder.mkdir(parents=True)
    spool.keep("1.2", "1.2.3", META, b"data")
    assert ("fsync", str(folder.parent)) in told
    told.clear()
    spool.keep("1.2", "1.2.4", META, b"data")
    assert ("fsync", str(folder.parent)) not in told


def test_the_spool_itself_is_synced_when_it_is_made(tmp_path: Path, told: list[tuple[str, str]]) -> None:
    Spool(tmp_path / "a" / "spool")
    assert [call for call in told if call[0] == "fsync"] == [
        ("fsync", str(tmp_path / "a" / "spool")),
        ("fsync", str(tmp_path / "a")),
    ]


def failing(monkeypatch: pytest.MonkeyPatch, k: int) -> Callable[[], int]:
    """Let the k-th open, write, sync or rename fail; returns how many there were."""
    count = itertools.count(1)
    seen = [0]

    def fail_at(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            seen[0] = next(count)
            if seen[0] == k:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*args)

        return call

    for name in ("open", "write", "fdatasync", "fsync", "rename"):
        monkeypatch.setattr(os, name, fail_at(getattr(os, name)))
    return lambda: seen[0]


def test_whichever_step_fails_the_caller_learns_and_no_part_of_a_file_is_left(tmp_path: Path) -> None:
    """For every k the k-th open, write, sync or rename fails; a whole file may stay when its folder was not synced."""
    failed = 0
    for k in itertools.count(1):
        spool = Spool(tmp_path / str(k))
        with pytest.MonkeyPatch.context() as patch:
            calls = failing(patch, k)
            try:
                spool.keep("1.2", "1.2.3", META, b"data")
            except OSError:
                failed += 1
            else:
                assert calls() < k
                break
        assert not list((spool.root / "incoming").iterdir())
        assert all(path.read_bytes() == META + b"data" for path in files(spool))
        assert spool.absolute(spool.keep("1.2", "1.2.3", META, b"data").path).read_bytes() == META + b"data"
    assert failed == 11  # open, two writes, two folders opened and synced, sync, rename, its folder opened and synced


def test_a_failed_sync_never_takes_away_what_was_acknowledged_before(spool: Spool) -> None:
    stored = spool.keep("1.2", "1.2.3", META, b"data")
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, 5)  # the sync of the folder, after the draft's opening and two writes, and the folder's opening
        with pytest.raises(OSError, match="No space"):
            spool.keep("1.2", "1.2.3", META, b"data")
    assert spool.absolute(stored.path).read_bytes() == META + b"data"


def test_short_writes_are_continued(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    stored = spool.keep("1.2", "1.2.3", META, bytes(range(100)))
    monkeypatch.undo()
    assert spool.absolute(stored.path).read_bytes() == META + bytes(range(100))


def test_what_was_half_written_is_cleared_at_start(spool: Spool) -> None:
    (spool.root / "incoming" / "abc").write_bytes(b"half")
    assert Spool(spool.root).clear_incoming() == 1
    assert files(spool) == []


def test_many_threads_keep_the_same_and_different_instances(spool: Spool) -> None:
    def work(n: int) -> None:
        for k in range(10):
            spool.keep(f"1.{k % 3}", f"1.2.{k}", META, b"same %d" % k)
            spool.keep("1.9", f"1.3.{n}.{k}", META, b"own %d" % n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(spool.instance_paths())) == 10 + 60


def test_a_result_lies_under_its_job(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "seg.dcm").write_bytes(b"seg")
    stored = spool.keep_result(7, tmp_path / "seg.dcm")
    assert stored.path == "results/7/seg.dcm"
    assert spool.absolute(stored.path).read_bytes() == b"seg"


def test_removing_a_study_takes_its_files_and_results_but_not_what_came_meanwhile(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "seg.dcm").write_bytes(b"seg")
    spool.keep_result(7, tmp_path / "seg.dcm")
    old, known, new, other = (
        spool.keep(study, uid, META, uid.encode())
        for study, uid in [("1.2", "1.1"), ("1.2", "1.2"), ("1.2", "1.3"), ("9", "1.4")]
    )
    os.utime(spool.absolute(old.path), (50, 50))
    spool.remove_study("1.2", [7], {known.path}, 100)
    assert sorted(spool.instance_paths()) == sorted([new.path, other.path])
    assert not (spool.root / "results" / "7").exists()
    spool.remove_study("1.2", [], {new.path}, 100)
    assert not spool.study_folder("1.2").exists()
    spool.remove_study("1.2", [], set(), 100)


def test_free_space_is_that_of_the_disk(spool: Spool) -> None:
    assert spool.free_bytes() > 0


def test_without_durability_nothing_is_synced(tmp_path: Path, told: list[tuple[str, str]]) -> None:
    spool = Spool(tmp_path / "fast", durable=False)
    spool.keep("1.2", "1.2.3", META, b"data")
    (tmp_path / "seg.dcm").write_bytes(b"seg")
    spool.keep_result(7, tmp_path / "seg.dcm")
    assert not [call for call in told if call[0] == "fsync"]


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34"])
def test_the_file_meta_information_is_what_pydicom_would_write(uid: str) -> None:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    meta.SourceApplicationEntityTitle = "CT1"
    written = BytesIO()
    write_file_meta_info(written, meta)
    made = file_meta("1.2.840.10008.5.1.4.1.1.2", uid, "1.2.840.10008.1.2.4.70", "CT1")
    assert made == bytes(128) + b"DICM" + written.getvalue()


def test_what_is_damaged_under_its_name_is_replaced_when_it_comes_again(spool: Spool) -> None:
    path = spool.absolute(spool.keep("1.2", "1.2.3", META, b"data").path)
    for damaged in (META + b"dat\0", META[:50], b""):
        path.write_bytes(damaged)
        spool.keep("1.2", "1.2.3", META, b"data")
        assert path.read_bytes() == META + b"data"


def test_a_duplicate_keeps_the_first_file_and_says_when_it_came_again(spool: Spool) -> None:
    path = spool.absolute(spool.keep("1.2", "1.2.3", META, b"data").path)
    os.utime(path, (50, 50))
    spool.keep("1.2", "1.2.3", META.replace(b"CT1", b"CT2"), b"data")
    assert path.read_bytes() == META + b"data"
    assert path.stat().st_mtime > 50
    assert not list((spool.root / "incoming").iterdir())


def test_a_file_from_elsewhere_is_adopted(spool: Spool, tmp_path: Path) -> None:
    data = bytes(range(256)) * 999
    (tmp_path / "x.dcm").write_bytes(META + data)
    instance = Instance("1.2.3", "1.2.840.10008.5.1.4.1.1.2", "1.2.1", "1.2")
    stored = spool.adopt(tmp_path / "x.dcm", instance)
    assert spool.absolute(stored.path).read_bytes() == META + data
    assert stored == spool.keep("1.2", "1.2.3", META, data)
