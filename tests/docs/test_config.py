"""config/overread.toml says the defaults, and says all of them."""

from __future__ import annotations

import re
import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from overread.settings import Settings, read_settings

CONFIG = Path(__file__).parents[2] / "config" / "overread.toml"


def test_the_example_file_equals_the_defaults() -> None:
    found, defaults = read_settings(CONFIG), Settings()
    assert (found.data, found.models) == (str(CONFIG.parent / "data"), (str(CONFIG.parent / "models"),))
    assert replace(found, data=defaults.data, models=defaults.models) == defaults


def _tables(kind: type, name: str) -> typing.Iterator[tuple[str, str]]:
    """Every (table, key) of the settings."""
    for key, hint in typing.get_type_hints(kind).items():
        inner = next((a for a in (hint, *typing.get_args(hint)) if is_dataclass(a)), None)
        if inner is None:
            yield name, key
        else:
            yield from _tables(typing.cast(type, inner), f"{name}.{key}".strip("."))


def _written(text: str) -> set[tuple[str, str]]:
    """Every (table, key) in the file, commented out or not."""
    table, found = "", set()
    for line in text.splitlines():
        bare = re.sub(r"^# ?(?=\[|\w+ = )", "", line)
        if heading := re.match(r"\[\[?([\w.]+)\]\]?", bare):
            table = heading[1]
            found.add(tuple(table.rpartition(".")[::2]))
        elif key := re.match(r"(\w+) = ", bare):
            found.add((table, key[1]))
    return found


@pytest.mark.parametrize(("table", "key"), list(_tables(Settings, "")), ids=lambda v: v or "top")
def test_every_key_stands_in_the_example_file(table: str, key: str) -> None:
    assert (table, key) in _written(CONFIG.read_text("utf-8"))


def test_the_keys_in_comments_are_keys(tmp_path: Path) -> None:
    """The destination that is commented out is taken when the comment signs are."""
    text = CONFIG.read_text("utf-8")
    block = text[text.index("# [[deliver]]") : text.index("being watched")]
    lines = [line.removeprefix("# ") for line in block.splitlines() if re.match(r"# (\[\[|\w+ = )", line)]
    path = tmp_path / "overread.toml"
    path.write_text("\n".join(lines), "utf-8")
    (destination,) = read_settings(path).deliver
    told = ("port", "proof", "kind", "viewer", "results", "segmentation", "withdraw")
    defaults = {f.name: f.default for f in fields(destination) if f.name in told}
    assert {name: getattr(destination, name) for name in defaults} == defaults


@pytest.mark.parametrize("path", sorted((CONFIG.parent / "sites").glob("*.toml")), ids=lambda p: p.stem)
def test_the_examples_for_sites_are_valid(path: Path) -> None:
    assert read_settings(path) != Settings()
