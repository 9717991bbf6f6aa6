"""Each kind of head ends as what its card says, on the source's grid; what cannot be one is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from overread.domain.errors import CardError, Unfit
from overread.infer.engines import Grid

pytestmark = pytest.mark.filterwarnings("ignore")

SHAPE = (5, 6, 7)
AFFINE = np.array([[0.0, 0.0, 0.8, -3.0], [0.0, 0.9, 0.0, 5.0], [2.0, 0.0, 0.0, 11.0], [0, 0, 0, 1.0]])
LOADED = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
RAS = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
INVERTED = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
SOFTMAX = {"_target_": "Activationsd", "keys": "pred", "softmax": True}

Load = Callable[..., Any]


def voxels(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 101, SHAPE).astype(np.int16)


def read(model: Any, *volumes: np.ndarray) -> Any:
    return model.read([Grid(v, AFFINE) for v in volumes], lambda _: None)


def config(post: list[dict[str, Any]], *, out: int = 2, make: str = "", dims: int = 3, **more: Any) -> dict[str, Any]:
    kind = f"torch.nn.Conv{dims}d"
    inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    if make:
        inferer = {"_target_": "scripts.mischief.Head", "make": f"$lambda image, answer: {make}"}
    made = {
        "network_def": {"_target_": kind, "in_channels": 1, "out_channels": out, "kernel_size": 1},
        "preprocessing": {"_target_": "Compose", "transforms": [*LOADED, *([RAS] if dims == 3 else [])]},
        "inferer": inferer,
        "postprocessing": {"_target_": "Compose", "transforms": post},
    }
    return {**made, **more}


def state(weights: list[float], biases: list[float], dims: int = 3, channels: int = 1) -> dict[str, Any]:
    import torch

    weight = torch.zeros(len(weights), channels, *[1] * dims)
    for n, value in enumerate(weights):
        weight[n] = value
    return {"weight": weight, "bias": torch.tensor(biases)}


def about(channels: dict[str, str]) -> dict[str, Any]:
    return {"network_data_format": {"outputs": {"pred": {"channel_def": channels}}}}


def task(name: str) -> str:
    return f'\n[[labels]]\nvalue = 2\nname = "Dark"\ntype = ["39607008", "SCT", "Lung"]\n# {name}\n'


def card_of(load: Load, kind: str, *args: Any, **options: Any) -> Any:
    """The loaded bundle with the task ``kind`` on its card."""
    from dataclasses import replace

    model = load(*args, **{"card": task(kind), **options})
    model._card = replace(model._card, task=kind)
    return model


@pytest.mark.parametrize("evaluator", [False, True], ids=["part by part", "its own evaluator"])
def test_channels_of_a_sigmoid_may_overlap(load_bundle: Load, evaluator: bool) -> None:
    """No background in channel_def: channel 0 is the first label."""
    model = load_bundle(
        config([SIGMOID, INVERTED, {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]),
        state([1.0, 1.0], [-50.5, -80.5]),
        card=task("segmentation"),
        about=about({"0": "bright", "1": "brighter"}),
        evaluator=evaluator,
    )
    seen = read(model, voxels())
    assert seen.label_map is None
    np.testing.assert_array_equal(seen.masks[1], voxels() > 50)
    np.testing.assert_array_equal(seen.masks[2], voxels() > 80)


def test_a_softmax_without_a_decision_is_decided(load_bundle: Load) -> None:
    model = load_bundle(
        config([SOFTMAX, INVERTED]), state([0.0, 1.0], [0.0, -50.5]), about=about({"0": "background", "1": "bright"})
    )
    np.testing.assert_array_equal(read(model, voxels()).label_map, voxels() > 50)


def test_channels_nobody_names_are_refused(load_bundle: Load) -> None:
    model = load_bundle(config([SIGMOID, INVERTED], out=5), state([1.0] * 5, [-50.5] * 5))
    with pytest.raises(CardError, match=r"has 5 channels, the card's labels end at 1 and .* no channel_def"):
        read(model, voxels())


def test_logits_are_refused(load_bundle: Load) -> None:
    model = load_bundle(config([INVERTED]), state([1.0, 1.0], [0.0, -50.0]))
    with pytest.raises(CardError, match="neither masks nor probabilities"):
        read(model, voxels())


def test_labels_mixed_by_a_linear_inverse_are_not_made(load_bundle: Load) -> None:
    """argmax before Invertd with nearest_interp false mixes labels into others; it takes the nearest, and tells so."""
    spaced = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.1, 0.7, 1.3], "mode": "bilinear"}
    linear = {**INVERTED, "nearest_interp": False}
    made = config([{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}, linear], out=3)
    made["preprocessing"]["transforms"].append(spaced)
    model = load_bundle(made, state([0.0, 0.01, 1.0], [0.0, -0.4, -70.0]), card=task("segmentation"))
    seen = read(model, voxels())
    assert set(np.unique(seen.label_map)) <= {0, 1, 2}
    assert "it takes the nearest instead of mixing them" in seen.notes[0]


def test_a_classifier_gives_classes_with_probabilities(load_bundle: Load) -> None:
    mean = "answer.mean(dim=(2, 3, 4))"
    model = card_of(
        load_bundle,
        "classification",
        config([SOFTMAX], make=mean),
        state([0.0, 0.0], [0.0, 1.0]),
        about=about({"0": "normal", "1": "ill"}),
    )
    first, second = read(model, voxels()).classes
    assert (first.label, second.label) == (1, 2)
    assert (first.chosen, second.chosen) == (False, True)
    assert second.probability == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-5)


def test_classes_without_an_activation_are_refused(load_bundle: Load) -> None:
    made = config([{"_target_": "EnsureTyped", "keys": "pred"}], make="answer.mean(dim=(2, 3, 4))")
    model = card_of(load_bundle, "classification", made, state([0.0, 0.0], [-3.0, 4.0]))
    with pytest.raises(CardError, match="no probabilities; its postprocessing must end in a softmax or sigmoid"):
        read(model, voxels())


def test_boxes_come_back_to_the_sources_grid(load_bundle: Load) -> None:
    """The network's grid runs along RAS; the source along LPS: a box's corners are exchanged, not its place."""
    corners = "torch.tensor([[0., 1., 2., 2., 3., 4.]])"
    rest = "'label': torch.tensor([0]), 'score': torch.tensor([0.7])"
    away = [{"_target_": "ConvertBoxModed", "box_keys": "box"}, {"_target_": "DeleteItemsd", "keys": "image"}]
    made = config(away, make=f"[{{'box': {corners}, {rest}}}]")
    model = card_of(load_bundle, "detection", made, state([0.0, 0.0], [0.0, 0.0]), evaluator=True)
    (box,) = read(model, voxels()).boxes
    assert (box.label, box.score) == (1, pytest.approx(0.7))
    # RAS x 0 … 2 is column 6 … 4 of 7, RAS y 1 … 3 is row 4 … 2 of 6, z 2 … 4 is slice 2 … 4.
    np.testing.assert_allclose(box.low, (2, 2, 4), atol=1e-4)
    np.testing.assert_allclose(box.high, (4, 4, 6), atol=1e-4)


def test_a_derived_image_keeps_its_grid(load_bundle: Load) -> None:
    model = card_of(load_bundle, "image", config([INVERTED], out=1), state([2.0], [1.0]))
    image = read(model, voxels()).image
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, voxels() * 2.0 + 1.0)


def test_a_network_for_pictures_reads_slice_by_slice(load_bundle: Load) -> None:
    model = load_bundle(
        config([SOFTMAX, {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}], dims=2),
        state([0.0, 1.0], [0.0, -50.5], dims=2),
    )
    np.testing.assert_array_equal(read(model, voxels()).label_map, voxels() > 50)


def test_a_classifier_of_pictures_reads_one(load_bundle: Load) -> None:
    made = config([SOFTMAX], dims=2, make="answer.mean(dim=(2, 3))")
    model = card_of(load_bundle, "classification", made, state([0.0, 0.0], [0.0, 1.0], dims=2))
    assert [c.chosen for c in read(model, voxels()[:1]).classes] == [False, True]
    with pytest.raises(Unfit, match="the model reads one picture, the series has 5 slices"):
        read(model, voxels())


def test_a_network_for_colour_files_reads_grey_in_each_colour(load_bundle: Load) -> None:
    """As radiographs are kept in colour files: (x, y, 3), the channels last."""
    made = config([SOFTMAX, {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}], dims=2)
    made["network_def"]["in_channels"] = 3
    made["preprocessing"]["transforms"][1] = {"_target_": "EnsureChannelFirstd", "keys": "image", "channel_dim": 2}
    model = load_bundle(made, state([0.0, 1.0], [0.0, -150.5], dims=2, channels=3))
    np.testing.assert_array_equal(read(model, voxels()).label_map, voxels() > 50)


@pytest.mark.parametrize("keys", ["image", ["one", "two", "label"]], ids=["stacked", "by their own keys"])
def test_several_series_are_read_together(load_bundle: Load, keys: Any) -> None:
    """As channels of one key, or each under its own; a truth that is wanted beside them may be missing."""
    made = config([SOFTMAX, {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}])
    made["network_def"]["in_channels"] = 2
    transforms: list[dict[str, Any]] = [{"_target_": "LoadImaged", "keys": keys}]
    if keys != "image":
        transforms.append({"_target_": "EnsureChannelFirstd", "keys": keys})
        transforms.append({"_target_": "ConcatItemsd", "keys": keys[:2], "name": "image"})
    made["preprocessing"]["transforms"] = transforms
    weights = state([0.0, 1.0], [0.0, -150.5], channels=2)
    model = load_bundle(made, weights, card='[[inputs]]\nname = "one"\n[[inputs]]\nname = "two"\n')
    seen = read(model, voxels(1), voxels(2)).label_map
    np.testing.assert_array_equal(seen, voxels(1).astype(int) + voxels(2) > 150)
    with pytest.raises(Unfit, match=r"the model reads 2 series together \(one, two\), it was given 1"):
        read(model, voxels())


def test_other_years_and_machines_are_followed(load_bundle: Load) -> None:
    """NumPy 1, a GPU that is not there, arguments that are gone, downloads and DataParallel weights."""
    made = config(
        [
            SOFTMAX,
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image", "gone": 1},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "device": "cuda:0"},
        ],
        size="$np.product([1, 2])",
        where="$torch.device('cuda')",
    )
    made["preprocessing"]["transforms"].append({"_target_": "ToDeviced", "keys": "image", "device": "@where"})
    whole = {"state_dict": {f"module.{k}": v for k, v in state([0.0, 1.0], [0.0, -50.5]).items()}}
    model = load_bundle(made, whole)
    seen = read(model, voxels())
    np.testing.assert_array_equal(seen.label_map, voxels() > 50)
    assert any("'gone'" in note for note in seen.notes)
    assert any("a GPU that is not there" in note for note in seen.notes)


def test_a_package_that_is_missing_is_named_with_its_remedy(load_bundle: Load) -> None:
    made = config([SOFTMAX], detector="$torchvision.ops.nms", imports=["$import torchvision.ops", "$import scripts"])
    made["inferer"] = {"_target_": "scripts.mischief.Head", "make": "@detector"}
    with pytest.raises(CardError, match=r"it needs the package torchvision: pip install 'overread\[detection\]'"):
        load_bundle(made, state([0.0, 1.0], [0.0, -50.5]))


def test_a_download_is_refused(load_bundle: Load) -> None:
    made = config([SOFTMAX], weights="$torch.hub.load_state_dict_from_url('https://example.org/w.pt')")
    made["inferer"] = {"_target_": "scripts.mischief.Head", "make": "@weights"}
    with pytest.raises(CardError, match=r"wants to download https://example.org/w.pt; .* overread runs offline"):
        load_bundle(made, state([0.0, 1.0], [0.0, -50.5]))


def test_a_bundle_that_changed_is_not_loaded(load_bundle: Load) -> None:
    from overread.infer.bundle import Bundle

    card = load_bundle(config([SOFTMAX, INVERTED]), state([0.0, 1.0], [0.0, -50.5]))._card
    with (card.folder / "scripts" / "mischief.py").open("a") as file:
        file.write("\nprint('gotcha')\n")
    with pytest.raises(CardError, match=r"is not what was trusted: scripts/mischief.py has changed"):
        Bundle(card, "cpu")
