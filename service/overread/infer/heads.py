"""What a network's head says, told apart by the card's task: labels, boxes, classes or a derived image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Box, Likelihood, Reading
from overread.infer.engines import Grid
from overread.infer.memory import ras
from overread.infer.outcome import Outcome
from overread.infer.place import CLOSE, apart, on_grid

NOISE = 0.01
SUM_TOLERANCE = 0.02
BACKGROUND = frozenset({"background", "bg", "back", "none", "everything else", "_background_"})


def reading(outcome: Outcome, card: Card, source: Grid) -> Reading:
    """``outcome`` on the grid of ``source``; raises CardError when it is not what the card's task says."""
    head: Callable[[Outcome, Card, Grid], Reading] = HEADS[card.task]
    return head(outcome, card, source)


def first_value(card: Card, channels: int) -> int:
    """The label value of the network's channel 0: 0 where that is background, else 1.

    As the bundle's ``channel_def`` says; without one the card must name all channels but a background. Raises CardError
    when neither tells.
    """
    named = channel_def(card.folder)
    if "0" in named:
        return 0 if named["0"].strip().lower() in BACKGROUND else 1
    highest = max((label.value for label in card.labels), default=0)
    if highest in (channels - 1, channels):
        return highest - channels + 1
    raise CardError(
        f"the output has {channels} channels, the card's labels end at {highest} and the bundle's metadata has no "
        "channel_def: add it to configs/metadata.json, or name every channel in the card"
    )


def channel_def(folder: Path) -> dict[str, str]:
    """What the bundle's metadata says of its output channels; empty when it says nothing."""
    try:
        metadata = json.loads((folder / "configs" / "metadata.json").read_text("utf-8"))
        outputs = metadata["network_data_format"]["outputs"]
        named = outputs.get("pred", next(iter(outputs.values()), {})).get("channel_def") or {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}
    return {str(key): str(value) for key, value in named.items()} if isinstance(named, dict) else {}


def _segmentation(outcome: Outcome, card: Card, source: Grid) -> Reading:
    given = _tensor(outcome, "a segmentation")
    placed = _placed(_decided(given, card), outcome, source, nearest=True)
    likely = _probabilities(given, outcome, card, source) if card.probabilities else {}
    if placed.shape[0] == 1:
        return Reading(label_map=_label_map(placed[0]), probabilities=likely)
    first = first_value(card, placed.shape[0])
    masks = {n + first: _back(placed[n] > 0) for n in range(placed.shape[0]) if n + first > 0}
    return Reading(masks=masks, probabilities=likely)


def _probabilities(given: torch.Tensor, outcome: Outcome, card: Card, source: Grid) -> dict[int, NDArray[np.float16]]:
    """By label's value, where the bundle's output still has them: what is decided already has none."""
    if bool((given == given.round()).all()):
        return {}
    first = 1 if given.shape[0] == 1 else first_value(card, given.shape[0])
    placed = _placed(given, outcome, source, nearest=False)
    named = {label.value for label in card.labels}
    return {n + first: _back(placed[n]).astype(np.float16) for n in range(placed.shape[0]) if n + first in named}


def _decided(found: torch.Tensor, card: Card) -> torch.Tensor:
    """Labels of what may still be probabilities: (1, x, y, z) whole numbers, or (channels, x, y, z) of 0 and 1."""
    if not bool(torch.isfinite(found).all()):
        raise CardError("the bundle's output has values that are no numbers")
    if found.shape[0] == 1:
        if bool((found - found.round()).abs().max() <= NOISE):
            return found.round()
        if float(found.min()) >= -NOISE and float(found.max()) <= 1 + NOISE and len(card.labels) == 1:
            return (found > 0.5).float()
        raise CardError("the bundle's output is no label map: it has values between the labels")
    low, high = float(found.min()), float(found.max())
    if low < -NOISE or high > 1 + NOISE:
        raise CardError(
            f"the bundle's output has {found.shape[0]} channels of {low:.3g} to {high:.3g}, neither masks nor "
            "probabilities; its postprocessing must end in a softmax or sigmoid (Activationsd) or in AsDiscreted"
        )
    total = found.sum(dim=0)
    if bool((total - 1).abs().max() <= SUM_TOLERANCE) and first_value(card, found.shape[0]) == 0:
        return found.max(dim=0)[1][None].float()
    return (found > 0.5).float()


def _label_map(labels: torch.Tensor) -> Any:
    low, high = float(labels.min()), float(labels.max())
    if low < 0 or high > 65535:
        raise CardError("the bundle's output has values outside 0 to 65535; a label map has none")
    kind = np.uint8 if high < 256 else np.uint16
    return _back(labels).astype(kind)


def _detection(outcome: Outcome, card: Card, source: Grid) -> Reading:
    del card
    table = outcome.prediction
    if not isinstance(table, dict):
        raise CardError(f"the bundle's output is {_kind(table)}, a detection has boxes, labels and scores")
    boxes, labels, scores = (_column(table, part) for part in ("box", "label", "score"))
    if boxes is None or scores is None:
        raise CardError(f"the bundle's output has {', '.join(map(str, table))}: no boxes or no scores")
    corners = boxes.reshape(-1, boxes.shape[-1] if boxes.ndim == 2 else 6).astype(np.float64)
    if corners.shape[1] == 4:  # of a picture: one slice thick
        corners = np.insert(corners, [2, 4], 0.0, axis=1)
    classes = np.zeros(len(corners)) if labels is None else labels.reshape(-1)
    matrix = np.linalg.inv(ras(source.affine)) @ _affine(outcome.image)
    found = [
        Box(int(label) + 1, float(score), *_corners(corner, matrix))
        for corner, label, score in zip(corners, classes, scores.reshape(-1), strict=True)
    ]
    return Reading(boxes=tuple(sorted(found, key=lambda b: (-b.score, b.label, b.low))))


def _column(table: dict[Any, Any], part: str) -> NDArray[Any] | None:
    names = [key for key in table if part in str(key).lower() and (part != "label" or "score" not in str(key).lower())]
    return None if not names else np.asarray(torch.as_tensor(table[names[0]]).detach().cpu().float())


def _corners(box: NDArray[np.float64], matrix: NDArray[np.float64]) -> tuple[Any, Any]:
    """A box (x1, y1, z1, x2, y2, z2) on the network's grid as low and high (slice, row, column) on the source's."""
    ends = np.array([box[:3], box[3:]])
    all_corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2], 1.0] for i, j, k in np.ndindex(2, 2, 2)])
    there = (all_corners @ matrix.T)[:, :3]
    return tuple(map(float, there.min(axis=0)[::-1])), tuple(map(float, there.max(axis=0)[::-1]))


def _classification(outcome: Outcome, card: Card, source: Grid) -> Reading:
    del source
    scores = torch.as_tensor(outcome.prediction).detach().cpu().float().reshape(-1)
    low, high = float(scores.min()), float(scores.max())
    if not low >= -NOISE or not high <= 1 + NOISE:
        raise CardError(
            f"the bundle's output has values of {low:.3g} to {high:.3g}, no probabilities; its postprocessing must end "
            "in a softmax or sigmoid (Activationsd)"
        )
    exclusive = len(scores) > 1 and abs(float(scores.sum()) - 1) <= SUM_TOLERANCE
    named = channel_def(card.folder)
    shift = first_value(card, len(scores)) if named and named.get("0", "").strip().lower() in BACKGROUND else 1
    chosen = {int(scores.argmax())} if exclusive else set((scores > 0.5).nonzero().reshape(-1).tolist())
    return Reading(
        classes=tuple(
            Likelihood(n + shift, min(1.0, max(0.0, float(score))), n in chosen)
            for n, score in enumerate(scores)
            if n + shift > 0
        )
    )


def _image(outcome: Outcome, card: Card, source: Grid) -> Reading:
    del card
    found = _tensor(outcome, "a derived image")
    if found.shape[0] != 1:
        raise CardError(f"the bundle's output has {found.shape[0]} channels; a derived image has one")
    if not bool(torch.isfinite(found).all()):
        raise CardError("the bundle's output has values that are no numbers")
    return Reading(image=_back(_placed(found, outcome, source, nearest=False)[0]).astype(np.float32))


def _tensor(outcome: Outcome, what: str) -> torch.Tensor:
    """The prediction as (channels, x, y, z) float32 on the CPU, without its metadata."""
    found = outcome.prediction
    if found is None:
        raise CardError("the bundle gives nothing under the key 'pred'")
    if not isinstance(found, torch.Tensor | np.ndarray):
        raise CardError(f"the bundle's output is {_kind(found)}, no {what.partition(' ')[2]} on a grid")
    tensor = torch.as_tensor(found).detach()
    tensor = (tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor).cpu().float()
    if tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim == 5 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 4:
        raise CardError(f"the bundle's output has shape {tuple(tensor.shape)}, no {what.partition(' ')[2]} on a grid")
    return tensor


def _placed(found: torch.Tensor, outcome: Outcome, source: Grid, *, nearest: bool) -> torch.Tensor:
    """``found`` on the source's grid; raises CardError when nothing reliable tells where it lies."""
    shape, here = source.voxels.shape[::-1], tuple(found.shape[1:])
    seen = tuple(outcome.image.shape[1:]) if isinstance(outcome.image, MetaTensor) else shape
    if here not in (shape, seen):
        raise CardError(
            f"the bundle's output has shape {here}, the source {shape} and the network's image {seen}; its "
            "postprocessing must bring it back to the source (Invertd)"
        )
    affine = next((_affine(x) for x in (outcome.prediction, outcome.image) if _tells(x, here)), None)
    if outcome.inverted and here == shape and affine is not None and apart(affine, ras(source.affine), shape) > CLOSE:
        raise CardError(
            "after Invertd the bundle's output does not lie on its source (Spacingd with recompute_affine does that), "
            "so overread cannot tell where its voxels are"
        )
    placed: torch.Tensor = on_grid(found, affine, shape, ras(source.affine), nearest=nearest)
    return placed


def _tells(value: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, MetaTensor) and tuple(value.shape[-3:]) == shape and tuple(value.affine.shape) == (4, 4)


def _affine(image: Any) -> NDArray[np.float64]:
    if not isinstance(image, MetaTensor):
        raise CardError("the bundle does not keep its image, so nothing tells where its boxes lie")
    return np.asarray(image.affine.cpu(), np.float64)


def _back(volume: torch.Tensor) -> NDArray[Any]:
    """(x, y, z) as (slices, rows, columns)."""
    return np.ascontiguousarray(volume.numpy().transpose(2, 1, 0))


def _kind(value: Any) -> str:
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"


HEADS: dict[str, Callable[[Outcome, Card, Grid], Reading]] = {
    "segmentation": _segmentation,
    "detection": _detection,
    "classification": _classification,
    "image": _image,
}
