"""A folder as a destination."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from handed import prove, send

from overread.deliver import destination
from overread.deliver.folder import FolderDestination
from overread.domain.delivery import Outcome, Standing
from overread.domain.errors import Rejected, Unreachable
from overread.domain.result import Result

Make = Callable[..., tuple[Result, Path]]


def standings(there: FolderDestination, made: list[tuple[Result, Path]]) -> list[Standing]:
    return [proven.standing for proven in prove(there, made)]


def refused(there: FolderDestination, made: tuple[Result, Path], why: str) -> bool:
    (told,) = send(there, [made]).values()
    return told.outcome is Outcome.REFUSED and why in told.reason


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "share"
    made.mkdir()
    return made


def test_files_arrive_byte_for_byte_and_prove_themselves(folder: Path, make_result: Make) -> None:
    there = destination("folder", name="share", folder=folder)
    sent = [make_result(1), make_result(2)]
    assert standings(there, sent) == [Standing.MISSING] * 2
    assert [t.outcome for t in send(there, sent).values()] == [Outcome.TAKEN] * 2
    assert standings(there, sent) == [Standing.THERE] * 2
    for result, path in sent:
        assert (folder / result.study_uid / f"{result.sop_instance_uid}.dcm").read_bytes() == path.read_bytes()


def test_sending_again_changes_nothing_and_leaves_no_litter(folder: Path, make_result: Make) -> None:
    there = FolderDestination("share", folder)
    send(there, [make_result(1)])
    send(there, [make_result(1)])
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["1.2.826.0.1.3.1.dcm"]


def test_a_changed_file_is_no_proof(folder: Path, make_result: Make) -> None:
    there = FolderDestination("share", folder)
    result, path = make_result(1)
    send(there, [(result, path)])
    (target,) = folder.rglob("*.dcm")
    target.write_bytes(target.read_bytes()[:-1] + b"x")
    assert standings(there, [(result, path)]) == [Standing.ALTERED]


def test_a_source_that_differs_from_its_digest_never_gets_its_name(folder: Path, make_result: Make) -> None:
    result, path = make_result(1)
    path.write_bytes(path.read_bytes() + b"rot")
    assert refused(FolderDestination("share", folder), (result, path), "differs from its digest")
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_a_source_that_is_gone_is_rejected(folder: Path, make_result: Make) -> None:
    result, path = make_result(1)
    path.unlink()
    assert refused(FolderDestination("share", folder), (result, path), "gone from the spool")


@pytest.mark.parametrize("uid", ["../../etc", "1.2/3", "", "1.2.03", "1" * 65, "1..2", "1.2\n"])
def test_what_is_no_uid_becomes_no_path(folder: Path, make_result: Make, uid: str) -> None:
    result, path = make_result(1)
    there = FolderDestination("share", folder)
    for bad in (replace(result, study_uid=uid), replace(result, sop_instance_uid=uid)):
        assert refused(there, (bad, path), "no UID")
        with pytest.raises(Rejected, match="no UID"):
            prove(there, [(bad, path)])
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_not_mounted_is_not_written_beneath(tmp_path: Path, make_result: Make) -> None:
    there = FolderDestination("share", tmp_path / "absent")
    for ask in (there.check, lambda: send(there, [make_result(1)]), lambda: prove(there, [make_result(1)])):
        with pytest.raises(Unreachable, match="mount or create it"):
            ask()
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_cannot_be_written_is_tried_later(folder: Path, make_result: Make) -> None:
    result, path = make_result(1)
    (folder / result.study_uid).write_text("a file where the study's folder should be")
    with pytest.raises(Unreachable, match="cannot be used"):
        send(FolderDestination("share", folder), [(result, path)])


def test_a_file_interrupted_between_writing_and_its_name_is_not_there(
    folder: Path, make_result: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unreachable, match="No space left"):
        send(FolderDestination("share", folder), [make_result(1)])
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_check_says_that_it_can_be_written_and_leaves_nothing(folder: Path) -> None:
    assert "can be written" in FolderDestination("share", folder).check()
    assert list(folder.iterdir()) == []
