"""What every engine promises, tried with the smallest model of each, and every card in ``models/``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import MAKE, THRESHOLD

from overread.domain.card import Card, read_card
from overread.domain.errors import CardError
from overread.domain.reading import Reading
from overread.infer.engines import ENGINES, Grid, engine
from overread.simulate.phantom import ChestPhantom, chest_phantom
from overread.simulate.phantom import Grid as PhantomGrid
from overread.simulate.study import affine_of, write_study

# Torch, MONAI, nnU-Net and scikit-learn warn of their own deprecations while they load and save.
pytestmark = pytest.mark.filterwarnings("ignore")

MODELS = sorted((Path(__file__).resolve().parents[3] / "models").glob("*/card.toml"))


@pytest.fixture(scope="session")
def phantom() -> ChestPhantom:
    return chest_phantom(5, PhantomGrid((12, 22, 18), (6.0, 12.0, 14.0)), nodules=1, noise_hu=5.0)


@pytest.fixture(scope="session")
def source(phantom: ChestPhantom, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    paths = write_study(phantom, tmp_path_factory.mktemp("source"), seed=5)
    bright = phantom.hu > THRESHOLD
    return Grid(phantom.hu, affine_of(phantom), tuple(map(str, paths)), bright)


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Card]:
    return {}


@pytest.fixture
def card(request: pytest.FixtureRequest, cards: dict[str, Card], tmp_path_factory: pytest.TempPathFactory) -> Card:
    name = str(request.param)
    if name not in cards:
        cards[name] = MAKE[name](tmp_path_factory.mktemp(name))
    return cards[name]


def masks_of(reading: Reading) -> dict[int, np.ndarray]:
    if reading.label_map is None:
        return dict(reading.masks)
    return {int(v): reading.label_map == v for v in np.unique(reading.label_map) if v}


def flipped(grid: Grid) -> Grid:
    """The same voxels in the same places, stored with slices and columns the other way round."""
    affine = grid.affine.copy()
    slices, _, columns = grid.voxels.shape
    affine[:3, 3] = (grid.affine @ [slices - 1, 0, columns - 1, 1])[:3]
    affine[:3, [0, 2]] *= -1
    turned = np.ascontiguousarray(grid.voxels[::-1, :, ::-1])
    return Grid(turned, affine, grid.paths[::-1], None if grid.mask is None else grid.mask[::-1, :, ::-1])


def test_every_engine_is_tried() -> None:
    assert set(MAKE) == set(ENGINES)


@pytest.mark.parametrize("card", list(ENGINES), indirect=True)
def test_an_engine_reads_on_the_grid_of_its_input(card: Card, source: Grid) -> None:
    told: list[float] = []
    reading = engine(card.engine)(card, "cpu").read([source], told.append)
    assert told[-1] == 1.0 and told == sorted(told) and min(told) >= 0
    if card.task == "classification":
        assert [c.label for c in reading.classes if c.chosen] in ([1], [2])
        assert sum(c.probability for c in reading.classes) == pytest.approx(1)
        return
    found = masks_of(reading)
    assert all(mask.shape == source.voxels.shape for mask in found.values())
    if card.engine != "nnunet":
        assert (found[1] == (source.voxels > THRESHOLD)).all()
    if card.engine == "stages":
        assert (found[2] == (source.voxels > 200)).all()


@pytest.mark.parametrize("card", [e for e in ENGINES if e not in ("sklearn", "external")], indirect=True)
def test_how_a_volume_is_stored_does_not_move_its_mask(card: Card, source: Grid) -> None:
    model = engine(card.engine)(card, "cpu")
    straight, turned = (masks_of(model.read([grid], lambda _: None)) for grid in (source, flipped(source)))
    assert straight and set(straight) == set(turned)
    for value, mask in straight.items():
        assert (turned[value][::-1, :, ::-1] == mask).all()


@pytest.mark.parametrize("card", [e for e in ENGINES if e not in ("external", "stages")], indirect=True)
def test_other_weights_than_the_card_names_are_refused(card: Card) -> None:
    with pytest.raises(CardError, match="SHA-256"):
        engine(card.engine)(replace(card, weights_sha256="00" * 32), "cpu")


@pytest.mark.parametrize("card", ["torchscript", "torch-export", "onnx", "sklearn", "nnunet"], indirect=True)
def test_a_file_that_is_no_model_is_refused_with_the_reason(card: Card, tmp_path: Path) -> None:
    import hashlib
    import shutil

    shutil.copytree(card.folder, tmp_path / "model")
    weights = tmp_path / "model" / card.weights
    weights.write_bytes(b"this is no model")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    with pytest.raises(CardError, match=weights.name):
        engine(card.engine)(replace(card, folder=tmp_path / "model", weights_sha256=digest), "cpu")


def test_an_unknown_engine_is_named_with_those_there_are() -> None:
    with pytest.raises(CardError, match="monai-bundle, torchscript"):
        engine("tensorflow")


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.parent.name)
def test_every_card_in_models_loads_and_reads(path: Path, source: Grid) -> None:
    card = read_card(path.parent)
    reading = engine(card.engine)(card, "cpu").read([source] * max(1, len(card.inputs)), lambda _: None)
    known = {label.value for label in card.labels}
    assert set(masks_of(reading)) <= known
    assert {c.label for c in reading.classes} <= known
    assert {b.label for b in reading.boxes} <= known
