"""The public brainchop networks (TensorFlow.js) as MONAI bundles: weights turned to torch's order, conforming as
preprocessing.

They read a T1-weighted head conformed as FreeSurfer does it: 256³ voxels of 1 mm, axes to the left, down and to the
front (LIA), scaled to 0 … 1 without its brightest 0.1 %.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.errors import CardError

SIZE = [256, 256, 256]
BRIGHTEST = 99.9  # percentile: conforming leaves a few bright voxels (vessels, fat) out of the scale
GREY_AND_WHITE = ["background", "White matter", "Gray matter"]
NAMES = {"VentralDC": "Ventral diencephalon"}


@dataclass(frozen=True)
class Layer:
    """One convolution: kernel (width, height, depth, in, out), and what follows it."""

    name: str
    dilation: int
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def convert(source: Path, target: Path) -> bool:
    """Make a bundle of a brainchop folder in ``target``; False when ``source`` is none.

    Raises CardError when it is one with layers that are not MeshNet's.
    """
    topology = _topology(source)
    if topology is None:
        return False
    layers, activation = _layers(source, topology)
    names = _class_names(source, layers[-1].kernel.shape[-1])
    for part in ("configs", "models"):
        (target / part).mkdir(parents=True)
    _write(target / "configs" / "inference.json", _config(layers, activation))
    _write(target / "configs" / "metadata.json", _metadata(source.name, names))
    _save(layers, target / "models" / "model.pt")
    if (source / "LICENSE").is_file():
        shutil.copyfile(source / "LICENSE", target / "LICENSE")
    return True


def _topology(source: Path) -> dict[str, Any] | None:
    try:
        values = json.loads((source / "model.json").read_text("utf-8"))
        topology = values["modelTopology"]
        found = topology.get("model_config", topology)["config"]["layers"]
        return {"layers": found, "manifest": values["weightsManifest"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _layers(source: Path, topology: dict[str, Any]) -> tuple[list[Layer], str]:
    weights = _weights(source, topology["manifest"])
    layers, activations = [], []
    for each in topology["layers"]:
        kind, config = each["class_name"], each["config"]
        if kind == "Conv3D":
            _require_meshnet(config, weights)
            kernel = weights[f"{config['name']}/kernel"]
            dilation = int(config["dilation_rate"][0])
            layers.append(Layer(config["name"], dilation, kernel, weights.get(f"{config['name']}/bias")))
        elif kind == "Activation":
            activations.append(str(config["activation"]))
        elif kind != "InputLayer":
            raise CardError(f"{source.name} has a {kind} layer; overread converts MeshNet (Conv3D and Activation) only")
    if len(set(activations)) != 1 or len(layers) < 2:
        named = ", ".join(sorted(set(activations))) or "none"
        raise CardError(f"{source.name} is no MeshNet: its activations are {named}")
    return layers, activations[0]


def _require_meshnet(config: dict[str, Any], weights: dict[str, NDArray[np.float32]]) -> None:
    name = str(config["name"])
    plain = config.get("padding") == "same" and config.get("activation", "linear") == "linear"
    cubic = len(set(config["kernel_size"])) == 1 and len(set(config["dilation_rate"])) == 1
    if not plain or not cubic or f"{name}/kernel" not in weights:
        raise CardError(f"layer {name} is no plain dilated convolution; overread converts MeshNet only")


def _weights(source: Path, manifest: list[dict[str, Any]]) -> dict[str, NDArray[np.float32]]:
    found: dict[str, NDArray[np.float32]] = {}
    for group in manifest:
        paths = [source / Path(name).name for name in group["paths"]]
        try:
            data = b"".join(path.read_bytes() for path in paths)
        except OSError as error:
            raise CardError(f"{source.name} lacks its weights {Path(str(error.filename)).name}") from None
        offset = 0
        for entry in group["weights"]:
            if entry["dtype"] != "float32" or entry.get("quantization"):
                raise CardError(f"the weights of {source.name} are {entry['dtype']} or quantised; float32 is converted")
            count = int(np.prod(entry["shape"]))
            values = np.frombuffer(data, "<f4", count, offset)
            found[entry["name"]] = values.reshape(entry["shape"]).copy()
            offset += 4 * count
        if offset != len(data):
            raise CardError(f"the weights of {source.name} have {len(data)} bytes, its model.json describes {offset}")
    return found


def _class_names(source: Path, count: int) -> list[str]:
    for path in sorted(source.glob("colormap*.json")):
        try:
            names = json.loads(path.read_text("utf-8"))["labels"]
        except (OSError, ValueError, KeyError):
            continue
        if len(names) == count:
            return ["background", *(NAMES.get(n, str(n).replace("-", " ")) for n in names[1:])]
    return GREY_AND_WHITE if count == len(GREY_AND_WHITE) else ["background", *(f"class {n}" for n in range(1, count))]


def _config(layers: list[Layer], activation: str) -> dict[str, Any]:
    normed = layers[0].bias is None
    network = {
        "_target_": "overread.infer.meshnet.MeshNet",
        "dilations": [layer.dilation for layer in layers[:-1]],
        "width": int(layers[0].kernel.shape[-1]),
        "classes": int(layers[-1].kernel.shape[-1]),
        "activation": activation,
        "norm": normed,
    }
    preprocessing = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "LIA", "labels": None},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear", "dtype": "float32"},
        {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": SIZE},
        {
            "_target_": "ScaleIntensityRangePercentilesd",
            "keys": "image",
            "lower": 0,
            "upper": BRIGHTEST,
            "b_min": 0.0,
            "b_max": 1.0,
            "clip": True,
        },
        {"_target_": "EnsureTyped", "keys": "image"},
    ]
    postprocessing = [
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": True,
        },
    ]
    return {
        "bundle_root": ".",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing},
    }


def _metadata(name: str, classes: list[str]) -> dict[str, Any]:
    grid: dict[str, Any] = {"type": "image", "spatial_shape": SIZE, "dtype": "float32", "is_patch_data": False}
    image = {**grid, "format": "magnitude", "modality": "MR", "num_channels": 1, "channel_def": {"0": "T1"}}
    channels = {str(n): c for n, c in enumerate(classes)}
    pred = {**grid, "format": "segmentation", "num_channels": len(classes), "channel_def": channels}
    return {
        "version": "1.0.0",
        "name": f"brainchop {name}",
        "task": f"Segmentation of T1-weighted heads into {len(classes) - 1} parts",
        "description": "A MeshNet of the brainchop project, converted from TensorFlow.js.",
        "authors": "neuroneural/brainchop",
        "intended_use": "Research and demonstration. Not for clinical use.",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        "accepts": {
            "min_slices": 60,
            "min_length_mm": 120.0,
            "max_slice_spacing_mm": 2.5,
            "body_parts": ["HEAD", "BRAIN"],
        },
    }


def _save(layers: list[Layer], path: Path) -> None:
    """A state dict in the order of ``MeshNet``: torch's kernels are (out, in, x, y, z)."""
    import torch

    step = 3 if layers[0].bias is None else 2
    state = {}
    for n, layer in enumerate(layers):
        state[f"layers.{n * step}.weight"] = torch.from_numpy(layer.kernel.transpose(4, 3, 0, 1, 2).copy())
        if layer.bias is not None:
            state[f"layers.{n * step}.bias"] = torch.from_numpy(layer.bias)
    torch.save(state, path)


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
