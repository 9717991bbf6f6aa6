"""A card is read whole, or the error names the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from overread.domain.card import ANATOMICAL_STRUCTURE, Accepts, Card, Runtime, read_card
from overread.domain.codes import Code
from overread.domain.errors import CardError

TOP = """
name = "lungs"
version = "1.0.0"
title = "Lungs"
manufacturer = "overread"
engine = "monai-bundle"
weights = "models/model.pt"
weights_sha256 = "00"
"""
ACCEPTS = """
[accepts]
modality = "CT"
min_length_mm = 100
body_parts = ["CHEST", "THORAX"]
"""
LABELS = """
[[labels]]
value = 1
name = "Lung"
type = ["39607008", "SCT", "Lung"]
modifier = ["7771000", "SCT", "Left"]
color = [1, 2, 3]
"""


def write(folder: Path, text: str) -> Path:
    (folder / "card.toml").write_text(text, "utf-8")
    return folder


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(CardError) as caught:
        read_card(write(folder, text))
    assert str(folder / "card.toml") in str(caught.value)
    return str(caught.value).removeprefix(f"{folder / 'card.toml'}: ")


def test_a_card_is_read_with_its_defaults(tmp_path: Path) -> None:
    card = read_card(write(tmp_path, TOP + ACCEPTS + LABELS))
    assert isinstance(card, Card)
    assert card.folder == tmp_path.resolve()
    assert card.accepts == Accepts("CT", min_length_mm=100.0, body_parts=("CHEST", "THORAX"))
    assert isinstance(card.accepts.min_length_mm, float)
    assert card.runtime == Runtime()
    (label,) = card.labels
    assert label.type == Code("39607008", "SCT", "Lung")
    assert label.modifier == Code("7771000", "SCT", "Left")
    assert (label.category, label.color, label.region) == (ANATOMICAL_STRUCTURE, (1, 2, 3), None)


def test_the_digest_changes_with_card_and_configs(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    digests = [read_card(write(tmp_path, TOP + ACCEPTS + LABELS)).digest]
    (tmp_path / "configs" / "inference.json").write_text("{}")
    digests.append(read_card(tmp_path).digest)
    (tmp_path / "configs" / "inference.json").write_text('{"a": 1}')
    digests.append(read_card(tmp_path).digest)
    digests.append(read_card(write(tmp_path, TOP + ACCEPTS + LABELS + "\n# said\n")).digest)
    assert len(set(digests)) == 4


def test_a_folder_without_a_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"has no card\.toml"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (TOP.replace('name = "lungs"', "") + ACCEPTS + LABELS, "the key name is missing"),
        (TOP + LABELS, "the key accepts is missing"),
        (TOP + ACCEPTS, "the key labels is missing"),
        (TOP + "[accepts]\n" + LABELS, "the key accepts.modality is missing"),
        (TOP + ACCEPTS + "colour = 1\n" + LABELS, "the key accepts.colour is not known; known are "),
        (TOP + 'nmae = "x"\n' + ACCEPTS + LABELS, "the key nmae is not known; known are "),
        (TOP + 'digest = "x"\n' + ACCEPTS + LABELS, "the key digest is overread's to fill in; take it out"),
        (TOP.replace('"1.0.0"', "1.0") + ACCEPTS + LABELS, "version must be a text in quotes, not 1.0"),
        (TOP + ACCEPTS + LABELS + '[runtime]\ntimeout_s = "900"\n', "runtime.timeout_s must be a number, not '900'"),
        (TOP + ACCEPTS + LABELS + "[runtime]\nattempts = true\n", "runtime.attempts must be a whole number, not True"),
        (TOP + ACCEPTS + LABELS + "[dice_floor]\nlung = 'high'\n", "dice_floor.lung must be a number, not 'high'"),
        (TOP + ACCEPTS.replace('["CHEST", "THORAX"]', '"CHEST"') + LABELS, "accepts.body_parts must be a list"),
        (TOP + ACCEPTS + 'prefer = "best"\n' + LABELS, "accepts.prefer is 'best'; it can be thinnest or most slices"),
        (TOP + ACCEPTS + LABELS.replace(', "Left"', ""), "labels[0].modifier must be a code: [value, scheme, meaning]"),
        (TOP + ACCEPTS + LABELS.replace("[1, 2, 3]", "[1, 2]"), "labels[0].color must have 3 values, not 2"),
        (TOP + ACCEPTS + LABELS + LABELS, "labels must each have a value of its own between 1 and 65535"),
        (TOP + ACCEPTS + LABELS.replace("value = 1", "value = 0"), "labels must each have a value"),
        (TOP + "labels = []\n" + ACCEPTS, "labels must be there"),
        (TOP + "labels = 3\n" + ACCEPTS, "labels must be a list"),
        (TOP + "labels = [3]\n" + ACCEPTS, "labels[0] must be a table"),
        ("name = ", "Invalid value"),
        ("ignored = [1]\n" + TOP + ACCEPTS + LABELS, "ignored names 1, which has a label; take one of them out"),
        ("ignored = [0]\n" + TOP + ACCEPTS + LABELS, "ignored is 0; it must be from 1 to 65535"),
        (TOP + ACCEPTS + LABELS + "smallest_mm = -1\n", "label 1 (Lung): labels.smallest_mm is -1; it must be"),
        (TOP + ACCEPTS + LABELS.replace("[1, 2, 3]", "[1, 2, 256]"), "label 1 (Lung): labels.color is 256; it must be"),
        (TOP + ACCEPTS + 'plane = "axal"\n' + LABELS, "accepts.plane is 'axal'; it can be axial, coronal, sag"),
        (TOP + ACCEPTS + "max_slices = 1\n" + LABELS, "accepts.max_slices is 1, less than min_slices, 2"),
        *(
            (TOP + ACCEPTS + LABELS + f"[runtime]\n{line}\n", f"runtime.{reason}")
            for line, reason in [
                ("timeout_s = 0", "timeout_s is 0; it must be at least 0.1"),
                ("timeout_s = -1", "timeout_s is -1; it must be at least 0.1"),
                ("timeout_s = nan", "timeout_s is nan; it must be at least 0.1"),
                ("attempts = 0", "attempts is 0; it must be from 1 to 100"),
                ('device = "gpu"', "device is 'gpu'; it can be auto, cpu or cuda:N, such as cuda:0"),
                ('device = "cuda:x"', "device is 'cuda:x'; it can be auto, cpu or cuda:N, such as cuda:0"),
                ("memory_mb = -1", "memory_mb is -1; it must be at least 0"),
                ("memory_mb = 1", "memory_mb is 1; it must be 0 (the service's budget) or at least 64"),
                ("deadline_s = -1", "deadline_s is -1; it must be at least 0"),
                ("deadline_s = inf", "deadline_s is inf; it must be at least 0"),
                ('out_of_memory = "wait"', "out_of_memory is 'wait'; it can be cpu or patience"),
            ]
        ),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path: Path, text: str, reason: str) -> None:
    assert refusal(tmp_path, text).startswith(reason)


def test_a_card_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CardError, match=r"card\.toml: 'utf-8' codec"):
        read_card(tmp_path)


def test_the_cards_of_this_repository_can_be_read() -> None:
    for path in (Path(__file__).parents[3] / "models").glob("*/card.toml"):
        assert read_card(path.parent).name == path.parent.name
