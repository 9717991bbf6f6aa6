"""The guide to engines names what there is, and its cards are cards."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from overread.domain.card import read_card
from overread.domain.features import FAMILIES, SIZES
from overread.infer.engines import ENGINES

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "models" / "engines.md").read_text("utf-8")
BLOCKS = re.findall(r"```toml\n(.*?)```", GUIDE, re.S)
HEAD, *OTHERS = BLOCKS


def test_the_guide_names_every_engine_and_every_feature() -> None:
    assert all(f"| `{name}` |" in GUIDE for name in ENGINES)
    for family, features in FAMILIES.items():
        listed = re.search(rf"^    {family}\n((?:        .*\n)+)", GUIDE, re.M)
        assert listed and listed[1].split() == [feature.name.split(".")[1] for feature in features]
    assert all(f"`{name}`" in GUIDE for name in SIZES)


@pytest.mark.parametrize("block", OTHERS, ids=lambda b: b.split("\n")[0][:30])
def test_a_card_of_the_guide_can_be_read(block: str, tmp_path: Path) -> None:
    head, values = HEAD, tomllib.loads(block)
    top, bracket, tables = block.partition("\n[")
    if top.startswith("["):
        top, bracket, tables = "", "\n", block
    for key in values:
        head = re.sub(rf"(?m)^{key} = .*\n", "", head)
    if values.get("engine") in ("stages", "external"):
        head = re.sub(r"(?m)^weights.*\n", "", head)
    if any(label["value"] == 1 for label in values.get("labels", ())):
        head = head[: head.index("[[labels]]")]
    (tmp_path / "card.toml").write_text(f"{top}\n{head}{bracket}{tables}")
    card = read_card(tmp_path)
    assert card.name == "my_model"


def test_the_drop_in_that_the_guide_names_is_there() -> None:
    assert (ROOT / "deploy" / "systemd" / "external.conf").is_file()
