"""overread models: a bundle is shown, trusted, checked, tried and removed by hand."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from overread.domain.lock import LOCK

from .conftest import Desk

Make = Callable[..., Desk]

CONFIG: dict[str, Any] = {
    "imports": ["$import glob"],
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 3, "kernel_size": 1},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
        ],
    },
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
}
CHANNELS = {"0": "background", "1": "Bone", "2": "Trachea"}
ABOUT = {
    "version": "2.0.0",
    "name": "Dark and bright",
    "task": "Segmentation by brightness",
    "network_data_format": {
        "inputs": {"image": {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1}},
        "outputs": {"pred": {"format": "segmentation", "channel_def": CHANNELS}},
    },
}


@pytest.fixture(scope="session")
def brightness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that calls what is above 200 HU bone, and what is below -500 HU trachea."""
    import torch

    folder = tmp_path_factory.mktemp("from") / "brightness"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs/inference.json").write_text(json.dumps(CONFIG))
    (folder / "configs/metadata.json").write_text(json.dumps(ABOUT))
    (folder / "LICENSE").write_text("MIT License\n")
    weight = torch.tensor([0.0, 1.0, -1.0]).reshape(3, 1, 1, 1, 1)
    torch.save({"weight": weight, "bias": torch.tensor([0.0, -200.0, -500.0])}, folder / "models/model.pt")
    return folder


@pytest.fixture
def shelf(desk: Make, tmp_path: Path) -> Desk:
    (tmp_path / "shelf").mkdir()
    return desk('models = ["shelf"]\n')


def test_nothing_is_added_without_trust(shelf: Desk, brightness: Path, tmp_path: Path) -> None:
    code, out, err = shelf("models", "add", str(brightness))
    assert code == 1
    assert "$import glob" in out
    assert "licence: MIT License (LICENSE)" in out
    assert "say --trust" in err
    assert not list((tmp_path / "shelf").iterdir())


def test_a_zip_is_added_with_its_card_and_every_digest(shelf: Desk, brightness: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "brightness.zip", "w") as archive:
        for file in (p for p in brightness.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(brightness.parent))
    code, out, _ = shelf("models", "add", str(tmp_path / "brightness.zip"), "--trust")
    assert code == 0
    assert "added: " in out
    lock = json.loads((tmp_path / "shelf/brightness" / LOCK).read_text())
    assert sorted(lock["files"]) == ["LICENSE", "configs/inference.json", "configs/metadata.json", "models/model.pt"]
    code, out, _ = shelf("models", "list")
    assert (code, out) == (0, "ok        model brightness: 2.0.0, reads any CT: Bone, Trachea\n")
    code, _, err = shelf("models", "add", str(brightness), "--trust")
    assert code == 1
    assert "is there already; overread models remove brightness first" in err


def test_each_fault_is_one_clear_line(shelf: Desk, brightness: Path, tmp_path: Path) -> None:
    shelf("models", "add", str(brightness), "--trust")
    folder = tmp_path / "shelf/brightness"
    card = (folder / "card.toml").read_text()
    card = card.replace('"Bone", "SCT"', "").replace('["272673000", "SCT", "Bone"]', '["10200004", "SCT", "Kidney"]')
    card = card.replace("value = 2", "value = 7")
    (folder / "card.toml").write_text(card)
    (folder / "LICENSE").unlink()
    (folder / "configs/inference.json").write_text(json.dumps(CONFIG) + "\n")
    code, out, _ = shelf("models", "check", "brightness", "--no-run")
    assert code == 1
    wrong = [line for line in out.splitlines() if line.startswith("WRONG")]
    for said in (
        "configs/inference.json has changed since it was trusted",
        "LICENSE is gone since it was trusted",
        "label 1 (Bone): type 10200004 SCT 'Kidney' means 'Liver' in the dictionary",
        "label 7 (Trachea): channel_def has no such value; it has 1, 2",
    ):
        assert any(said in line for line in wrong), said
    assert "no licence is stated" in out
    code, out, _ = shelf("models", "check", "brightness")
    assert code == 1
    assert "it was not run: mend the above first" in out


def test_a_model_that_is_right_is_run(shelf: Desk, brightness: Path) -> None:
    shelf("models", "add", str(brightness), "--trust")
    code, out, _ = shelf("models", "check")
    assert code == 0, out
    assert "loaded and read 24 × 40 × 36 voxels of noise in" in out
    assert out.splitlines()[-1] == "ok        brightness: 2.0.0, segmentation, reads CT"


def test_a_model_is_tried_on_a_folder(
    shelf: Desk, brightness: Path, tiny_ct: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shelf("models", "add", str(brightness), "--trust")
    code, out, err = shelf("models", "try", "brightness", str(tiny_ct[0].parent))
    assert code == 0, err
    assert "[##############################] 100 %" in err
    assert "nothing was sent anywhere" in out
    made = tmp_path / "try-brightness"
    assert {p.name for p in made.iterdir()} == {"seg.dcm", "sr.dcm", "brightness.png"}
    assert dcmread(made / "seg.dcm").SegmentSequence[0].SegmentLabel == "Bone"
    assert (made / "brightness.png").read_bytes().startswith(b"\x89PNG")


def test_trying_says_why_nothing_would_be_read(
    shelf: Desk, brightness: Path, tiny_ct: list[Path], tmp_path: Path
) -> None:
    shelf("models", "add", str(brightness), "--trust")
    card = tmp_path / "shelf/brightness/card.toml"
    card.write_text(card.read_text().replace('modality = "CT"', 'modality = "MR"'))
    code, _, err = shelf("models", "try", "brightness", str(tiny_ct[0].parent))
    assert code == 1
    assert "its modality is CT, the model reads MR" in err


def test_weights_may_follow(shelf: Desk, brightness: Path, tmp_path: Path) -> None:
    """Model zoos publish configs without weights: they are copied in, and the model is trusted again where it lies."""
    bare = tmp_path / "bare"
    shutil.copytree(brightness, bare)
    (bare / "models/model.pt").unlink()
    code, out, _ = shelf("models", "add", str(bare), "--trust")
    home = tmp_path / "shelf/bare"
    assert code == 0
    assert f"copy them to {home / 'models/model.pt'}, then: overread models add {home}" in out
    assert shelf("models", "check", "--no-run")[0] == 1
    (home / "models").mkdir(exist_ok=True)
    shutil.copyfile(brightness / "models/model.pt", home / "models/model.pt")
    assert shelf("models", "add", str(home), "--trust")[0] == 0
    assert shelf("models", "check", "--no-run")[0] == 0


def test_a_model_is_removed(shelf: Desk, brightness: Path, tmp_path: Path) -> None:
    shelf("models", "add", str(brightness), "--trust")
    assert shelf("models", "remove", "brightness")[0] == 1
    assert (tmp_path / "shelf/brightness").is_dir()
    code, out, _ = shelf("models", "remove", "brightness", "--yes")
    assert code == 0
    assert "removed: " in out
    assert not (tmp_path / "shelf/brightness").exists()
    code, _, err = shelf("models", "remove", "brightness", "--yes")
    assert code == 1
    assert "there is no model 'brightness'; installed: none" in err
