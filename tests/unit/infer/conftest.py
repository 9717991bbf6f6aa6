"""A tiny MONAI bundle, made by the tests: its network marks every voxel above 50, its own code can misbehave."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overread.domain.card import Card, read_card
from overread.domain.geometry import Stack
from overread.domain.lock import write_lock
from overread.domain.study import Instance
from overread.domain.volume import Volume
from overread.infer.worker import WorkerProcess

THRESHOLD = 50.0

CARD = """
name = "threshold"
version = "1"
title = "Above 50"
manufacturer = "overread"
engine = "monai-bundle"
weights = "models/model.pt"
weights_sha256 = "{digest}"
[accepts]
modality = "CT"
[runtime]
timeout_s = 60
[[labels]]
value = 1
name = "Bright"
type = ["39607008", "SCT", "Lung"]
"""

MISCHIEF = '''
"""Does what the brightest voxel asks for."""

import os
import signal
import sys
import time


class Mischief:
    def __call__(self, item):
        deed = int(item["image"].max())
        if deed == 2001:
            os.abort()
        if deed == 2002:
            os.kill(os.getpid(), signal.SIGKILL)
        if deed == 2003:
            sys.exit(3)
        if deed == 2004:
            raise MemoryError("cannot allocate")
        if deed == 2005:
            time.sleep(60)
        if deed == 2006:
            raise ValueError("a model's own fault")
        if deed == 2007:
            os._exit(7)
        return item


class Moved:
    """Says that the prediction lies elsewhere."""

    def __call__(self, item):
        item["pred"].affine = item["pred"].affine.clone()
        item["pred"].affine[0, 3] += 7
        return item


class Head:
    """A network's answer of any shape: what the bundle's config says."""

    def __init__(self, make):
        self.make = make

    def __call__(self, image, network, *args, **kwargs):
        return self.make(image, network(image))


class Spoil:
    """After the network."""

    def __call__(self, item):
        deed = int(item["image"].max())
        if deed == 2011:
            item["pred"] = item["pred"][:, :2]
        if deed == 2012:
            item["pred"] = item["pred"] * 70000
        if deed == 2013:
            item["pred"] = item["pred"] * float("nan")
        return item
'''

CONFIG: dict[str, Any] = {
    "imports": ["$import scripts"],
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
            {"_target_": "EnsureTyped", "keys": "image"},
            {"_target_": "scripts.mischief.Mischief"},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "sw_batch_size": 2, "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {"_target_": "scripts.mischief.Spoil"},
            {"_target_": "SaveImaged", "keys": "pred", "output_dir": "eval"},
        ],
    },
}


def deeper(config: dict[str, Any]) -> dict[str, Any]:
    """The same with a small UNet, resampled to 2 mm on the way in and back on the way out."""
    changed: dict[str, Any] = json.loads(json.dumps(config))
    changed["network_def"] = {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8],
        "strides": [2],
    }
    spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 2.0, 2.0], "mode": "bilinear"}
    changed["preprocessing"]["transforms"].insert(3, spacing)
    return changed


def _write(folder: Path, config: dict[str, Any], state: dict[str, Any], more: str = "") -> Path:
    import torch

    for name in ("configs", "models", "scripts"):
        (folder / name).mkdir(parents=True)
    (folder / "scripts" / "__init__.py").touch()
    (folder / "scripts" / "mischief.py").write_text(MISCHIEF)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(state, folder / "models" / "model.pt")
    digest = hashlib.sha256((folder / "models" / "model.pt").read_bytes()).hexdigest()
    (folder / "card.toml").write_text(CARD.format(digest=digest) + more)
    write_lock(folder, "2026-01-01T00:00:00+00:00", "the tests")
    return folder


@pytest.fixture(scope="session")
def monai() -> Any:
    """MONAI, imported once and without its deprecation warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import monai.bundle
        import monai.inferers
        import monai.networks.nets
        import monai.transforms
    return monai


@pytest.fixture(scope="session")
def write_bundle(monai: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``write_bundle(config)``: a bundle with matching weights; random ones for a UNet, the threshold otherwise."""
    import torch

    def write(config: dict[str, Any] = CONFIG) -> Path:
        if config["network_def"]["_target_"] == "UNet":
            given = {k: v for k, v in config["network_def"].items() if k != "_target_"}
            torch.manual_seed(1)
            state = monai.networks.nets.UNet(**given).state_dict()
        else:
            state = {
                "weight": torch.tensor([0.0, 0.1]).reshape(2, 1, 1, 1, 1),
                "bias": torch.tensor([0.0, -0.1 * THRESHOLD]),
            }
        return _write(tmp_path_factory.mktemp("bundle") / "threshold", config, state)

    return write


EVALUATOR: dict[str, Any] = {
    "network": "$@network_def.to(@device)",
    "dataset": {"_target_": "CacheDataset", "data": "$[{'image': i} for i in glob.glob('*.nii')]"},
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 4, "shuffle": True, "num_workers": 4},
    "handlers": [
        {"_target_": "CheckpointLoader", "load_path": "no/such.pt", "load_dict": {"model": "@network"}},
        {"_target_": "StatsHandler", "iteration_log": False},
    ],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
        "key_val_metric": {"acc": {"_target_": "ignite.metrics.Accuracy"}},
        "amp": True,
        "decollate": True,  # more than its parts: it must run itself
    },
    "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$monai.utils.set_determinism(seed=123)"],
    "run": ["$@evaluator.run()"],
}


@pytest.fixture
def load_bundle(
    monai: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """``load_bundle(config, state)``: the loaded ``Bundle``, in this process. ``card`` is added to the card's text,
    ``about`` is its metadata; with ``evaluator`` it is run by an evaluator of its own."""
    from overread.infer.bundle import Bundle

    del monai
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(
        config: dict[str, Any],
        state: dict[str, Any],
        *,
        card: str = "",
        about: dict[str, Any] | None = None,
        evaluator: bool = False,
    ) -> Any:
        for name in [n for n in sys.modules if n.split(".")[0] == "scripts"]:
            monkeypatch.delitem(sys.modules, name)
        folder = tmp_path_factory.mktemp("bundle") / "made"
        whole = {"imports": ["$import glob", "$import scripts"], **config, **(EVALUATOR if evaluator else {})}
        _write(folder, whole, state, card)
        if about is not None:
            (folder / "configs" / "metadata.json").write_text(json.dumps(about))
            write_lock(folder, "2026-01-01T00:00:00+00:00", "the tests")
        return Bundle(read_card(folder), "cpu")

    return load


@pytest.fixture(scope="session")
def card(write_bundle: Callable[..., Path]) -> Card:
    return read_card(write_bundle())


_worker: list[WorkerProcess] = []


@pytest.fixture
def worker(card: Card) -> Iterator[WorkerProcess]:
    """A process with the model; the same one for all tests that leave it alive."""
    if _worker and not _worker[0].alive:
        _worker.pop().kill()
    if not _worker:
        _worker.append(WorkerProcess(card, "cpu", 1))
        _worker[0].wait_ready()
    yield _worker[0]
    _worker[0].card = card


@pytest.fixture(scope="session", autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    for each in _worker:
        each.kill()


AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
_a = np.radians(25)
DIRECTIONS = {
    "axial": AXIAL,
    "flipped": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "feet first": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    "oblique": ((float(np.cos(_a)), float(np.sin(_a)), 0.0), (-float(np.sin(_a)), float(np.cos(_a)), 0.0)),
}


@pytest.fixture(scope="session")
def volume(ct_headers: Callable[..., list[Instance]]) -> Callable[..., Volume]:
    """``volume("oblique", deed=2001)``: noise around 50 with a bright block in one corner; ``deed`` is for Mischief."""
    from overread.domain.geometry import stack

    def make(direction: str = "axial", *, deed: int = 0, shape: tuple[int, int, int] = (11, 14, 9)) -> Volume:
        row, column = DIRECTIONS[direction]
        made: Stack = stack(ct_headers(shape[0], row=row, column=column, rows=shape[1], columns=shape[2]))
        voxels = np.random.default_rng(3).integers(0, 101, shape).astype(np.int16)
        voxels[voxels == THRESHOLD] = 0
        voxels[:3, :4, :2] = 100
        if deed:
            voxels[0, 0, 0] = deed
        return Volume(voxels, made, ())

    return make


def with_timeout(card: Card, seconds: float) -> Card:
    return replace(card, runtime=replace(card.runtime, timeout_s=seconds))
