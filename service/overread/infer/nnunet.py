"""nnU-Net v2 model folders by its own predictor, in memory; the optional extra ``overread[nnunet]``.

The folder is what nnU-Net's training leaves: plans.json, dataset.json and fold_N/checkpoint_final.pth. Its own loader
unpickles whatever is in a checkpoint; here the checkpoint may hold tensors and plain values only, and plans may name
networks and layers of the two libraries that they come from and nothing else.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Reading
from overread.infer.engines import LPS_TO_RAS, Grid
from overread.infer.trust import verified

NETWORKS = "dynamic_network_architectures."
LAYERS = "torch.nn."


class NnUnet:
    """One configuration with one or several folds.

    ``weights`` is the first fold's checkpoint, ``further_weights`` the others'. ``orientation`` says what x, y and z
    increased to in the images that it was trained on, since nnU-Net knows spacings but no directions.
    """

    def __init__(self, card: Card, device: str) -> None:
        if len(card.orientation) != 3:
            raise CardError('nnU-Net knows no directions; say in the card how it was trained: orientation = "RAS"')
        self._target = axcodes2ornt(tuple(card.orientation.upper()))
        plans, dataset = _json(card, "plans.json"), _json(card, "dataset.json")
        _require_known(plans)
        members = [(card.weights, card.weights_sha256), *card.further_weights.items()]
        folds = [_checkpoint(replace(card, weights=path, weights_sha256=sha)) for path, sha in members]
        self._channels = len(dataset.get("channel_names", dataset.get("modality", {})))
        with redirect_stdout(io.StringIO()):
            self._predictor = _predictor(plans, dataset, folds, torch.device(device))

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """One volume for each channel of the dataset; the label map on their grid."""
        if len(volumes) != self._channels:
            raise CardError(f"the model reads {self._channels} series, the card gives {len(volumes)}")
        affine = LPS_TO_RAS @ volumes[0].affine[:, [2, 1, 0, 3]]
        own = io_orientation(affine)
        there, back = ornt_transform(own, self._target), ornt_transform(self._target, own)
        images = [apply_orientation(v.voxels.transpose(2, 1, 0).astype(np.float32), there) for v in volumes]
        spacing = np.linalg.norm(affine[:3, :3], axis=0)[np.argsort(there[:, 0])]
        stacked = np.ascontiguousarray(np.stack([image.transpose(2, 1, 0) for image in images]))
        progress(0.05)
        with redirect_stdout(io.StringIO()):
            found = self._predictor.predict_single_npy_array(stacked, {"spacing": [float(s) for s in spacing[::-1]]})
        label_map = apply_orientation(np.asarray(found).transpose(2, 1, 0), back).transpose(2, 1, 0)
        progress(1.0)
        return Reading(label_map=_bytes(label_map))


def _bytes(label_map: NDArray[Any]) -> NDArray[np.uint8]:
    if label_map.min() < 0 or label_map.max() > 255:
        raise CardError("the model's labels are not between 0 and 255")
    return np.ascontiguousarray(label_map, np.uint8)


def _json(card: Card, name: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads((card.folder / name).read_text("utf-8"))
    except OSError as error:
        raise CardError(f"the model's folder has no {name} that can be read: {error.strerror}") from None
    except ValueError as error:
        raise CardError(f"{name}: {error}") from None
    return values


def _require_known(plans: dict[str, Any]) -> None:
    """Plans name classes that nnU-Net then imports."""
    for configuration in plans.get("configurations", {}).values():
        network = configuration.get("architecture", {})
        name = str(network.get("network_class_name", NETWORKS))
        imported = network.get("_kw_requires_import") or ()
        layers = [str(network.get("arch_kwargs", {}).get(key) or LAYERS) for key in imported]
        strangers = [n for n in [name] if not n.startswith(NETWORKS)] + [n for n in layers if not n.startswith(LAYERS)]
        if strangers:
            raise CardError(f"plans.json names {strangers[0]}, which is neither of {NETWORKS}* nor of {LAYERS}*")


def _checkpoint(card: Card) -> dict[str, Any]:
    scalar: Any = np.float64(0).__reduce__()[0]  # how NumPy writes single numbers; it is no public name
    plain: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    plain += [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType, np.dtypes.Int32DType]
    data = verified(card)
    try:
        with torch.serialization.safe_globals(plain):
            loaded: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        # The edge to a reader of foreign files.
        first = str(error).strip().splitlines()[0][:200]
        raise CardError(f"the checkpoint {card.weights} is not read, it may hold more than weights: {first}") from error
    lacking = [key for key in ("network_weights", "init_args", "trainer_name") if key not in loaded]
    if lacking:
        raise CardError(f"the checkpoint {card.weights} is none of nnU-Net v2: it has no {lacking[0]}")
    return loaded


def _predictor(
    plans: dict[str, Any], dataset: dict[str, Any], folds: list[dict[str, Any]], device: torch.device
) -> Any:
    try:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    except ImportError as error:
        raise CardError(f"the engine needs nnU-Net; install it: pip install 'overread[nnunet]' ({error})") from None
    manager = PlansManager(plans)
    configuration = manager.get_configuration(folds[0]["init_args"]["configuration"])
    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        determine_num_input_channels(manager, configuration, dataset),
        manager.get_label_manager(dataset).num_segmentation_heads,
        deep_supervision=False,
    )
    try:
        network.load_state_dict(folds[0]["network_weights"])
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise CardError(f"the weights do not fit the network of plans.json: {first}") from error
    on_device = device.type == "cuda"
    predictor = nnUNetPredictor(device=device, perform_everything_on_device=on_device, allow_tqdm=False)
    weights = [fold["network_weights"] for fold in folds]
    mirroring = folds[0].get("inference_allowed_mirroring_axes")
    predictor.manual_initialization(
        network, manager, configuration, weights, dataset, folds[0]["trainer_name"], mirroring
    )
    return predictor
