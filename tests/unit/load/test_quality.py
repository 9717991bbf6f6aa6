"""The input gate: what is fit passes, everything else is told why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overread.domain.card import Accepts, Card, Label, Limits, read_card
from overread.domain.codes import Code
from overread.domain.errors import CardError, Unfit
from overread.domain.geometry import stack
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.load.features import features
from overread.load.profile import profile_of, read_profile, write_profile
from overread.load.quality import measure, require_fit
from overread.load.series import load
from overread.simulate.phantom import Grid, chest_phantom
from overread.spool import Spool
from overread.spool.header import read_file

Headers = Callable[..., list[Instance]]
CT_CHEST = Path(__file__).resolve().parents[3] / "models" / "ct_chest"


def card(folder: Path, accepts: dict | None = None, **limits: float) -> Card:
    label = Label(1, "Lung", Code("39607008", "SCT", "Lung"))
    wanted = Accepts("CT", **(accepts or {}))
    return Card("m", "1", "m", "o", "e", "w", "00", wanted, (label,), folder, quality=Limits(**limits))


@pytest.fixture
def body(ct_headers: Headers) -> Callable[..., Volume]:
    """``body(noise=5)``: a round water phantom with a lung inside, in air."""

    def make(count: int = 24, *, radius: float = 20.0, noise: float = 5.0, **values: Any) -> Volume:
        headers = ct_headers(count, pixel=(4.0, 4.0), rows=64, columns=64, **values)
        y, x = np.mgrid[-32:32, -32:32]
        plane = np.where(np.hypot(x, y) < radius, 40.0, -1000.0)
        plane[np.hypot(x, y) < 8] = -850.0
        rng = np.random.default_rng(1)
        hu = np.stack([plane + rng.normal(0, noise, plane.shape) for _ in range(count)])
        return Volume(np.clip(hu, -1024, 3071).astype(np.int16), stack(headers), (), "HU")

    return make


def refusal(volume: Volume, wanted: Card) -> str:
    with pytest.raises(Unfit) as caught:
        require_fit(volume, wanted)
    return str(caught.value)


def test_a_good_image_passes(body: Callable[..., Volume], tmp_path: Path) -> None:
    require_fit(body(), card(tmp_path, max_truncated=0.1, max_saturated=0.1, max_noise=50, max_empty=0.1))


def test_noise_is_measured_in_hounsfield_units(body: Callable[..., Volume], tmp_path: Path) -> None:
    for noise in (5.0, 20.0, 80.0):
        assert measure(body(noise=noise)).noise == pytest.approx(noise, rel=0.25)
    assert refusal(body(noise=80.0), card(tmp_path, max_noise=50)).endswith("the model takes 50 at most")


def test_a_body_that_is_cut_off_is_refused(body: Callable[..., Volume], tmp_path: Path) -> None:
    assert refusal(body(radius=40.0), card(tmp_path, max_truncated=0.3)).startswith(
        "the field of view cuts the body off along"
    )


def test_coverage_and_spacing_are_asked_for(body: Callable[..., Volume], tmp_path: Path) -> None:
    wanted = card(tmp_path, {"min_length_mm": 100.0, "max_slice_spacing_mm": 2.0})
    assert refusal(body(), wanted) == (
        "its slices are 2.50 mm apart, the model takes 2 mm at most; it covers 60 mm, the model needs 100 mm"
    )


def test_empty_slices_are_counted(body: Callable[..., Volume], tmp_path: Path) -> None:
    volume = body()
    volume.voxels[6:12] = -1000
    assert refusal(volume, card(tmp_path, max_empty=0.1)) == "25% of its slices are empty, the model takes 10% at most"


def test_saturation_is_seen(body: Callable[..., Volume], tmp_path: Path) -> None:
    volume = body()
    volume.voxels[volume.voxels > 0] = 3071
    assert "of the body is saturated" in refusal(volume, card(tmp_path, max_saturated=0.1))


def test_an_image_without_anything_in_it_is_refused(body: Callable[..., Volume], tmp_path: Path) -> None:
    write_profile(profile_of([body()]), tmp_path)
    volume = body()
    volume.voxels[:] = -1000
    assert refusal(volume, card(tmp_path)).endswith(
        "the image looks unlike what the model was trained on: there is nothing in the image"
    )


def test_distance_is_from_the_ranges_of_the_training_data(body: Callable[..., Volume], tmp_path: Path) -> None:
    profile = profile_of([body(radius=r, noise=n) for r in (18.0, 20.0, 22.0) for n in (3.0, 6.0)], widen=0.2)
    path = write_profile(profile, tmp_path)
    assert path == tmp_path / "profile.json"
    assert profile.distance(features(body(radius=19.0))) == (0.0, "")
    distance, told = profile.distance(features(body(radius=30.0)))
    assert distance > 1
    assert told.startswith("area of the body (cm²) is ")
    require_fit(body(radius=19.0), card(tmp_path))
    assert "unlike what the model was trained on" in refusal(body(radius=30.0), card(tmp_path))
    require_fit(body(radius=30.0), card(tmp_path, max_distance=0.0))


def test_no_study_gives_no_profile() -> None:
    with pytest.raises(CardError, match="nothing to make a profile of"):
        profile_of([])


def test_a_damaged_profile_is_named(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{}")
    with pytest.raises(CardError, match=r"profile.json is no profile \(KeyError\)"):
        read_profile(tmp_path)


@pytest.mark.parametrize("seed", [2001, 2002, 2003, 2004])
def test_ct_chest_reads_chests_that_it_has_not_seen(ct_headers: Headers, seed: int) -> None:
    grid = Grid((60, 128, 128), (4.0, 3.0, 3.0))
    headers = ct_headers(60, spacing=4.0, pixel=(3.0, 3.0), rows=128, columns=128)
    hu = np.maximum(chest_phantom(seed, grid).hu, -1024)
    require_fit(Volume(hu, stack(headers), (), "HU"), read_card(CT_CHEST))


def _unpacked(data: Path, name: str, folder: Path) -> list[Instance]:
    import tarfile

    (archive,) = (data / name).glob("*.tar.xz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return [replace(read_file(p), path=str(p)) for p in sorted(folder.rglob("*")) if p.is_file()]


def test_ct_chest_reads_a_real_chest(data: Path, spool: Spool, tmp_path: Path) -> None:
    wanted = read_card(CT_CHEST)
    volume = load(spool, _unpacked(data, "ct-chest-abdomen-cmb", tmp_path), wanted.accepts)
    require_fit(volume, wanted)


def test_ct_chest_refuses_a_head_by_its_looks_alone(data: Path, spool: Spool, tmp_path: Path) -> None:
    """Its body part says BRAIN, which the router declines already; many headers say nothing."""
    wanted = read_card(CT_CHEST)
    head = [
        i
        for i in _unpacked(data, "ct-head-phantom-study", tmp_path)
        if i.image_type[2:] == ("AXIAL",) and i.body_part == "BRAIN"
    ]
    assert "unlike what the model was trained on" in refusal(load(spool, head, wanted.accepts), wanted)
