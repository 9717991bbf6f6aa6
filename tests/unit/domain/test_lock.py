"""A model's folder is what somebody trusted, or it is not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from overread.domain.errors import CardError
from overread.domain.lock import LOCK, changes, read_lock, require_trusted, write_lock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    for name in ("configs/inference.json", "scripts/net.py", "models/model.pt", "card.toml"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    write_lock(model, "2026-01-02T03:04:05+00:00", "overread 1")
    return model


def test_every_file_is_recorded_with_when_and_by_whom(folder: Path) -> None:
    lock = read_lock(folder)
    assert lock is not None
    assert sorted(lock.files) == ["configs/inference.json", "models/model.pt", "scripts/net.py"]
    assert all(len(digest) == 64 for digest in lock.files.values())
    assert (lock.trusted_at, lock.by) == ("2026-01-02T03:04:05+00:00", "overread 1")
    require_trusted(folder)


def test_a_changed_a_new_and_a_missing_file_are_named(folder: Path) -> None:
    (folder / "configs/inference.json").write_text("other")
    (folder / "scripts/more.py").write_text("import os")
    (folder / "models/model.pt").unlink()
    assert changes(folder) == [
        "configs/inference.json has changed",
        "models/model.pt is gone",
        "scripts/more.py is new",
    ]
    with pytest.raises(CardError, match=r"is not what was trusted: configs/inference.json has changed, .*models add "):
        require_trusted(folder)


def test_the_card_and_the_profile_are_the_administrators(folder: Path) -> None:
    (folder / "card.toml").write_text("edited")
    (folder / "profile.json").write_text("{}")
    require_trusted(folder)


def test_a_folder_that_nobody_has_trusted_is_refused(folder: Path) -> None:
    (folder / LOCK).unlink()
    with pytest.raises(CardError, match="nobody has said that model may run code here"):
        require_trusted(folder)


def test_a_broken_lock_is_refused(folder: Path) -> None:
    (folder / LOCK).write_text("{")
    with pytest.raises(CardError, match="cannot be read"):
        require_trusted(folder)


def test_a_link_is_refused(folder: Path) -> None:
    (folder / "scripts/evil.py").symlink_to("/etc/hostname")
    with pytest.raises(CardError, match=r"scripts/evil.py in model is a link"):
        changes(folder)
