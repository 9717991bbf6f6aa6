"""The capability table decides what a destination gets, and single switches overrule it."""

from __future__ import annotations

from pathlib import Path

import pytest

from overread import wiring
from overread.domain.errors import ConfigError
from overread.domain.variant import Variant
from overread.settings import Deliver, read_settings
from overread.settings.profiles import PROFILES, Profile, variants


def settings(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "overread.toml"
    path.write_text(text, "utf-8")
    return path


def to(tmp_path: Path, *lines: str) -> Deliver:
    text = "\n".join(['[[deliver]]\nname = "a"\nkind = "folder"\nfolder = "x"', *lines])
    (destination,) = read_settings(settings(tmp_path, text)).deliver
    return destination


def test_every_viewer_ends_with_the_floor() -> None:
    for profile in PROFILES.values():
        names = variants(profile)
        assert names[-1] == "binary"
        assert [Variant.of(n).name for n in names] == list(names)


def test_the_default_is_what_every_archive_takes(tmp_path: Path) -> None:
    destination = to(tmp_path)
    assert (destination.kinds, destination.variants, destination.deflated) == (("seg", "sr", "sc"), ("binary",), True)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (['viewer = "slicer"'], ("labelmap", "binary")),
        (['viewer = "slicer"', 'compression = "rle"'], ("labelmap-rle", "binary")),
        (['viewer = "slicer"', 'compression = "jpeg2000"'], ("labelmap-jpeg2000", "binary-jpeg2000", "binary")),
        (['viewer = "weasis"', 'empty_frames = "keep"'], ("labelmap-full", "binary-full")),
        (['viewer = "slicer"', 'segmentation = ["binary"]'], ("binary",)),
        (['segmentation = ["fractional", "labelmap"]'], ("fractional", "labelmap", "binary")),
        (['compression = "rle"'], ("binary",)),
    ],
)
def test_switches_overrule_the_row(tmp_path: Path, lines: list[str], wanted: tuple[str, ...]) -> None:
    assert to(tmp_path, *lines).variants == wanted


def test_kinds_follow_the_row_the_switch_and_the_withdrawal(tmp_path: Path) -> None:
    assert to(tmp_path, 'results = ["sr"]').kinds == ("sr",)
    assert to(tmp_path, 'withdraw = "rejection-note"').kinds == ("seg", "sr", "sc", "rejection")
    assert not to(tmp_path, 'compression = "none"').deflated


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('viewer = "osirix"', "basic or ohif or slicer or weasis"),
        ('segmentation = ["surface"]', "binary or labelmap or fractional"),
        ('compression = "zip"', "deflate"),
        ('empty_frames = "some"', "omit or keep"),
        ('withdraw = "yes"', "rejection-note"),
    ],
)
def test_a_wrong_word_is_told_with_the_right_ones(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        to(tmp_path, line)


@pytest.mark.parametrize(
    "line", ['series_description = "{patient}"', 'series_description = "{"', "first_series_number = 0"]
)
def test_series_cannot_be_called_anything(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match="encode"):
        read_settings(settings(tmp_path, f"[encode]\n{line}"))


def test_what_several_destinations_need_is_made_once(tmp_path: Path) -> None:
    one = '[[deliver]]\nname = "{}"\nkind = "folder"\nfolder = "x"\n{}\n'
    text = one.format("a", 'viewer = "slicer"') + one.format("b", "") + one.format("c", 'withdraw = "rejection-note"')
    encoding = wiring.encoding(read_settings(settings(tmp_path, text)))
    assert encoding.variants == ("labelmap", "binary")
    assert [e.kind for e in encoding.encoders] == ["seg", "sc", "sr-data", "sr", "rejection"]
    assert encoding.roots == {"sr-data": {"seg", "sr-data"}, "sr": {"seg", "sr", "sc"}}
    assert encoding.withdraws
    assert variants(Profile()) == ("binary",)
