"""The profile of a model is made from folders of studies, and says what it found."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from overread.cli.models import _profile_arguments
from overread.cli.profile import run
from overread.domain.errors import CardError, ConfigError
from overread.simulate.phantom import Grid, chest_phantom
from overread.simulate.study import write_study

CT_CHEST = Path(__file__).resolve().parents[3] / "models" / "ct_chest"


@pytest.fixture
def options(tmp_path: Path) -> argparse.Namespace:
    (tmp_path / "models").mkdir()
    shutil.copytree(CT_CHEST, tmp_path / "models" / "ct_chest", ignore=shutil.ignore_patterns("profile.json", "*.pt"))
    config = tmp_path / "overread.toml"
    config.write_text('models = ["models"]\n')
    for seed in (1, 2):
        phantom = chest_phantom(seed, Grid((24, 64, 64), (5.0, 6.0, 6.0)))
        write_study(phantom, tmp_path / "studies" / str(seed), seed=seed, localizer=True)
    parser = argparse.ArgumentParser()
    _profile_arguments(parser)
    return parser.parse_args(["ct_chest", str(tmp_path / "studies")], argparse.Namespace(config=config))


def test_it_is_written_beside_the_card(
    options: argparse.Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(options) == 0
    made = json.loads((tmp_path / "models" / "ct_chest" / "profile.json").read_text())
    assert made["studies"] == 2
    assert len(made["ranges"]) == 9
    assert "These are few" in capsys.readouterr().out


def test_an_unknown_model_is_named(options: argparse.Namespace) -> None:
    options.model = "nobody"
    with pytest.raises(ConfigError, match=r"no model is named 'nobody'; installed: ct_chest"):
        run(options)


def test_a_folder_without_a_study_gives_no_profile(options: argparse.Namespace, tmp_path: Path) -> None:
    options.folders = [tmp_path / "models"]
    with pytest.raises(CardError, match="nothing to make a profile of"):
        run(options)
