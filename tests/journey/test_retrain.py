"""The command in models/ct_chest/README.md trains, from nothing, weights that the inference config can load."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "models" / "ct_chest"


@pytest.mark.slow
def test_the_model_can_be_trained_anew(tmp_path):
    bundle = tmp_path / "ct_chest"
    shutil.copytree(MODEL, bundle, ignore=shutil.ignore_patterns("*.pt", "__pycache__"))
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.json"]
    small = ["--steps", "2", "--patch", "[48, 32, 32]", "--workers", "0"]
    done = subprocess.run([*command, *small], cwd=bundle, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    import torch
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
