"""Published bundles, as they are but for random weights, run and end as findings, or are refused with the reason.

Here their windows are made small, so that it takes seconds; ``tests/bench/bundles.py`` runs them untouched.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from overread.adopt.unpack import lay_out
from overread.measure.findings import find
from overread.trial import TINY, tiny_volume

pytestmark = pytest.mark.filterwarnings("ignore")

BUNDLES = {
    "spleen_ct_segmentation": {1: "78961009"},
    "swin_unetr_btcv_segmentation": {1: "78961009", 6: "10200004", 9: "64131007"},
    "prostate_mri_anatomy": {2: "279706003"},
    "ventricular_short_axis_3label": {1: "87878005", 2: "49848007", 3: "53085002"},
    "brats_mri_segmentation": {1: "108369006", 2: "108369006", 4: "108369006"},
    "wholeBody_ct_segmentation": {1: "78961009", 18: "49668003", 104: "89837001"},
}


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[1] / "bench" / "bundles.py"
    spec = importlib.util.spec_from_file_location("bench_bundles", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_every_bundle_that_is_there_is_tried(data: Path) -> None:
    there = {p.name for p in (data / "bundles").iterdir() if (p / "configs").is_dir()}
    assert there <= set(BUNDLES) or not there, f"no expectation for {there - set(BUNDLES)}"


@pytest.mark.parametrize("name", BUNDLES)
def test_a_published_bundle_runs_and_ends_as_findings(
    bench: ModuleType, data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from overread.infer.bundle import Bundle
    from overread.infer.engines import Grid

    if not (data / "bundles" / name).is_dir():
        pytest.skip(f"no bundle {name} in the test data")
    source = lay_out(data / "bundles" / name, tmp_path / "from" / name)
    bench.shrink(source / "configs" / "inference.json", 64 if "swin" in name else 32)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(bench, "_apart", bench.random_weights)
    (tmp_path / "scratch").mkdir()
    card = bench.adopt(source, tmp_path / "scratch")
    codes = {label.value: label.type.value for label in card.labels}
    assert {value: codes[value] for value in BUNDLES[name]} == BUNDLES[name]

    volume, told = tiny_volume(), []
    grid = Grid(volume.voxels, volume.affine)
    reading = Bundle(card, "cpu").read([grid] * max(1, len(card.inputs)), told.append)
    findings = find(reading, volume, card)
    assert findings.mask.shape == TINY
    assert findings.segments
    assert set(np.unique(findings.mask)) == {0, *(s.value for s in findings.segments)} - (
        set() if (findings.mask == 0).any() else {0}
    )
    assert told[-1] == 1.0
