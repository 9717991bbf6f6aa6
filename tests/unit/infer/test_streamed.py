"""A bundle that runs as one stream says what its parts and its own evaluator say, voxel for voxel."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from overread.domain.card import read_card
from overread.domain.errors import CardError
from overread.domain.pipeline import Network
from overread.infer.engines import Grid

pytestmark = pytest.mark.filterwarnings("ignore")

Load = Callable[..., Any]
SHAPE = (17, 26, 23)
KEYS = {"keys": "pred"}
SOFTMAX = {"_target_": "Activationsd", **KEYS, "softmax": True}
ARGMAX = {"_target_": "AsDiscreted", **KEYS, "argmax": True}
LARGEST = {"_target_": "KeepLargestConnectedComponentd", **KEYS, "applied_labels": [1, 2]}


def inverted(nearest: bool) -> dict[str, Any]:
    undo = {"transform": "@preprocessing", "orig_keys": "image", "to_tensor": True}
    return {"_target_": "Invertd", **KEYS, **undo, "nearest_interp": nearest}


ENDINGS = {
    "probabilities brought back": [SOFTMAX, inverted(False), ARGMAX],
    "labels brought back": [SOFTMAX, ARGMAX, inverted(True)],
    "labels of logits": [ARGMAX, inverted(True)],
    "and more after": [SOFTMAX, inverted(False), ARGMAX, LARGEST],
    "more before": [ARGMAX, LARGEST, inverted(True)],
}
WINDOWS: list[dict[str, Any]] = [
    {"roi_size": [16, 16, 16], "sw_batch_size": 4, "overlap": 0.5},
    {"roi_size": [8, 16, 8], "sw_batch_size": 3, "overlap": 0.25, "mode": "gaussian"},
    {"roi_size": [32, 16, 64], "sw_batch_size": 1, "overlap": 0.6, "padding_mode": "replicate", "mode": "gaussian"},
    {"roi_size": [16, -1, 8], "sw_batch_size": 2, "overlap": [0.0, 0.3, 0.7], "cval": -1},
]


def bundle(post: list[dict[str, Any]], window: dict[str, Any], *, classes: int = 3, **spacing: Any) -> dict[str, Any]:
    space = {"pixdim": [1.7, 1.1, 2.3], "mode": "bilinear", **spacing}
    return {
        "network_def": {
            "_target_": "UNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": classes,
            "channels": [4, 8],
            "strides": [2],
        },
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "Spacingd", "keys": "image", **space},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 100, "b_min": 0, "b_max": 1},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", **window},
        "postprocessing": {"_target_": "Compose", "transforms": post},
    }


def weights(monai: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Random, and spread so that no two classes are even but where they meet."""
    import torch

    torch.manual_seed(4)
    given = {k: v for k, v in config["network_def"].items() if k != "_target_"}
    state: dict[str, Any] = monai.networks.nets.UNet(**given).state_dict()
    return {name: value * (3 if value.ndim == 5 else 1) for name, value in state.items()}


def grid(oblique: bool = False, shape: tuple[int, int, int] = SHAPE) -> Grid:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 100, [-(-n // 4) for n in shape])
    voxels = np.kron(coarse, np.ones((4, 4, 4)))[tuple(slice(n) for n in shape)] + rng.normal(0, 3, shape)
    affine = np.array([[0, 0, 0.9, -3.0], [0, 1.2, 0, 5.0], [2.0, 0, 0, 11.0], [0, 0, 0, 1.0]])
    if oblique:
        turn = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        affine = turn @ affine
    return Grid(voxels.astype(np.int16), affine)


def label_map(model: Any, given: Grid) -> Any:
    return model.read([given], lambda _: None).label_map


def plainly(model: Any) -> Any:
    """The same model without its stream."""
    model._stream = None
    return model


PROBABILITIES, LABELS = "probabilities brought back", "labels brought back"
CASES = [
    *((ending, 0, {}, False) for ending in ENDINGS),
    *((ending, n, {}, False) for ending in (PROBABILITIES, LABELS) for n in range(1, len(WINDOWS))),
    (PROBABILITIES, 0, {}, True),
    (LABELS, 1, {}, True),
    (PROBABILITIES, 0, {"dtype": "float32"}, False),
    (PROBABILITIES, 0, {"align_corners": True}, False),
    (LABELS, 0, {"align_corners": True}, False),
    (PROBABILITIES, 0, {"pixdim": [0.9, 1.2, 2.0]}, False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_stream_says_what_the_parts_and_the_evaluator_say(
    monai: Any, load_bundle: Load, case: tuple[str, int, dict[str, Any], bool]
) -> None:
    ending, window, spacing, oblique = case
    config = bundle(ENDINGS[ending], WINDOWS[window], **spacing)
    state, given, told = weights(monai, config), grid(oblique), []
    model = load_bundle(config, state)
    assert model._stream is not None
    streamed = model.read([given], told.append).label_map
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(np.unique(streamed)) > 1
    assert streamed.dtype == np.uint8
    np.testing.assert_array_equal(streamed, label_map(plainly(model), given))
    own = load_bundle(config, state, evaluator=True)
    assert own._stream is None
    np.testing.assert_array_equal(streamed, label_map(own, given))


CROPPED = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": True}
UNLIKE: dict[str, Callable[[dict[str, Any]], None]] = {
    "an image that is cropped": lambda c: c["preprocessing"]["transforms"].insert(3, CROPPED),
    "one that is resized": lambda c: c["preprocessing"]["transforms"].insert(
        4, {"_target_": "Resized", "keys": "image", "spatial_size": [16, 16, 16]}
    ),
    "a spacing that takes the nearest": lambda c: c["preprocessing"]["transforms"][3].update(mode="nearest"),
    "sigmoid channels": lambda c: c["postprocessing"]["transforms"].__setitem__(
        slice(None),
        [
            {"_target_": "Activationsd", **KEYS, "sigmoid": True},
            inverted(False),
            {"_target_": "AsDiscreted", **KEYS, "threshold": 0.5},
        ],
    ),
    "an inferer with a buffer": lambda c: c["inferer"].update(buffer_steps=1),
    "an inferer of another kind": lambda c: c["inferer"].update(
        {"_target_": "SliceInferer", "roi_size": [16, 16], "spatial_dim": 2}
    ),
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_the_stream_does_not_understand_runs_the_plain_way_with_the_same_answer(
    monai: Any, load_bundle: Load, what: str
) -> None:
    config: dict[str, Any] = json.loads(json.dumps(bundle(ENDINGS["probabilities brought back"], WINDOWS[0])))
    state, given = weights(monai, config), grid()
    UNLIKE[what](config)
    if what == "an inferer of another kind":
        config["network_def"].update(spatial_dims=2)
        state = weights(monai, config)
        state = {name: value * (3 if value.ndim == 4 else 1) for name, value in state.items()}
    channels = {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "a", "1": "b", "2": "c"}}}}}
    one, other = (
        load_bundle(config, state, evaluator=own, about=channels).read([given], lambda _: None) for own in (False, True)
    )
    if one.label_map is None:
        assert set(one.masks) == set(other.masks)
        for value, mask in one.masks.items():
            np.testing.assert_array_equal(mask, other.masks[value])
    else:
        np.testing.assert_array_equal(one.label_map, other.label_map)


def allowing(model: Any, **network: Any) -> Any:
    """The model again, with more on its card."""
    from overread.infer.streamed import Streamed

    model._card = replace(model._card, network=Network(**network))
    model._stream = Streamed.of(model._way, model._card)
    return model


def test_windows_in_which_nothing_is_are_background_and_nothing_else_changes(monai: Any, load_bundle: Load) -> None:
    config = bundle([SOFTMAX, ARGMAX, inverted(True)], {**WINDOWS[0], "roi_size": [8, 8, 8]}, pixdim=[0.9, 1.2, 2.0])
    model, given = load_bundle(config, weights(monai, config)), grid()
    voxels = given.voxels.copy()
    voxels[:, :, 8:] = 0
    given = Grid(voxels, given.affine)
    whole, seen = label_map(model, given), []
    model = allowing(model, empty_at_most=0.0)
    model._way.network.register_forward_hook(lambda _m, given, _a: seen.append(len(given[0])))
    skipped = label_map(model, given)
    looked = sum(seen)
    assert 0 < looked < 0.7 * 5 * 6 * 4
    # x runs towards the patient's right here: windows begin at columns 8 - 1 and before for what has content
    np.testing.assert_array_equal(skipped[:, :, :7], whole[:, :, :7])
    assert not skipped[:, :, 16:].any()
    assert whole[:, :, 16:].any(), "the network calls air something, or this shows nothing"


def test_an_image_in_which_nothing_is_at_all_is_background(monai: Any, load_bundle: Load) -> None:
    config = bundle(ENDINGS["probabilities brought back"], WINDOWS[0])
    model = allowing(load_bundle(config, weights(monai, config)), empty_at_most=5.0)
    found = label_map(model, grid())
    assert found.shape == SHAPE
    # One window is looked at, for it tells how many classes there are.
    assert (found == 0).mean() > 0.3


def test_bfloat16_where_the_card_allows_it_agrees(monai: Any, load_bundle: Load) -> None:
    config = bundle(ENDINGS["probabilities brought back"], WINDOWS[0])
    model, given = load_bundle(config, weights(monai, config)), grid()
    exact = label_map(model, given)
    fast = label_map(allowing(model, precision="bfloat16"), given)
    assert (exact == fast).mean() > 0.95


def test_an_answer_that_is_no_number_is_refused(monai: Any, load_bundle: Load) -> None:
    config = bundle(ENDINGS["probabilities brought back"], WINDOWS[0])
    state = weights(monai, config)
    name = next(iter(state))
    model = load_bundle(config, {**state, name: state[name] * float("nan")})
    with pytest.raises(CardError, match="no numbers"):
        label_map(model, grid())


@pytest.mark.parametrize(
    ("line", "said"), [('precision = "float16"', "network.precision is 'float16'"), ("fast = true", "network.fast")]
)
def test_a_card_that_allows_what_there_is_not_is_refused(load_bundle: Load, monai: Any, line: str, said: str) -> None:
    config = bundle(ENDINGS["probabilities brought back"], WINDOWS[0])
    model = load_bundle(config, weights(monai, config))
    card = model._card.folder / "card.toml"
    card.write_text(card.read_text("utf-8") + f"\n[network]\n{line}\n", "utf-8")
    with pytest.raises(CardError, match=said):
        read_card(card.parent)


def test_more_threads_say_the_same(monai: Any, load_bundle: Load) -> None:
    import torch

    config = bundle(ENDINGS["probabilities brought back"], WINDOWS[0])
    state, given, before = weights(monai, config), grid(), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(label_map(load_bundle(config, state), given))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
