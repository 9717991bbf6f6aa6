"""What comes from outside stays inside its folder."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from overread.adopt import unpack
from overread.adopt.unpack import lay_out
from overread.domain.errors import CardError


def packed(folder: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
    return path


@pytest.mark.parametrize("prefix", ["", "organs/", "zoo/organs/"])
def test_a_zip_is_unpacked_wherever_the_bundle_lies_in_it(
    bundle: Callable[..., Path], tmp_path: Path, prefix: str
) -> None:
    root = lay_out(packed(bundle(), tmp_path / "organs.zip", prefix), tmp_path / "out")
    assert (root / "configs/inference.json").is_file()
    assert (root / "scripts/net.py").read_text() == "import torch\n"


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "a/../../evil.py", "..\\evil.py", "C:evil.py"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("configs/inference.json", "{}")
        info = zipfile.ZipInfo("x")
        info.filename = name
        archive.writestr(info, "import os")
    with pytest.raises(CardError, match="would be written outside its folder"):
        lay_out(tmp_path / "bad.zip", tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil.py"))
    assert not (tmp_path / "deep" / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        info = zipfile.ZipInfo("configs")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc")
    with pytest.raises(CardError, match="is a link or a device"):
        lay_out(tmp_path / "bad.zip", tmp_path / "out")


def test_a_bomb_is_refused_before_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("models/model.pt", b"\0" * (8 << 20))
    with pytest.raises(CardError, match=r"grows [0-9]+ times"):
        lay_out(tmp_path / "bomb.zip", tmp_path / "out")
    monkeypatch.setattr(unpack, "MOST_FILES", 3)
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for n in range(4):
            archive.writestr(f"configs/{n}", "")
    with pytest.raises(CardError, match="it has 4 files; a model has at most 3"):
        lay_out(tmp_path / "many.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_folder_is_refused(bundle: Callable[..., Path], tmp_path: Path) -> None:
    folder = bundle()
    (folder / "scripts/more.py").symlink_to("/etc/hostname")
    with pytest.raises(CardError, match=r"scripts/more.py is a link"):
        lay_out(folder, tmp_path / "out")


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CardError, match="neither a folder nor a ZIP"):
        lay_out(tmp_path / "text", tmp_path / "out")
    with pytest.raises(CardError, match="is not there"):
        lay_out(tmp_path / "nothing", tmp_path / "out")


def test_several_bundles_in_one_zip_are_refused(bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle("one"), bundle("two")
    with pytest.raises(CardError, match="there are several bundles in it: one, two"):
        lay_out(packed(tmp_path / "from", tmp_path / "zoo.zip"), tmp_path / "out")
