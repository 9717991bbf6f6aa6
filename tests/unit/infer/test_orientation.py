"""An asymmetric phantom in all 48 axis orders and flips, oblique and anisotropic: the mask lands exactly.

The network marks the right-hand neighbour of every bright voxel, so it can tell its directions apart: a bundle that was
fed in another orientation than it asks for, or whose answer came back turned or shifted, would be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from overread.infer.engines import Grid

pytestmark = pytest.mark.filterwarnings("ignore")

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPACING_MM = (1.0, 1.5, 2.5)  # of the patient's axes: right to left, back to front, feet to head
ANGLE = np.radians(14)
TURNED = np.array(
    [[np.cos(ANGLE), -np.sin(ANGLE), 0.0], [np.sin(ANGLE), np.cos(ANGLE), 0.0], [0.0, 0.0, 1.0]]
) @ np.array([[1.0, 0.0, 0.0], [0.0, np.cos(0.1), -np.sin(0.1)], [0.0, np.sin(0.1), np.cos(0.1)]])

LOADED = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
INVERTED = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"}
NETWORK = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 5, "padding": 2}
ARGMAX = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}


def oriented(axcodes: str) -> dict[str, Any]:
    return {"_target_": "Orientationd", "keys": "image", "axcodes": axcodes, "labels": None}


CROPPED = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": False, "margin": 1}
PADDED = {"_target_": "DivisiblePadd", "keys": "image", "k": 8}
FINER = {"_target_": "Spacingd", "keys": "image", "pixdim": [0.5, 0.75, 1.25], "mode": "nearest"}
# Preprocessing and postprocessing, and how many voxels of the network's grid a voxel is wide.
WAYS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], int]] = {
    "oriented, inverted": ([oriented("RAS")], [ARGMAX, INVERTED], 1),
    "oriented, not inverted": ([oriented("RAS")], [ARGMAX], 1),
    "cropped and padded, inverted": ([oriented("RAS"), CROPPED, PADDED], [ARGMAX, INVERTED], 1),
    "cropped and padded, not inverted": ([oriented("RAS"), CROPPED, PADDED], [ARGMAX], 1),
    "finer, inverted": ([oriented("RAS"), FINER], [ARGMAX, INVERTED], 2),
}


def phantom() -> np.ndarray:
    """(x, y, z) to the patient's right … in RAS: three different boxes, no two views of it alike."""
    volume = np.zeros((10, 12, 9), np.int16)
    volume[2:7, 3:5, 2:4] = 100
    volume[2:3, 3:10, 2:3] = 100
    volume[2:3, 3:4, 2:8] = 100
    volume[7, 8, 6] = 100
    return volume


def wanted() -> np.ndarray:
    """What the network says: bright here, or at the left-hand neighbour (x grows to the right)."""
    bright = phantom() > 50
    found = np.zeros_like(bright)
    found[1:] = bright[:-1]
    return found


def orders() -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    yield from product(permutations(range(3)), product((1, -1), repeat=3))


def laid(volume: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """RAS (x, y, z) as the array of a scanner that runs along ``order`` with ``signs``: (slices, rows, columns)."""
    turned = volume.transpose(order)
    return np.ascontiguousarray(turned[tuple(slice(None, None, s) for s in signs)])


def affine_of(order: tuple[int, ...], signs: tuple[int, ...]) -> np.ndarray:
    """(slice, row, column) index → mm, LPS, of what ``laid`` gives."""
    ras = np.eye(4)
    ras[:3, :3] = TURNED * np.array(SPACING_MM)
    ras[:3, 3] = (-31.0, 17.0, -50.0)
    there = np.eye(4)
    there[:3, :3] = 0
    for k, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        there[axis, k] = sign
        there[axis, 3] = 0 if sign > 0 else phantom().shape[axis] - 1
    return LPS_TO_RAS @ ras @ there


def shifting(reach: int) -> dict[str, Any]:
    """State of a convolution whose second channel is the brightness ``reach`` voxels to the left."""
    import torch

    weight = torch.zeros(2, 1, 5, 5, 5)
    weight[1, 0, 2 - reach, 2, 2] = 0.1
    return {"weight": weight, "bias": torch.tensor([0.0, -5.0])}


@pytest.mark.parametrize(
    ("way", "evaluator"),
    [*((way, False) for way in WAYS), ("cropped and padded, inverted", True), ("oriented, not inverted", True)],
    ids=lambda given: {False: "part by part", True: "its own evaluator"}.get(given, given),
)
def test_the_mask_lands_exactly_in_all_48_orders_and_flips(
    load_bundle: Callable[..., Any], way: str, evaluator: bool
) -> None:
    before, after, reach = WAYS[way]
    config = {
        "network_def": NETWORK,
        "preprocessing": {"_target_": "Compose", "transforms": [*LOADED, *before]},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": after},
    }
    model = load_bundle(config, shifting(reach), evaluator=evaluator)
    for order, signs in orders():
        grid = Grid(laid(phantom(), order, signs), affine_of(order, signs))
        mask = model.read([grid], lambda _: None).label_map
        np.testing.assert_array_equal(mask, laid(wanted(), order, signs), f"{order} {signs}")


def test_an_inverse_that_does_not_come_home_is_refused(load_bundle: Callable[..., Any]) -> None:
    """Spacingd(recompute_affine=True) tells of another place than its inverse reaches: nobody knows which is right."""
    from overread.domain.errors import CardError

    moved = {"_target_": "scripts.mischief.Moved"}
    config = {
        "network_def": NETWORK,
        "preprocessing": {"_target_": "Compose", "transforms": [*LOADED, oriented("RAS")]},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": [ARGMAX, INVERTED, moved]},
    }
    model = load_bundle(config, shifting(1))
    order, signs = (2, 1, 0), (1, 1, 1)
    with pytest.raises(CardError, match="after Invertd the bundle's output does not lie on its source"):
        model.read([Grid(laid(phantom(), order, signs), affine_of(order, signs))], lambda _: None)
