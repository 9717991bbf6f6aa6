"""The unit is one that systemd accepts without a word, and it is shut tight."""

from __future__ import annotations

import configparser
import subprocess
from pathlib import Path
from typing import Any

from overread.settings import read_settings


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False)


def installed(deploy: Path, tmp_path: Path, *, drop_in: bool) -> Path:
    """The unit in a folder of its own, with a program that exists in place of the one not yet installed."""
    text = (deploy / "systemd/overread.service").read_text("utf-8")
    unit = tmp_path / "overread.service"
    unit.write_text(text.replace("/opt/overread/bin/overread ", "/bin/true "), "utf-8")
    if drop_in:
        folder = tmp_path / "overread.service.d"
        folder.mkdir()
        (folder / "gpu.conf").write_text((deploy / "systemd/gpu.conf").read_text("utf-8"), "utf-8")
    return unit


def test_systemd_has_nothing_to_say_about_the_unit(program: Any, deploy: Path, tmp_path: Path) -> None:
    for drop_in in (False, True):
        done = run(program("systemd-analyze"), "verify", "--man=no", installed(deploy, tmp_path, drop_in=drop_in))
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_exposure_stays_below_one_and_a_half(program: Any, deploy: Path) -> None:
    """Of ten; a unit without hardening has 9.2."""
    unit = deploy / "systemd/overread.service"
    done = run(program("systemd-analyze"), "security", "--offline=true", "--threshold=15", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_unit_starts_the_command_as_its_own_user(deploy: Path) -> None:
    unit = configparser.RawConfigParser(strict=False, comment_prefixes=("#",))
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(deploy / "systemd/overread.service", "utf-8")
    service = unit["Service"]
    assert service["ExecStart"] == "/opt/overread/bin/overread --config /etc/overread/overread.toml run"
    assert service["User"] == "overread"
    assert service["Restart"] == "always"
    assert service["OOMPolicy"] == "continue"
    users = (deploy / "systemd/overread.sysusers.conf").read_text("utf-8").splitlines()
    assert any(line.startswith("u overread ") for line in users)


def test_settings_keep_their_data_where_the_unit_may_write(deploy: Path) -> None:
    settings = read_settings(deploy / "systemd/overread.toml")
    assert settings.data_path == Path("/var/lib/overread")
    assert settings.models == ("/opt/overread/models",)
