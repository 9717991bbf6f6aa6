"""What a card may say of a pipeline, and what it is told when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from overread.domain.card import Card, read_card
from overread.domain.errors import CardError
from overread.domain.features import FAMILIES, FEATURES, SIZES, expand

CARD = """
name = "m"
version = "1"
title = "M"
manufacturer = "overread"
engine = "onnx"
weights = "net.onnx"
weights_sha256 = "00"
{top}
[accepts]
modality = "CT"
[[labels]]
value = 1
name = "Lung"
type = ["39607008", "SCT", "Lung"]
{label}
{tables}
"""
STAGE = """
[[stages]]
name = "{name}"
engine = "onnx"
weights = "net.onnx"
weights_sha256 = "00"
{more}
"""


def card(folder: Path, *, top: str = "", label: str = "", tables: str = "") -> Card:
    (folder / "card.toml").write_text(CARD.format(top=top, label=label, tables=tables))
    return read_card(folder)


def test_a_steps_arguments_are_all_but_its_name_and_inputs(tmp_path: Path) -> None:
    tables = """
[[inputs]]
name = "CT"
[[preprocess]]
name = "Spacing"
inputs = ["CT"]
pixdim = [1.0, 1.0, 2]
mode = "bilinear"
"""
    (step,) = card(tmp_path, tables=tables).preprocess
    assert (step.name, step.inputs, step.args) == ("Spacing", ("CT",), {"pixdim": [1.0, 1.0, 2], "mode": "bilinear"})


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ("[inferer]\nlayout = 'NCXQ'", "inferer.layout is 'NCXQ'"),
        ("[inferer]\nroi = [8, 8]", "roi has 2 sizes, the layout NCXYZ has 3 axes"),
        ("[inferer]\nlayout = 'NZCYX'\nroi = [8, 8, 8]", "needs a layout that begins with NC"),
        ("[inferer]\noverlap = 1.0", "overlap must be from 0 to below 1"),
        ("[postprocess]\nactivation = 'relu'", "it can be softmax, sigmoid, none"),
        ("[postprocess]\ninvert = 'masks'", "probabilities or labels"),
        ("[postprocess]\nkeep_largest = ['Bone']", "no label 'Bone'; the card's labels are Lung"),
        (STAGE.format(name="a", more="within = 'Lung'"), "no earlier stage gives the label 'Lung'"),
        (STAGE.format(name="a", more="each = true"), "`each` needs `within`"),
        (STAGE.format(name="a", more="labels = ['Bone']"), "stage 'a': there is no label 'Bone'"),
        (STAGE.format(name="a", more="features = ['shape.flatnes']"), "did you mean 'shape.flatness'?"),
        ("[[preprocess]]\npixdim = 1.0", "the key preprocess[0].name is missing"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, tables: str, said: str) -> None:
    with pytest.raises(CardError) as refused:
        card(tmp_path, tables=tables)
    assert said in str(refused.value)


def test_features_are_chosen_by_name_or_family() -> None:
    assert expand(["ngtdm", "volume", "ngtdm.contrast"]) == (*(f.name for f in FAMILIES["ngtdm"]), "volume")
    assert expand([*FAMILIES, *SIZES]) == (*FEATURES, *SIZES)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("features = ['glcm.entropy']", "did you mean 'glcm."),
        ("features = ['wavelets']", "families are shape, firstorder, glcm"),
        ("texture = {bin_width = 25.0}", "texture.bin_width needs texture.range"),
    ],
)
def test_a_feature_that_is_not_known_is_refused_with_the_nearest(tmp_path: Path, label: str, said: str) -> None:
    with pytest.raises(CardError) as refused:
        card(tmp_path, label=label)
    assert said in str(refused.value)


def test_a_card_of_stages_needs_no_weights_of_its_own_and_is_named_by_its_digest(tmp_path: Path) -> None:
    text = CARD.format(top="", label="", tables=STAGE.format(name="a", more="")).replace(
        'weights = "net.onnx"\nweights_sha256 = "00"\n\n[accepts]', "[accepts]"
    )
    (tmp_path / "card.toml").write_text(text)
    found = read_card(tmp_path)
    assert found.weights == "" and found.weights_sha256 == found.digest
    assert found.all_weights == {"net.onnx": "00"}


def test_nnu_nets_plans_count_as_part_of_a_card(tmp_path: Path) -> None:
    before = card(tmp_path).digest
    (tmp_path / "plans.json").write_text("{}")
    assert card(tmp_path).digest != before
