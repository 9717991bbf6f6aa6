"""The table of destinations."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from overread.deliver import DESTINATIONS, destination
from overread.deliver.lazy import LazyDestination
from overread.deliver.options import options
from overread.domain.errors import ConfigError, NoConnection, Unreachable
from overread.settings import Deliver
from overread.spool.answers import AnswerBox


@pytest.mark.parametrize("row", sorted(DESTINATIONS.values()))
def test_every_row_of_the_table_is_a_destination(row: str) -> None:
    module, _, name = row.partition(":")
    kind = getattr(importlib.import_module(module), name)
    assert all(callable(getattr(kind, method)) for method in ("send", "prove", "check"))


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="dimse, folder, object-store, stow"):
        destination("carrier-pigeon", name="x")


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="folder"):
        destination("folder", name="x", port=4)


def test_an_unknown_proof_is_refused(tmp_path: Path) -> None:
    wanted = Deliver("x", ae_title="P", host="127.0.0.1", proof="hope")
    with pytest.raises(ConfigError, match=r"proof is 'hope'; it can be commitment, c-move, c-find"):
        options(wanted, "OVERREAD", AnswerBox(tmp_path))


@pytest.mark.parametrize(
    "wanted",
    [
        Deliver("x", ae_title="P", host="127.0.0.1"),
        Deliver("x", ae_title="P", host="127.0.0.1", proof="commitment", commitment_fallback="c-find"),
        Deliver("x", ae_title="P", host="127.0.0.1", proof="c-move", move_ae_title="BACK", move_port=104),
        Deliver("x", kind="stow", url="http://127.0.0.1/dicom-web"),
        Deliver("x", kind="folder", folder="somewhere"),
        Deliver("x", kind="object-store", url="memory://bucket"),
    ],
    ids=lambda d: f"{d.kind} {d.proof}",
)
def test_the_settings_of_each_kind_make_a_destination(wanted: Deliver, tmp_path: Path) -> None:
    made = destination(wanted.kind, **options(wanted, "OVERREAD", AnswerBox(tmp_path)))
    assert made.name == "x"


def test_a_destination_whose_files_are_wrong_cannot_be_reached_until_they_are_mended(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    token = tmp_path / "token"
    wanted = Deliver("x", kind="stow", url="http://127.0.0.1:1/", auth="bearer", token_file=str(token))
    there = LazyDestination("x", lambda: destination("stow", **options(wanted, "OVERREAD", AnswerBox(tmp_path))))
    with pytest.raises(NoConnection, match=r"configuration fault: .*token_file"):
        there.check()
    token.write_text("secret")
    with pytest.raises(Unreachable, match="cannot be reached"):
        there.check()
