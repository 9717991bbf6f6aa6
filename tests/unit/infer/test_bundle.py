"""A bundle is loaded whole and with the right weights, or the error says what it lacks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overread.domain.card import Card, read_card
from overread.domain.errors import CardError
from overread.domain.lock import write_lock
from overread.domain.volume import Volume
from overread.infer.engines import Grid

from .conftest import CONFIG, THRESHOLD, deeper

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def load(monai: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Card], Any]:
    """Load a bundle in this process."""
    from overread.infer.bundle import Bundle

    monkeypatch.setattr(sys, "path", list(sys.path))

    def make(card: Card) -> Any:
        for name in [n for n in sys.modules if n.split(".")[0] == "scripts"]:
            monkeypatch.delitem(sys.modules, name)
        return Bundle(card, "cpu")

    return make


def changed(**sections: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    config.update(sections)
    return {key: value for key, value in config.items() if value is not None}


def test_the_mask_is_the_networks_answer_on_the_source_grid(
    load: Callable, card: Card, volume: Callable[..., Volume]
) -> None:
    given, told = volume("oblique"), []
    mask = load(card).read([Grid(given.voxels, given.affine)], told.append).label_map
    np.testing.assert_array_equal(mask, given.voxels > THRESHOLD)
    assert mask.dtype == np.uint8
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 3


def test_other_weights_than_the_cards_are_refused(load: Callable, write_bundle: Callable[..., Path]) -> None:
    folder = write_bundle()
    card = read_card(folder)
    with (folder / "models" / "model.pt").open("ab") as file:
        file.write(b"\0")
    write_lock(folder, "2026-01-01T00:00:00+00:00", "the tests")
    with pytest.raises(CardError, match=r"the weights models/model.pt have SHA-256 [0-9a-f]{12}…, the card says"):
        load(card)


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"preprocessing": None}, "has no 'preprocessing' section"),
        ({"postprocessing": None}, "has no 'postprocessing' section"),
        ({"preprocessing": {"_target_": "Compose", "transforms": []}}, "has no LoadImage or LoadImaged"),
        ({"inferer": {"_target_": "NoSuchInferer"}}, "the bundle's 'inferer' cannot be built"),
        ({"inferer": "$1 / 0"}, "the bundle's 'inferer' cannot be built"),
    ],
)
def test_what_a_bundle_lacks_is_named(
    load: Callable, write_bundle: Callable[..., Path], card: Card, sections: dict, reason: str
) -> None:
    with pytest.raises(CardError, match=reason):
        load(read_card(write_bundle(changed(**sections))))


def test_a_folder_without_an_inference_config_is_refused(load: Callable, write_bundle: Callable[..., Path]) -> None:
    folder = write_bundle()
    (folder / "configs" / "inference.json").unlink()
    write_lock(folder, "2026-01-01T00:00:00+00:00", "the tests")
    with pytest.raises(CardError, match=r"has none of configs/\{inference.json, "):
        load(read_card(folder))


def test_a_network_that_resamples_comes_back_to_the_source_grid(
    load: Callable, write_bundle: Callable[..., Path], volume: Callable[..., Volume]
) -> None:
    given = volume("oblique", shape=(12, 18, 16))
    model = load(read_card(write_bundle(deeper(CONFIG))))
    mask = model.read([Grid(given.voxels, given.affine)], lambda _: None).label_map
    assert mask.shape == given.voxels.shape
    assert set(np.unique(mask)) <= {0, 1}
