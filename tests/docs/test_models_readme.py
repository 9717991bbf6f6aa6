"""The annotated card in models/README.md is a card, and its codes are what they say."""

from __future__ import annotations

import re
from pathlib import Path

from overread.adopt.codes import CATEGORY_CID, fault, members
from overread.domain.card import read_card

README = Path(__file__).parents[2] / "models" / "README.md"


def test_the_annotated_card_can_be_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", README.read_text("utf-8"), re.S)
    (tmp_path / "card.toml").write_text(text, "utf-8")
    card = read_card(tmp_path)
    for label in card.labels:
        assert [fault(code) for code in (label.type, label.category)] == [None, None]
        assert (label.category.scheme, label.category.value) in members(CATEGORY_CID)
    commented = text.replace("# [[inputs]]", "[[inputs]]").replace("# name =", "name =")
    commented = re.sub(r"(?m)^# (modifier|region_modifier|least_score)", r"\1", commented)
    (tmp_path / "card.toml").write_text(commented, "utf-8")
    assert read_card(tmp_path).inputs[0].name == "T1c"
