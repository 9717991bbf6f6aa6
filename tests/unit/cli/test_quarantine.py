"""A person decides what becomes of what could not be taken, and sees no patient's data."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from overread import wiring
from overread.ledger import views
from overread.spool import Spool
from overread.spool.files import dataset_digest

from .conftest import CT, NAME, Desk, image

Make = Callable[..., Desk]


def left(desk: Desk) -> list[str]:
    return [entry.id for entry in wiring.quarantine(desk.settings).entries()]


def test_an_empty_quarantine_says_so(desk: Make) -> None:
    made = desk()
    for command in (["list"], ["release", "--all"], ["drop", "--all"]):
        assert made("quarantine", *command) == (0, "nothing is in quarantine\n", "")


def test_the_list_has_a_line_for_each(desk: Make) -> None:
    made = desk()
    one = made.admit(b"rubbish", at=0.0)
    two = made.admit(b"x" * (3 << 20), at=86400.0, status=0xA900, calling_ae="")
    code, said, _ = made("quarantine", "list")
    assert code == 0
    assert said.splitlines() == [
        f"{one}  1970-01-01T00:00:00Z  CT1                     0.0 KB  0xC000  StudyInstanceUID is empty",
        f"{two}  1970-01-02T00:00:00Z  -                       3.0 MB  0xA900  StudyInstanceUID is empty",
    ]


def test_an_entry_without_its_facts_is_listed(desk: Make) -> None:
    made = desk()
    name = made.admit(image())
    (wiring.quarantine(made.settings).root / f"{name}.json").unlink()
    code, said, _ = made("quarantine", "list")
    assert (code, said.split()[0], said.strip().endswith("-       its facts are lost")) == (0, name, True)
    code, said, _ = made("quarantine", "show", name)
    assert (code, "Today it could not be taken either: its facts are lost" in said) == (0, True)
    assert made("quarantine", "release", name)[0] == 1
    assert left(made) == [name]


def test_showing_tells_the_facts_and_the_header_without_the_patient(desk: Make) -> None:
    made = desk()
    name = made.admit(image(StudyInstanceUID=None, SeriesInstanceUID="", Modality=NAME))
    code, said, _ = made("quarantine", "show", name)
    assert code == 0
    for line in (
        f"{name}: StudyInstanceUID is empty",
        f"  SOPClassUID      {CT} (CT Image Storage), as the command said",
        "  SOPInstanceUID   1.2.3, as the command said",
        f"  file             {wiring.quarantine(made.settings).entry(name).file}",
        "    StudyInstanceUID          is not there",
        "    SeriesInstanceUID         is empty",
        "    Modality                  is there, with a value that it cannot have",
        "    Rows                      4",
    ):
        assert line in said.splitlines()
    assert "\n  Today it could not be taken either: " in said
    assert "Jane" not in said


@pytest.mark.parametrize("data", [b"", b"rubbish", image()[:40], b"\xff" * 5000, bytes(range(256)) * 20], ids=len)
def test_whatever_it_is_it_can_be_shown(desk: Make, data: bytes) -> None:
    made = desk()
    name = made.admit(data)
    code, said, complained = made("quarantine", "show", name)
    assert (code, complained) == (0, "")
    assert f"overread quarantine drop {name}" in said


def test_what_passes_today_is_taken_in(desk: Make) -> None:
    """An overread of yesterday could not read it; this one can."""
    made = desk()
    data = image()
    name = made.admit(data)
    assert f"Today it can be taken: overread quarantine release {name}" in made("quarantine", "show", name)[1]
    code, said, _ = made("quarantine", "release", name)
    assert (code, said) == (0, f"{name}  taken in: instance 1.2.3 of study 1.2\n")
    assert left(made) == []
    (path,) = made.spool.instance_paths()
    assert made.spool.absolute(path).read_bytes().endswith(data)
    books = wiring.ledger(made.settings)
    assert views.instance_paths(books, "1.2") == {path}
    told = views.story(books, "1.2")
    assert told is not None
    assert (told.study.instances, told.study.state) == (1, "RECEIVING")
    books.close()
    assert dataset_digest(made.spool.absolute(path))[:16] in path


@pytest.mark.parametrize(
    ("data", "facts", "reason"),
    [
        (image(StudyInstanceUID=""), {}, ""),
        (image(), {"sop_instance_uid": "9.9"}, "the data set's SOPInstanceUID is not the one in the command"),
        (image(), {"sop_instance_uid": ""}, "the data set's SOPInstanceUID is not the one in the command"),
        (image(), {"sop_class_uid": "9.9"}, "the data set's SOPClassUID is not the one in the command"),
    ],
    ids=["unreadable", "other-uid", "no-uid", "other-class"],
)
def test_what_does_not_pass_stays_with_the_reason(desk: Make, data: bytes, facts: dict[str, str], reason: str) -> None:
    made = desk()
    name = made.admit(data, **facts)
    code, said, complained = made("quarantine", "release", name)
    assert (code, said) == (1, "")
    assert complained.startswith(f"overread: {name}: it stays in quarantine: {reason}")
    assert left(made) == [name]
    assert list(made.spool.instance_paths()) == []


def test_several_are_released_each_by_itself(desk: Make) -> None:
    made = desk()
    bad, good = made.admit(b"rubbish"), made.admit(image())
    code, said, complained = made("quarantine", "release", "0" * 12, bad, good, good)
    assert (code, said) == (1, f"{good}  taken in: instance 1.2.3 of study 1.2\n")
    assert [line.split(":")[1].strip() for line in complained.splitlines()] == ["0" * 12, bad]
    assert left(made) == [bad]


def test_a_full_disk_keeps_it_in_quarantine(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk()
    name = made.admit(image())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Spool, "adopt", full)
    code, _, complained = made("quarantine", "release", "--all")
    assert (code, left(made)) == (1, [name])
    assert "the spool does not take it (No space left on device)" in complained


def test_another_user_does_not_make_folders_in_the_spool(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """root would make a study's folder that the service could not write to."""
    made = desk()
    name = made.admit(image())
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    code, _, complained = made("quarantine", "release", name)
    assert (code, left(made)) == (1, [name])
    assert f"sudo -u '#{owner}'" in complained


def test_dropping_says_what_went(desk: Make) -> None:
    made = desk()
    one, other = made.admit(b"rubbish", at=0.0), made.admit(b"rubbish")
    code, said, _ = made("quarantine", "drop", one)
    assert (code, left(made)) == (0, [other])
    assert said == f"{one}  removed for good: 7 bytes from CT1 of 1970-01-01T00:00:00Z: StudyInstanceUID is empty\n"
    assert made("quarantine", "drop", one)[0] == 1
    assert made("quarantine", "drop", "--all")[0] == 0
    assert left(made) == []


@pytest.mark.parametrize("command", ["show", "release", "drop"])
def test_what_is_not_there_is_said(desk: Make, tmp_path: Path, command: str) -> None:
    (tmp_path / "x.dcm").write_bytes(b"")
    code, said, complained = desk()("quarantine", command, "../../../x")
    assert (code, said) == (1, "")
    assert "nothing in quarantine has the id '../../../x'; see overread quarantine list" in complained


@pytest.mark.parametrize("arguments", [["release"], ["drop"], ["drop", "--all", "0" * 12], ["show"]], ids=" ".join)
def test_it_must_be_said_which(desk: Make, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        desk()("quarantine", *arguments)
    assert ended.value.code == 2
