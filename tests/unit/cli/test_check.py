"""``overread check`` finds what is wrong before a patient does."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from overread import checkup, wiring
from overread.checkup import Line, check, check_spool

from .conftest import Desk

Make = Callable[..., Desk]


def wrong(lines: list[Line]) -> list[str]:
    return [f"{line.what}: {line.said}" for line in lines if line.wrong]


def about(lines: list[Line], what: str) -> list[Line]:
    return [line for line in lines if line.what == what]


def look(desk: Desk) -> list[Line]:
    return list(check_spool(desk.settings))


def everything(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and "ledger" not in p.name}


# --------------------------------------------------------------------------------------------------------- settings


def test_who_may_call_is_said_in_words(desk: Make) -> None:
    """With limits, titles and what a certificate must carry; a model that is not installed is wrong."""
    text = """
[[receive.allow]]
ae_title = "CT1"
network = "10.1.0.0/16"
called_ae = "STAT"
certificate = "{ae_title}.example.org"
max_per_minute = 30
max_gb_per_day = 50
[[receive.allow]]
network = "127.0.0.0/8"
[[receive.called]]
ae_title = "STAT"
priority = "STAT"
models = ["lungs"]
[receive.tls]
port = 2762
certificate = "server.pem"
key = "server.key"
client_certificates = "required"
client_ca = "ca.pem"
"""
    lines = list(check(desk(text).settings))
    assert [line.said for line in about(lines, "  may call")] == [
        "CT1 from 10.1.0.0/16 to STAT, with a certificate for {ae_title}.example.org; "
        "at most 20 associations, 30 a minute, 50 GB a day",
        "any AE title from 127.0.0.0/8; at most 20 associations for each address",
    ]
    assert [(line.said, line.wrong) for line in about(lines, "  is called")] == [
        ("OVERREAD: priority ROUTINE", False),
        ("STAT is for the model lungs, which is not installed; installed are none", True),
    ]
    (tls,) = about(lines, "tls")
    assert tls.wrong and "receive.tls.certificate: cannot read" in tls.said


def test_nobody_who_may_call_is_wrong(desk: Make) -> None:
    (line,) = about(list(check(desk("[receive]\nallow = []\n").settings)), "receive")
    assert line.wrong and "nobody may call" in line.said


def test_acknowledging_what_is_not_durable_is_wrong(desk: Make) -> None:
    made = desk('[receive]\ndurability = "none"\n')
    (line,) = about(list(check(made.settings)), "receive.durability")
    assert line.wrong
    assert 'set it to "full"' in line.said
    assert about(list(check(desk().settings)), "receive.durability") == []


def test_retention_must_come_before_refusal(desk: Make) -> None:
    (line,) = about(list(check(desk("[receive]\nmin_free_mb = 10\n[retain]\nmin_free_mb = 9\n").settings)), "retain")
    assert line.wrong
    assert "retain.min_free_mb (9) is less than receive.min_free_mb (10)" in line.said
    (line,) = about(list(check(desk("[retain]\nmax_gb = 1.5\n").settings)), "retain")
    assert not line.wrong
    assert line.said == "finished studies stay 14 days, until they take 1.5 GB or less than 2048 MB are free"


CARD = """
name = "lungs"
version = "1"
title = "Lungs"
manufacturer = "us"
engine = "monai-bundle"
weights = "model.pt"
weights_sha256 = "00"
[accepts]
modality = "CT"
[[labels]]
value = 1
name = "Lung"
type = ["39607008", "SCT", "Lung"]
"""


@pytest.fixture
def scheduled(desk: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Line]]:
    """``scheduled('slots = 2', runtime)``: what is said of [schedule], with one model, on a machine without a GPU."""
    monkeypatch.setattr("overread.wiring.capacity.GPUS", ())
    (tmp_path / "cards" / "lungs").mkdir(parents=True)

    def look(text: str, runtime: str = "") -> list[Line]:
        (tmp_path / "cards" / "lungs" / "card.toml").write_text(CARD + runtime)
        models = f'models = ["{tmp_path / "cards"}"]\n'
        return about(list(check(desk(f"{models}[schedule]\n{text}\n").settings)), "schedule")

    return look


@pytest.mark.parametrize(
    ("text", "runtime", "said"),
    [
        ('executor = "ray"', "", 'executor "ray" needs PostgreSQL: every node reads the ledger; set `ledger`, or'),
        ('device = "cuda:1"', "", 'schedule.device is "cuda:1", and this machine shows no GPU; set it to "auto" or'),
        ("", '[runtime]\ndevice = "cuda:0"', 'runtime.device of the model lungs is "cuda:0", and this machine shows'),
        ("memory_gb = 0.3", "", "schedule.memory_gb gives 307 MB to all models together, and lungs will take 600 MB"),
        (
            "memory_gb = 1.0\nslots = 64",
            "",
            "schedule.memory_gb gives 1024 MB to all models together, which is room for 1 at the same time: "
            "set schedule.slots to 1, not 64",
        ),
    ],
)
def test_a_schedule_that_cannot_work_is_wrong(
    scheduled: Callable[..., list[Line]], text: str, runtime: str, said: str
) -> None:
    assert [line.said for line in scheduled(text, runtime) if line.wrong and line.said.startswith(said)]


def test_what_a_model_took_so_far_counts(scheduled: Callable[..., list[Line]], desk: Make) -> None:
    workers = desk().settings.data_path / "workers"
    workers.mkdir(parents=True)
    (workers / "footprints.json").write_text('{"lungs 1 cpu": {"host_bytes": 1600000000, "device_bytes": 0}}')
    (line,) = scheduled("memory_gb = 1.0")
    assert line.wrong
    assert "lungs took 1525 MB so far: each of its jobs would fail" in line.said


def test_a_schedule_that_works_is_said_in_words(scheduled: Callable[..., list[Line]]) -> None:
    (line,) = scheduled("memory_gb = 2.0\nslots = 2")
    assert (line.wrong, line.said) == (False, "local, 2 at the same time, 2048 MB for all models, device auto")


# ------------------------------------------------------------------------------------------------------------ spool


def test_a_spool_that_is_whole_has_nothing_to_mend(desk: Make) -> None:
    made = desk()
    made.keep("1.2.3")
    made.keep("1.2.4")
    before = everything(made.settings.data_path)
    lines = look(made)
    assert wrong(lines) == []
    assert [line.said for line in about(lines, "spool")] == [
        "it agrees with the ledger",
        "2 files read, 2 are whole",
    ]
    assert everything(made.settings.data_path) == before


def test_what_is_lost_is_named_by_its_study(desk: Make) -> None:
    made = desk()
    lost = [made.keep(f"1.5.{n}", "1.5") for n in range(3)]
    made.keep("1.2.3")
    for file in lost[:2]:
        file.unlink()
    lines = look(made)
    (line,) = about(lines, "LOST")
    assert line.wrong
    assert line.said.startswith("2 files of study 1.5, such as instances/")
    assert line.said.endswith("; send the study again")
    assert wrong(lines) == [f"LOST: {line.said}"]


def test_what_the_ledger_does_not_know_yet_is_no_fault(desk: Make) -> None:
    made = desk()
    file = made.keep("1.2.3", indexed=False)
    lines = look(made)
    (line,) = about(lines, "not in the ledger")
    assert str(file.relative_to(made.spool.root)) in line.said
    assert wrong(lines) == []


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_what_is_damaged_is_named_by_its_study(desk: Make, harm: str) -> None:
    made = desk()
    file, _ = made.keep("1.2.3"), made.keep("1.2.4")
    content = file.read_bytes()
    file.write_bytes({"flip": content[:-1] + b"\x01", "cut": content[:-9], "empty": b""}[harm])
    lines = look(made)
    (line,) = about(lines, "damaged")
    assert line.wrong
    assert "send its study again (1.2)" in line.said
    assert about(lines, "spool")[-1].said == "2 files read, 1 are whole"


def test_no_more_than_twenty_of_a_kind_are_told(desk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "MOST_TOLD", 2)
    made = desk()
    for number in range(5):
        made.keep(f"1.{number}.1", f"1.{number}").unlink()
        made.keep(f"2.{number}.1", f"2.{number}", indexed=False)
    lines = look(made)
    for kind in ("LOST", "not in the ledger"):
        assert [line.said for line in about(lines, kind)][2:] == ["and 3 more"]


def test_half_written_files_are_wrong_only_when_nobody_writes(desk: Make) -> None:
    made = desk()
    (made.spool.root / "incoming" / "1-1").write_bytes(b"half")
    assert [line.what for line in look(made) if line.wrong] == ["incoming"]
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(made.settings.data_path / "listen.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        assert wrong(look(made)) == []
        listener.communicate(b"\n")
    assert [line.what for line in look(made) if line.wrong] == ["incoming"]
    with (made.settings.data_path / "listen.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and the check lets go of it


def test_quarantine_is_counted(desk: Make) -> None:
    made = desk()
    made.admit(b"rubbish")
    (line,) = about(look(made), "quarantine")
    assert line.said.startswith("1 kept, 0 MB")


def test_a_ledger_that_is_away_is_said(desk: Make) -> None:
    made = desk()
    made.settings.data_path.mkdir()
    (made.settings.data_path / "ledger.sqlite").mkdir()
    (line,) = look(made)
    assert line.wrong


def test_the_command_ends_with_one_when_something_is_lost(desk: Make, models: str) -> None:
    made = desk(models)
    assert made("check", "--spool")[0] == 0
    made.keep("1.2.3").unlink()
    assert made("check")[0] == 0
    code, said, _ = made("check", "--spool")
    assert code == 1
    assert "WRONG     LOST: 1 files of study 1.2" in said
    assert said.splitlines()[-1] == "1 to mend"


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> str:
    """Settings of a house that lacks nothing."""
    monkeypatch.setattr(checkup, "_models", lambda _: iter(()))
    return "[receive]\nmin_free_mb = 1\n"


def test_the_lock_asked_for_is_the_listeners(desk: Make) -> None:
    from overread.daemon import _alone

    made = desk()
    made.settings.data_path.mkdir()
    with _alone(made.settings, "listen"):
        assert checkup._listening(made.settings)
    assert not checkup._listening(made.settings)
    assert wiring.spool(made.settings).clear_incoming() == 0
