"""The smallest model of each engine. All but nnU-Net's, which is random, mark what is brighter than 50."""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overread.domain.card import Card, read_card
from overread.domain.lock import write_lock

THRESHOLD = 50.0
HEAD = """
name = "{engine}"
version = "1"
title = "{engine}"
manufacturer = "overread"
engine = "{engine}"
[accepts]
modality = "CT"
[runtime]
timeout_s = 60
[[labels]]
value = 1
name = "Bright"
type = ["39607008", "SCT", "Lung"]
{labels}
"""
SECOND = """
[[labels]]
value = 2
name = "Brighter"
type = ["27925004", "SCT", "Nodule"]
"""
PIPELINE = """
[[preprocess]]
name = "Orientation"
axcodes = "RAS"
[[preprocess]]
name = "ScaleIntensityRange"
a_min = -1000
a_max = 1000
b_min = -1.0
b_max = 1.0
"""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_card(folder: Path, engine: str, body: str, *, weights: str = "", labels: str = "") -> Card:
    """A card for ``weights`` in ``folder``; ``body`` are its further tables."""
    head = HEAD.format(engine=engine, labels=labels)
    if weights:
        line = f'weights = "{weights}"\nweights_sha256 = "{digest(folder / weights)}"\n'
        head = head.replace("[accepts]", line + "[accepts]", 1)
    top, tables = body.split("\n[", 1) if "\n[" in body else (body, "")
    head = head.replace("[accepts]", top + "\n[accepts]", 1)
    (folder / "card.toml").write_text(head + ("\n[" + tables if tables else ""))
    return read_card(folder)


def threshold_net(bias: float = THRESHOLD / 1000) -> Any:
    """Two channels: nothing, and brighter than ``bias`` (after scaling by 1/1000)."""
    import torch

    net = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():
        net.weight[:] = torch.tensor([0.0, 100.0]).reshape(2, 1, 1, 1, 1)
        net.bias[:] = torch.tensor([0.0, -100.0 * bias])
    return net.eval()


def torchscript(folder: Path) -> Card:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(threshold_net(), torch.zeros(1, 1, 4, 4, 4)), folder / "net.ts")
    return write_card(folder, "torchscript", PIPELINE, weights="net.ts")


def exported(folder: Path) -> Card:
    import torch

    sizes = {n: torch.export.Dim.DYNAMIC for n in range(2, 5)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(threshold_net(), (torch.zeros(1, 1, 6, 7, 8),), dynamic_shapes=(sizes,))
        torch.export.save(program, folder / "net.pt2")
    return write_card(folder, "torch-export", PIPELINE, weights="net.pt2")


def onnx_net(path: Path, *, threshold: float = THRESHOLD, channels: int = 1, axes: int = 3) -> Path:
    """The same as ONNX, of ``axes`` spatial dimensions; of several channels the last counts."""
    pytest.importorskip("onnx", reason="onnx is not installed (pip install onnx)")
    from onnx import TensorProto, checker, helper, numpy_helper

    weight = np.zeros((2, channels, *[1] * axes), np.float32)
    weight[1, -1] = 100.0
    bias = np.array([0.0, -100.0 * threshold / 1000], np.float32)
    sizes = [f"s{n}" for n in range(axes)]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[1] * axes)],
        "threshold",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, *sizes])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, *sizes])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def onnx(folder: Path) -> Card:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install 'overread[onnx]')")
    onnx_net(folder / "net.onnx")
    return write_card(folder, "onnx", PIPELINE, weights="net.onnx")


def stages(folder: Path) -> Card:
    """Bright, and within it, two voxels wider, what is brighter than 200."""
    onnx_net(folder / "first.onnx")
    onnx_net(folder / "second.onnx", threshold=200.0)
    body = ""
    for name, within in (("first", ""), ("second", 'within = "Bright"\nmargin_mm = 4.0')):
        sha = digest(folder / f"{name}.onnx")
        label, value = ("Bright", 1) if name == "first" else ("Brighter", 2)
        body += f"""
[[stages]]
name = "{name}"
engine = "onnx"
weights = "{name}.onnx"
weights_sha256 = "{sha}"
labels = ["{label}"]
{within}
{PIPELINE.replace("[[preprocess]]", "[[stages.preprocess]]")}
[stages.postprocess]
channels = [0, {value}]
"""
    return write_card(folder, "stages", body, labels=SECOND)


BUNDLE: dict[str, Any] = {
    "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1},
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -1000, "a_max": 1000}
            | {"b_min": -1, "b_max": 1},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "sw_batch_size": 2, "overlap": 0.25},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
}


def bundle(folder: Path) -> Card:
    import torch

    (folder / "configs").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(BUNDLE))
    torch.save(threshold_net().state_dict(), folder / "model.pt")
    card = write_card(folder, "monai-bundle", "", weights="model.pt")
    write_lock(folder, "2026-01-01T00:00:00+00:00", "the tests")
    return card


PROGRAM = '''
"""Marks what is brighter than 50, as a foreign program would: pydicom in, NIfTI out."""
import sys
from pathlib import Path
import nibabel, numpy, pydicom

slices = sorted((pydicom.dcmread(p) for p in Path(sys.argv[1]).rglob("*.dcm")), key=lambda d: d.ImagePositionPatient[2])
voxels = numpy.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in slices])
first, last = slices[0], slices[-1]
affine = numpy.eye(4)
affine[:3, 0] = numpy.array(first.ImageOrientationPatient[:3]) * first.PixelSpacing[1]
affine[:3, 1] = numpy.array(first.ImageOrientationPatient[3:]) * first.PixelSpacing[0]
affine[:3, 2] = (numpy.array(last.ImagePositionPatient) - first.ImagePositionPatient) / (len(slices) - 1)
affine[:3, 3] = first.ImagePositionPatient
mask = (voxels > 50).astype("uint8").transpose(2, 1, 0)
nibabel.save(nibabel.Nifti1Image(mask, numpy.diag([-1, -1, 1, 1]) @ affine), str(Path(sys.argv[2]) / "mask.nii.gz"))
'''


def external(folder: Path) -> Card:
    (folder / "program.py").write_text(PROGRAM)
    command = json.dumps([sys.executable, "{model}/program.py", "{input}", "{output}"])
    return write_card(folder, "external", f"\n[external]\ncommand = {command}\nnetwork = true\n")


FEATURES = ("volume", "longest_diameter", "firstorder.mean")


def examples() -> tuple[Any, Any]:
    """Large bright regions are Bright, small dim ones Brighter, whatever that means."""
    rng = np.random.default_rng(1)
    one = rng.normal([3.0, 20.0, 400.0], [0.5, 3.0, 50.0], (40, 3))
    other = rng.normal([0.2, 5.0, 60.0], [0.05, 1.0, 20.0], (40, 3))
    return np.vstack([one, other]).astype(np.float32), np.array([1] * 40 + [2] * 40)


def sklearn(folder: Path) -> Card:
    for module in ("sklearn", "skops", "mirp"):
        pytest.importorskip(module, reason=f"{module} is not installed (pip install 'overread[sklearn,radiomics]')")
    from sklearn.ensemble import RandomForestClassifier
    from skops.io import dump

    dump(RandomForestClassifier(8, random_state=0).fit(*examples()), folder / "forest.skops")
    body = f"features = {json.dumps(FEATURES)}\n" + 'task = "classification"\n'
    return write_card(folder, "sklearn", body, weights="forest.skops", labels=SECOND)


PLANS: dict[str, Any] = {
    "dataset_name": "Dataset001_Tiny",
    "plans_name": "nnUNetPlans",
    "original_median_spacing_after_transp": [6.0, 12.0, 14.0],
    "original_median_shape_after_transp": [12, 20, 16],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {"max": 500.0, "mean": 20.0, "median": 20.0, "min": -1000.0, "percentile_00_5": -900.0}
        | {"percentile_99_5": 400.0, "std": 200.0}
    },
    "configurations": {
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [12, 24, 20],
            "median_image_size_in_voxels": [12.0, 20.0, 16.0],
            "spacing": [6.0, 12.0, 14.0],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {
                    "n_stages": 2,
                    "features_per_stage": [4, 8],
                    "conv_op": "torch.nn.modules.conv.Conv3d",
                    "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
                    "strides": [[1, 1, 1], [2, 2, 2]],
                    "n_conv_per_stage": [1, 1],
                    "n_conv_per_stage_decoder": [1],
                    "conv_bias": True,
                    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                    "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                    "dropout_op": None,
                    "dropout_op_kwargs": None,
                    "nonlin": "torch.nn.LeakyReLU",
                    "nonlin_kwargs": {"inplace": True},
                },
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
            "batch_dice": False,
        }
    },
}
DATASET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "Bright": 1}, "numTraining": 1}


def nnunet(folder: Path) -> Card:
    pytest.importorskip("nnunetv2", reason="nnU-Net is not installed (pip install 'overread[nnunet]')")
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network = PLANS["configurations"]["3d_fullres"]["architecture"]
    torch.manual_seed(0)
    names, kwargs, imports = (network[k] for k in ("network_class_name", "arch_kwargs", "_kw_requires_import"))
    net = get_network_from_plans(names, kwargs, imports, 1, 2, deep_supervision=False)
    checkpoint = {
        "network_weights": net.state_dict(),
        "init_args": {"configuration": "3d_fullres", "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        "_best_ema": np.float64(0.5),
        "logging": {"mean_fg_dice": [np.float32(0.5)]},
    }
    (folder / "fold_0").mkdir()
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(PLANS))
    (folder / "dataset.json").write_text(json.dumps(DATASET))
    return write_card(folder, "nnunet", 'orientation = "RAS"\n', weights="fold_0/checkpoint_final.pth")


MAKE: dict[str, Callable[[Path], Card]] = {
    "monai-bundle": bundle,
    "torchscript": torchscript,
    "torch-export": exported,
    "onnx": onnx,
    "nnunet": nnunet,
    "sklearn": sklearn,
    "external": external,
    "stages": stages,
}
