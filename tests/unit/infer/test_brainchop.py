"""The public brainchop networks become bundles: the same numbers as published, and the right place in a real head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overread.domain.errors import CardError
from overread.infer.brainchop import convert

pytestmark = pytest.mark.filterwarnings("ignore")


def layer(name: str, channels: int, dilation: int, size: int = 3) -> dict[str, Any]:
    config = {"name": name, "filters": channels, "kernel_size": [size] * 3, "dilation_rate": [dilation] * 3}
    return {"class_name": "Conv3D", "config": {**config, "padding": "same", "activation": "linear"}}


def published(folder: Path, layers: list[dict[str, Any]] | None = None) -> dict[str, np.ndarray]:
    """A tiny MeshNet as TensorFlow.js has it; returns its weights."""
    folder.mkdir()
    rng = np.random.default_rng(2)
    weights = {
        "a/kernel": rng.normal(size=(3, 3, 3, 1, 2)),
        "a/bias": rng.normal(size=2),
        "out/kernel": rng.normal(size=(1, 1, 1, 2, 3)),
        "out/bias": rng.normal(size=3),
    }
    relu = {"class_name": "Activation", "config": {"name": "r", "activation": "relu"}}
    made = layers or [{"class_name": "InputLayer", "config": {}}, layer("a", 2, 2), relu, layer("out", 3, 1, 1)]
    entries = [{"name": k, "shape": list(v.shape), "dtype": "float32"} for k, v in weights.items()]
    (folder / "model.json").write_text(
        json.dumps(
            {
                "modelTopology": {"model_config": {"config": {"layers": made}}},
                "weightsManifest": [{"paths": ["model.bin"], "weights": entries}],
            }
        )
    )
    (folder / "model.bin").write_bytes(b"".join(v.astype("<f4").tobytes() for v in weights.values()))
    return weights


def test_the_weights_are_turned_to_torchs_order(tmp_path: Path) -> None:
    """Against the definition: a sum over taps two voxels apart, channel by channel."""
    import torch

    from overread.infer.meshnet import MeshNet

    weights = published(tmp_path / "net")
    assert convert(tmp_path / "net", tmp_path / "bundle")
    config = json.loads((tmp_path / "bundle/configs/inference.json").read_text())["network_def"]
    network = MeshNet(**{k: v for k, v in config.items() if k != "_target_"})
    network.load_state_dict(torch.load(tmp_path / "bundle/models/model.pt", weights_only=True))
    image = np.random.default_rng(3).normal(size=(9, 10, 11))
    padded = np.pad(image, 2)
    hidden = np.zeros((2, *image.shape))
    for i, j, k in np.ndindex(3, 3, 3):
        part = padded[2 * i : 2 * i + 9, 2 * j : 2 * j + 10, 2 * k : 2 * k + 11]
        hidden += weights["a/kernel"][i, j, k, 0][:, None, None, None] * part
    hidden = np.maximum(hidden + weights["a/bias"][:, None, None, None], 0)
    answer = np.einsum("cxyz,cd->dxyz", hidden, weights["out/kernel"][0, 0, 0])
    answer += weights["out/bias"][:, None, None, None]
    with torch.no_grad():
        found = network(torch.from_numpy(image[None, None].astype(np.float32)))[0].numpy()
    np.testing.assert_allclose(found, answer, atol=1e-4)


def test_what_is_no_brainchop_network_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert not convert(tmp_path / "other", tmp_path / "bundle")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    published(tmp_path / "net", [{"class_name": "Dense", "config": {"name": "d"}}])
    with pytest.raises(CardError, match="net has a Dense layer; overread converts MeshNet"):
        convert(tmp_path / "net", tmp_path / "bundle")


def test_weights_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    published(tmp_path / "net")
    (tmp_path / "net/model.bin").unlink()
    with pytest.raises(CardError, match=r"net lacks its weights model.bin"):
        convert(tmp_path / "net", tmp_path / "bundle")


@pytest.mark.slow
def test_a_real_head_is_read_as_the_reference_has_it(data: Path, tmp_path: Path) -> None:
    """model5_gw_ae on the published sample. The reference was made without leaving out the brightest 0.1 %, as the
    bundle does for real scanners' heads; but for that the labels are the same in every voxel."""
    from nibabel import load

    from overread.adopt import shelf
    from overread.infer.bundle import Bundle
    from overread.infer.engines import Grid

    source = data / "models" / "brainchop"
    if not source.is_dir():
        pytest.skip("no brainchop networks in the test data")
    (tmp_path / "shelf").mkdir()
    staged = shelf.stage(source / "model5_gw_ae", tmp_path / "shelf", tmp_path, name="", convert=convert)
    card = shelf.trust(staged)
    assert [label.name for label in card.labels] == ["White Matter", "Grey Matter"]
    image = load(source / "t1_crop.nii.gz")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(image.affine)[:, [2, 1, 0, 3]]
    voxels = np.asarray(image.dataobj).astype(np.int16).transpose(2, 1, 0)
    truth = np.asarray(load(source / "reference_computed_here/t1_crop_model5_gw_ae_labels.nii.gz").dataobj)
    found = Bundle(card, "cpu").read([Grid(voxels, affine)], lambda _: None).label_map
    assert found is not None
    for value in (1, 2):
        mine, theirs = found == value, truth.transpose(2, 1, 0) == value
        assert 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum()) > 0.96
