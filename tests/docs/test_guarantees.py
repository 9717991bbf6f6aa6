"""What README promises is shown by tests that exist, and what it says of the simulated PACS is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from overread.simulate.mischief import Fault, Mishap

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_guarantee_names_tests_that_exist() -> None:
    table = README.partition("| promised |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 15
    for row in rows:
        named = re.findall(r"`(tests/[a-z0-9_/]+\.py)::([a-z0-9_]+)`", row.rsplit("|", 2)[1])
        assert named, row
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text("utf-8"))
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, row


def test_every_fault_of_the_simulated_pacs_is_told() -> None:
    part = README.partition("overread simulate pacs")[2].partition("## What results look like")[0]
    assert {f"`{kind}`" for kind in Mishap} <= set(re.findall(r"`[a-z-]+`", part))
    fields = set(Fault.__dataclass_fields__) - {"kind"}
    assert fields <= set(re.findall(r"`([a-z_]+)`", part))
