"""SECURITY.md names tests and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from overread.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)))
KEYS = sorted(set(re.findall(r"`((?:receive|retain|observe|deliver)\.[a-z_.]+)`", TEXT)))


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_each_test_that_it_names_exists(file: str, name: str) -> None:
    source = (ROOT / file).read_text("utf-8")
    assert re.search(rf"^def {name}\b" if name else r"^def test_", source, re.M)


@pytest.mark.parametrize("key", KEYS)
def test_each_setting_that_it_names_exists(key: str) -> None:
    here: Any = Settings()
    for part in key.split("."):
        here = getattr(here, part)


def test_every_limit_has_its_row() -> None:
    from dataclasses import fields

    from overread.settings import Limits

    assert {f"receive.limits.{f.name}" for f in fields(Limits)} <= set(KEYS)


def test_every_threat_has_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("|") and not re.match(r"\|(-|\s*threat)", line)]
    assert len(rows) > 20
    assert not [row for row in rows if "`tests/" not in row]
