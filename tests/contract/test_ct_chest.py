"""models/ct_chest keeps what it promises, on generated chests that it never saw, also as other scanners show them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from overread.domain.card import read_card
from overread.simulate.phantom import LABELS, Grid

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

from ct_chest_parts.calibration import Calibration, Network
from ct_chest_parts.unseen import MODEL, Score, phantoms, varied

GRID = Grid((110, 150, 190), (2.0, 2.0, 2.0))
COUNT = 4
FOUND_FROM_12_MM = 0.8
FALSE_A_SCAN = 4.0
CALIBRATION_ERROR = {"left lung": 0.03, "right lung": 0.03, "bone": 0.06, "lung nodule": 0.45}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def seen() -> tuple[Score, Calibration]:
    """Each phantom read once at the model's own spacing, in turn as generated and as another scanner shows it."""
    network, score, sure = Network(MODEL), Score(), Calibration()
    for number, (seed, phantom) in enumerate(phantoms(COUNT, GRID)):
        likely = network.probabilities(varied(phantom, seed) if number % 2 else phantom)
        score.add(likely.argmax(axis=0), phantom.truth, 8.0)
        sure.add(likely, phantom.truth)
    return score, sure


@pytest.mark.parametrize("name", list(LABELS.values()))
def test_dice_is_no_lower_than_the_card_says(seen: tuple[Score, Calibration], name: str) -> None:
    dice = seen[0].dice[name]
    assert sum(dice) / len(dice) >= read_card(MODEL).dice_floor[name]


def test_nodules_are_found(seen: tuple[Score, Calibration]) -> None:
    score = seen[0]
    assert sum(score.found[2:]) >= FOUND_FROM_12_MM * sum(score.painted[2:]) > 0


def test_false_marks_are_few(seen: tuple[Score, Calibration]) -> None:
    assert seen[0].false_shown / seen[0].scans <= FALSE_A_SCAN


@pytest.mark.parametrize("name", list(LABELS.values()))
def test_it_is_about_as_sure_as_it_is_right(seen: tuple[Score, Calibration], name: str) -> None:
    assert float(dict(seen[1].rows())[name]["calibration error"]) <= CALIBRATION_ERROR[name]
