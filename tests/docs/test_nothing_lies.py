"""Documents cannot lie: what they say of the program is compared with the program."""

from __future__ import annotations

import argparse
import ast
import re
from pathlib import Path

import pytest

from overread import cli, conformance
from overread.domain.card import read_card

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service" / "overread"
SOURCES = sorted(SERVICE.rglob("*.py"))
MODELS = sorted(path.parent for path in (ROOT / "models").glob("*/card.toml"))


def _commands(parser: argparse.ArgumentParser, prefix: str = "") -> set[str]:
    found = set()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                deeper = _commands(child, f"{prefix}{name} ")
                found |= deeper or {f"{prefix}{name}"}
    return found


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text("utf-8")
    missing = [c for c in _commands(cli._parser()) if f"overread {c}" not in readme]
    assert not missing


def test_the_readme_names_no_command_that_does_not_exist():
    known = {c.split()[0] for c in _commands(cli._parser())}
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    used = re.findall(r"^\s*(?:\S+/)?overread(?: --config \S+)? ([a-z]+)", "\n".join(blocks), re.M)
    assert used
    assert set(used) <= known


@pytest.mark.parametrize(
    "document", ["README.md", "service/README.md", "deploy/README.md", "models/README.md", "models/engines.md"]
)
def test_links_between_documents_lead_somewhere(document):
    path = ROOT / document
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
    assert not [t for t in targets if not (path.parent / t).exists()]


def test_the_conformance_statement_is_what_the_code_does():
    assert (ROOT / "deploy/CONFORMANCE.md").read_text("utf-8") == "\n".join(conformance.statement()) + "\n"


@pytest.mark.parametrize("folder", MODELS, ids=lambda p: p.name)
def test_every_shipped_model_has_its_card_weights_and_readme(folder):
    from overread.checkup import check_model

    assert not check_model(read_card(folder)).wrong
    assert (folder / "README.md").is_file()
    assert (folder / "configs" / "metadata.json").is_file()
    assert (folder / read_card(folder).weights).stat().st_size < 10 * 2**20


def _functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(SERVICE)))
def test_house_rules(path):
    """Files of at most 400 lines, functions of at most 50, no room for odds and ends, no name of another world."""
    text = path.read_text("utf-8")
    assert text.count("\n") <= 400
    assert path.stem not in {"utils", "common", "helpers", "manager"}
    assert not re.search(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b", text)
    for node in _functions(path):
        assert node.end_lineno - node.lineno < 50, node.name


def test_importing_any_room_starts_nothing_heavy():
    """The command line and the listener must never pay for torch or monai."""
    import subprocess
    import sys

    code = (
        "import sys, overread.cli, overread.receive.listener, overread.receive.index, overread.ledger\n"
        "import overread.schedule.shift, overread.route.router, overread.infer.pool, overread.encode\n"
        "print([m for m in ('torch', 'monai', 'skimage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
