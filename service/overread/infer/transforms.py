"""Which transforms a card may name: MONAI's and scikit-image's that take numbers and make numbers.

A list rather than a rule: some of MONAI's transforms call what they are given, read files or write them.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type

from overread.domain.errors import CardError
from overread.domain.pipeline import Step

SPATIAL = """
    Orientation Spacing Resize Zoom Flip Rotate90 SpatialPad BorderPad DivisiblePad ResizeWithPadOrCrop SpatialCrop
    CenterSpatialCrop CenterScaleCrop CropForeground
"""
INTENSITY = """
    ScaleIntensity ScaleIntensityRange ScaleIntensityRangePercentiles NormalizeIntensity
    ThresholdIntensity ShiftIntensity StdShiftIntensity AdjustContrast ClipIntensityPercentiles GaussianSmooth
    GaussianSharpen MedianSmooth SavitzkyGolaySmooth HistogramNormalize SobelGradients ImageFilter
    ForegroundMask GibbsNoise CastToType EnsureType RepeatChannel
"""
SKIMAGE = {
    "skimage.filters": "gaussian median sobel scharr prewitt farid roberts laplace unsharp_mask butterworth "
    "difference_of_gaussians frangi sato meijering",
    "skimage.restoration": "denoise_bilateral denoise_wavelet denoise_tv_chambolle denoise_nl_means",
    "skimage.exposure": "equalize_hist equalize_adapthist rescale_intensity adjust_gamma adjust_log adjust_sigmoid",
}
PLANAR = {"denoise_bilateral", "roberts"}  # know two dimensions only

MONAI_NAMES = frozenset(f"{SPATIAL} {INTENSITY}".split())
FUNCTIONS = frozenset(f"{module}.{name}" for module, names in SKIMAGE.items() for name in names.split())


class Filter(MapTransform):  # type: ignore[misc]
    """A function of scikit-image over each channel, in space or, with ``per_slice``, slice by slice."""

    def __init__(self, keys: Sequence[str], function: Callable[..., Any], per_slice: bool, args: Mapping[str, Any]):
        super().__init__(keys)
        self._function, self._per_slice, self._args = function, per_slice, dict(args)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Filter the images (channels, x, y, z) under the keys."""
        found = dict(data)
        for key in self.key_iterator(found):
            image = found[key]
            channels = np.asarray(torch.as_tensor(image), np.float32)
            made = np.stack([self._channel(channel) for channel in channels]).astype(np.float32)
            found[key] = convert_to_dst_type(made, image)[0]
        return found

    def _channel(self, channel: Any) -> Any:
        if not self._per_slice or channel.ndim == 2:
            return self._function(channel, **self._args)
        planes = [self._function(channel[..., k], **self._args) for k in range(channel.shape[-1])]
        return np.stack(planes, axis=-1)


def build(step: Step, keys: Sequence[str]) -> Any:
    """The dictionary transform of a card's step for ``keys``; raises CardError, naming the nearest known one."""
    _require_plain(step.args, step.name)
    known = set(keys)
    for name in step.inputs:
        if name not in known:
            raise CardError(f"the step {step.name} is for the input {name!r}; the card's inputs are {', '.join(keys)}")
    chosen = list(step.inputs or keys)
    try:
        if step.name in FUNCTIONS:
            return _filter(step, chosen)
        return _monai(step, chosen)
    except (TypeError, ValueError, ImportError) as error:
        raise CardError(f"the step {step.name} does not take these arguments: {error}") from error


def _monai(step: Step, keys: list[str]) -> Any:
    name = step.name if step.name in MONAI_NAMES else step.name.removesuffix("d")
    if name not in MONAI_NAMES:
        near = difflib.get_close_matches(step.name, [*MONAI_NAMES, *FUNCTIONS], 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(MONAI_NAMES))}"
        raise CardError(f"there is no preprocessing step {step.name!r}{hint}")
    kind = getattr(import_module("monai.transforms"), f"{name}d")
    args = dict(step.args)
    if name == "CropForeground":
        args.setdefault("source_key", keys[0])
        args.setdefault("allow_smaller", True)
    if name == "Orientation" and "labels" in inspect.signature(kind).parameters:
        args.setdefault("labels", (("L", "R"), ("P", "A"), ("I", "S")))
    return kind(keys=keys, **args)


def _filter(step: Step, keys: list[str]) -> Filter:
    module, _, name = step.name.rpartition(".")
    args = dict(step.args)
    per_slice = bool(args.pop("per_slice", name in PLANAR))
    function = getattr(import_module(module), name)
    inspect.signature(function).bind(np.zeros((2, 2)), **args)
    return Filter(keys, function, per_slice, args)


def _require_plain(value: Any, name: str) -> None:
    """MONAI's bundles evaluate such strings; a card's step is data and nothing else."""
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        raise CardError(f"the step {name} has the argument {value!r}; a card holds no expressions")
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for inner in values:
        _require_plain(inner, name)
