"""A MONAI bundle, run in memory: its own preprocessing, network, inferer and postprocessing.

Only reading from and writing to files is exchanged: a reader for ``mem:`` names on the bundle's own LoadImage, and the
savers left out of its postprocessing.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Reading
from overread.infer.engines import Grid
from overread.infer.memory import NAME, MemoryReader
from overread.infer.windows import count_windows

CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
SAVERS = frozenset({"SaveImage", "SaveImaged", "SaveClassificationd"})


class Bundle:
    """One loaded bundle on one device.

    Raises CardError when the bundle lacks a part or its weights are not the ones on the card.
    """

    def __init__(self, card: Card, device: str) -> None:
        folder = card.folder
        sys.path.insert(0, str(folder))
        self._device = torch.device(device)
        parser = _parser(folder, self._device)
        self._key = "image"
        self._reader = MemoryReader()
        self._preprocessing = _part(parser, "preprocessing", folder)
        self._inferer = _part(parser, "inferer", folder)
        self._network = _network(parser, card, self._device)
        self._volumetric = any(p.ndim == 5 for p in self._network.parameters())
        if self._volumetric:
            # The same numbers, about half the time on a CPU.
            self._network = self._network.to(memory_format=torch.channels_last_3d)
        self._postprocessing = _part(parser, "postprocessing", folder)
        _register(self._preprocessing, self._reader)

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """Read one volume; raises CardError when the bundle's output is no label map on its grid."""
        voxels, affine = volumes[0].voxels, volumes[0].affine
        self._reader.hold(voxels, affine)
        with torch.inference_mode():
            item = self._preprocessing({self._key: NAME})
            image = item[self._key]
            predictor = self._counting(image, progress)
            logits = self._inferer(torch.as_tensor(image)[None].to(self._device), predictor)
            item["pred"] = MetaTensor(logits[0].float(), meta=image.meta, applied_operations=image.applied_operations)
            del logits
            item = self._postprocessing(item)
        self._reader.release()
        progress(1.0)
        return Reading(label_map=_label_map(item["pred"], voxels.shape))

    def _counting(self, image: Any, progress: Callable[[float], None]) -> Callable[..., Any]:
        expected, done = count_windows(self._inferer, tuple(image.shape[1:])), 0

        def predict(window: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if self._volumetric and window.ndim == 5:
                window = window.contiguous(memory_format=torch.channels_last_3d)
            answer = self._network(window, *args, **kwargs)
            done += int(window.shape[0])
            progress(min(0.95, 0.95 * done / expected))
            return answer

        return predict


def _parser(folder: Path, device: torch.device) -> ConfigParser:
    config = next((folder / "configs" / c for c in CONFIGS if (folder / "configs" / c).is_file()), None)
    if config is None:
        raise CardError(f"the bundle has none of configs/{{{', '.join(CONFIGS)}}}")
    parser = ConfigParser()
    parser.read_config(str(config))
    metadata = folder / "configs" / "metadata.json"
    if metadata.is_file():
        parser.read_meta(str(metadata))
    parser["bundle_root"] = str(folder)
    parser["device"] = device
    _disable_savers(parser)
    return parser


def _part(parser: ConfigParser, name: str, folder: Path) -> Any:
    if parser.get(name) is None:
        raise CardError(f"the bundle's inference config has no {name!r} section ({folder.name})")
    try:
        return parser.get_parsed_content(name)
    except Exception as error:
        # The edge to the bundle's own code and expressions.
        raise CardError(f"the bundle's {name!r} cannot be built: {type(error).__name__}: {error}") from error


def _network(parser: ConfigParser, card: Card, device: torch.device) -> torch.nn.Module:
    name = "network_def" if parser.get("network_def") is not None else "network"
    network: torch.nn.Module = _part(parser, name, card.folder)
    data = (card.folder / card.weights).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != card.weights_sha256:
        raise CardError(
            f"the weights {card.weights} have SHA-256 {found[:12]}…, the card says {card.weights_sha256[:12]}…; "
            "put the right file back, or correct weights_sha256 if the change was meant"
        )
    state = torch.load(BytesIO(data), map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(state.get("model", state) if isinstance(state, dict) else state)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CardError(f"the weights {card.weights} do not fit the bundle's network: {first}") from error
    return network.to(device).eval()


def _register(preprocessing: Any, reader: MemoryReader) -> None:
    loaders = 0
    for transform in getattr(preprocessing, "transforms", ()):
        loader = transform._loader if isinstance(transform, LoadImaged) else transform
        if isinstance(loader, LoadImage):
            loader.register(reader)
            loaders += 1
    if not loaders:
        raise CardError("the bundle's preprocessing has no LoadImage or LoadImaged to read the volume with")


def _disable_savers(parser: ConfigParser) -> None:
    # Results leave as DICOM, and a saver wants a file format's library that nothing else here needs.
    section = parser.get("postprocessing")
    for transform in section.get("transforms", ()) if isinstance(section, dict) else ():
        if isinstance(transform, dict) and str(transform.get("_target_", "")).rsplit(".", 1)[-1] in SAVERS:
            transform["_disabled_"] = True


def _label_map(prediction: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    mask = torch.as_tensor(prediction).detach().cpu()
    expected = (1, *shape[::-1])
    if tuple(mask.shape) != expected:
        raise CardError(
            f"the bundle's output has shape {tuple(mask.shape)}, a label map on the source grid has {expected}; its "
            "postprocessing must invert the spatial transforms and take the argmax"
        )
    rounded = mask[0].round()
    if not bool(((rounded >= 0) & (rounded <= 255)).all()):
        raise CardError("the bundle's output has values outside 0 to 255; a label map has none")
    rounded = rounded.to(torch.uint8).numpy()
    return np.ascontiguousarray(rounded.transpose(2, 1, 0))
