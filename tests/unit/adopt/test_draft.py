"""A card is drafted from what a bundle says of itself, and heads are told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from overread.adopt.bundle import describe, weights_of
from overread.adopt.codes import PRIVATE, fault, look_up
from overread.adopt.draft import draft
from overread.adopt.survey import survey
from overread.adopt.task import task_of
from overread.domain.card import Card, read_card
from overread.domain.errors import CardError

from .conftest import CONFIG, metadata

Make = Callable[..., Path]


def drafted(folder: Path) -> Card:
    (folder / "card.toml").write_text(draft(describe(folder), folder.name), "utf-8")
    return read_card(folder)


def test_labels_get_their_names_codes_and_sides(bundle: Make) -> None:
    card = drafted(bundle())
    assert (card.name, card.version, card.title, card.task) == ("organs", "0.1.2", "Two organs", "segmentation")
    assert (card.accepts.modality, card.weights) == ("CT", "models/best.pt")
    spleen, kidney = card.labels
    assert (spleen.value, spleen.name, spleen.type.value) == (1, "Spleen", "78961009")
    assert (kidney.value, kidney.type.value) == (2, "64033007")
    assert kidney.modifier is not None
    assert kidney.modifier.meaning == "Left"


def test_channels_without_a_background_are_counted_from_one(bundle: Make) -> None:
    about = metadata(output={"channel_def": {"0": "liver", "1": "liver tumor"}, "num_channels": 2})
    assert [(label.value, label.name) for label in drafted(bundle(about=about)).labels] == [
        (1, "Liver"),
        (2, "Liver tumor"),
    ]


def test_values_that_an_expression_gives_are_found(bundle: Make) -> None:
    where = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
    post = {"_target_": "Compose", "transforms": [{"_target_": "Lambdad", "keys": "pred", "func": where}]}
    names = {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}
    folder = bundle(config={**CONFIG, "postprocessing": post}, about=metadata(output={"channel_def": names}))
    assert [label.value for label in drafted(folder).labels] == [1, 2, 4]


def test_several_series_become_inputs(bundle: Make) -> None:
    four = {"num_channels": 2, "channel_def": {"0": "T1", "1": "FLAIR"}, "modality": "MRI", "format": "magnitude"}
    card = drafted(bundle(about=metadata(image=four)))
    assert [row.name for row in card.inputs] == ["T1", "FLAIR"]
    assert card.accepts.modality == "MR"


def test_what_the_dictionary_does_not_know_is_marked(bundle: Make) -> None:
    folder = bundle(about=metadata(output={"channel_def": {"0": "background", "1": "Flux capacitor"}}))
    card = drafted(folder)
    assert card.labels[0].type.scheme == PRIVATE
    assert len(card.labels[0].type.value) <= 16
    assert "# TO CODE" in (folder / "card.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [
        ("kidney_left", "64033007", "Left"),
        ("Right Kidney", "64033007", "Right"),
        ("vertebrae_L5", "49668003", None),
        ("rib_left_3", "113197003", "Left"),
        ("IVC", "64131007", None),
        ("heart_ventricle_left", "87878005", None),
        ("lung_upper_lobe_right", "45653009", "Right"),
        ("Cerebral-White-Matter", "68523003", None),
        ("3rd-Ventricle", "49841001", None),
        ("Enhancing tumor", "108369006", None),
    ],
)
def test_names_as_models_write_them_are_coded(name: str, code: str, side: str | None) -> None:
    found = look_up(name)
    assert (found.type.value, found.modifier and found.modifier.meaning) == (code, side)
    assert fault(found.type) is None
    assert fault(found.category) is None


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({"output": {"format": "segmentation"}}, "segmentation"),
        ({"output": {"format": "labels"}}, "segmentation"),
        ({"output": {"type": "object", "format": "dict", "channel_def": None}}, "detection"),
        ({"output": {"type": "probabilities", "format": "classes"}}, "classification"),
        ({"output": {"format": "magnitude"}, "task": "Denoising", "name": "x"}, "image"),
    ],
)
def test_heads_are_told_apart(bundle: Make, changes: dict[str, Any], task: str) -> None:
    assert task_of(describe(bundle(about=metadata(**changes)))) == task


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"output": {"type": "tuples", "format": "points"}}, r"it gives points \(landmarks\)"),
        ({"image": {"type": "noise"}}, "it reads no image but image"),
        ({"image": {"channel_def": {"0": "R", "1": "G", "2": "B"}}}, "its image is a colour picture"),
        ({"image": {"num_channels": 3}, "task": "Nuclei of histopathology"}, "its image is a colour picture"),
    ],
)
def test_what_is_no_finding_is_refused_with_the_reason(bundle: Make, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(CardError, match=reason):
        task_of(describe(bundle(about=metadata(**changes))))


def test_what_a_bundle_would_run_is_shown(bundle: Make) -> None:
    found = survey(describe(bundle()))
    assert "$from scripts.net import Net" in found.expressions
    assert found.components == ("scripts.net.Net",)
    assert found.files == ("scripts/net.py",)


def test_weights_are_found_under_another_name(bundle: Make) -> None:
    folder = bundle()
    assert weights_of(describe(folder)) == "models/best.pt"
    (folder / "models/best.pt").rename(folder / "models/finetuned.pt")
    assert weights_of(describe(folder)) == "models/finetuned.pt"


def test_a_yaml_bundle_is_read(bundle: Make) -> None:
    folder = bundle()
    (folder / "configs/inference.json").unlink()
    (folder / "configs/inference.yaml").write_text("imports:\n- $import glob\npreprocessing:\n  _target_: Compose\n")
    assert describe(folder).config["imports"] == ["$import glob"]


def test_a_config_that_cannot_be_read_is_named(bundle: Make) -> None:
    folder = bundle()
    (folder / "configs/inference.json").write_text('{"a": ')
    with pytest.raises(CardError, match=r"configs/inference.json cannot be read: "):
        describe(folder)
