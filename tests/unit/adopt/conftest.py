"""A small bundle that says what model-zoo bundles say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CONFIG: dict[str, Any] = {
    "imports": ["$import glob", "$from scripts.net import Net"],
    "bundle_root": ".",
    "network_def": {"_target_": "scripts.net.Net", "in_channels": 1},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "LoadImaged", "keys": ["image", "label"]}],
    },
    "inferer": {"_target_": "SimpleInferer"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "SaveImaged", "keys": "pred"},
        ],
    },
    "handlers": [{"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/best.pt'"}],
}


def metadata(**changes: Any) -> dict[str, Any]:
    """The metadata of a segmentation of spleen and left kidney; ``output`` and ``image`` change those parts."""
    output = {"type": "image", "format": "segmentation", "num_channels": 3}
    output["channel_def"] = {"0": "background", "1": "spleen", "2": "kidney_left"}
    image: dict[str, Any] = {"type": "image", "format": "hounsfield", "modality": "CT", "num_channels": 1}
    image["channel_def"] = {"0": "image"}
    made = {"version": "0.1.2", "name": "Two organs", "task": "Segmentation", "authors": "Somebody"}
    made["network_data_format"] = {
        "inputs": {"image": {**image, **changes.pop("image", {})}},
        "outputs": {"pred": {**output, **changes.pop("output", {})}},
    }
    return {**made, **changes}


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """``bundle("organs", config, metadata)``: its folder, with scripts, a licence and weights that are none."""

    def make(
        name: str = "organs", config: dict[str, Any] | None = None, about: dict[str, Any] | None = None
    ) -> Path:
        folder = tmp_path / "from" / name
        for part in ("configs", "models", "scripts"):
            (folder / part).mkdir(parents=True)
        (folder / "configs/inference.json").write_text(json.dumps(CONFIG if config is None else config))
        (folder / "configs/metadata.json").write_text(json.dumps(metadata() if about is None else about))
        (folder / "scripts/net.py").write_text("import torch\n")
        (folder / "models/best.pt").write_bytes(b"weights")
        (folder / "LICENSE").write_text("Apache License\nVersion 2.0\n")
        return folder

    return make
