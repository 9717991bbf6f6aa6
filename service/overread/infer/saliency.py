"""What a classifier looked at: Grad-CAM (MONAI) or occlusion, back on the source's grid."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.visualize import GradCAM
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.reading import Reading
from overread.infer.engines import Grid
from overread.infer.memory import ras
from overread.infer.outcome import Outcome
from overread.infer.place import on_grid

PARTS = 8  # an occluded box is this part of the image, along each axis


def explained(found: Reading, outcome: Outcome, network: torch.nn.Module, card: Card, source: Grid) -> Reading:
    """``found`` with a map for each class that was chosen, where the card asks for it.

    A map that cannot be made (no such layer, an image smaller than the box) is told in the notes: the answer stands
    without it.
    """
    chosen = [one.label for one in found.classes if one.chosen]
    if not card.saliency or not chosen or not isinstance(outcome.image, MetaTensor):
        return found
    try:
        maps = {label: _placed(_map(label, found, outcome, network, card), outcome, source) for label in chosen}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # The edge to networks of any build, whose layers and shapes only they know.
        return replace(found, notes=(*found.notes, f"{card.saliency} could not be made ({type(error).__name__})"))
    return replace(found, saliency=maps)


def _map(label: int, found: Reading, outcome: Outcome, network: torch.nn.Module, card: Card) -> torch.Tensor:
    """0 … 1, (x, y, z) on the network's grid; 1 is what counted most."""
    device = next(network.parameters()).device
    image = outcome.image.as_tensor()[None].float().to(device).clone()
    flat = image.ndim == 5 and max(p.ndim for p in network.parameters()) == 4
    image = image[..., 0] if flat else image
    with torch.no_grad():
        outputs = network(image).shape[-1]
    index = label if outputs > len(found.classes) else label - 1
    seen = _gradient(network, image, index, card) if card.saliency == "grad-cam" else _occluded(network, image, index)
    return seen[..., None] if flat else seen


def _gradient(network: torch.nn.Module, image: torch.Tensor, index: int, card: Card) -> torch.Tensor:
    """MONAI hooks into a network for good, so it gets a copy; it gives 0 where most counted."""
    if card.saliency_layer not in dict(network.named_modules()):
        raise KeyError(card.saliency_layer)
    with torch.enable_grad():
        seen = GradCAM(copy.deepcopy(network), card.saliency_layer)(x=image.requires_grad_(), class_idx=index)
    return 1.0 - torch.as_tensor(seen)[0, 0].detach().cpu()


def _occluded(network: torch.nn.Module, image: torch.Tensor, index: int) -> torch.Tensor:
    """How much less probable the class becomes when a box of the image is made its mean."""
    sizes = image.shape[2:]
    steps = [max(1, -(-size // PARTS)) for size in sizes]
    lost = torch.zeros(tuple(sizes))
    with torch.no_grad():
        before = _probable(network(image), index)
        for corner in itertools.product(*(range(0, size, step) for size, step in zip(sizes, steps, strict=True))):
            box = tuple(slice(at, at + step) for at, step in zip(corner, steps, strict=True))
            hidden = image.clone()
            hidden[(..., *box)] = image.mean()
            lost[box] = before - _probable(network(hidden), index)
    return lost.clamp(min=0) / lost.max().clamp(min=1e-6)


def _probable(answer: torch.Tensor, index: int) -> float:
    """Of one class; a network with one output, or whose classes do not exclude each other, has sigmoids."""
    numbers = answer[0].float().cpu()
    likely = torch.softmax(numbers, 0) if len(numbers) > 1 else torch.sigmoid(numbers)
    return float(likely[min(index, len(numbers) - 1)])


def _placed(seen: torch.Tensor, outcome: Outcome, source: Grid) -> NDArray[np.float16]:
    affine = np.asarray(outcome.image.affine.cpu(), np.float64)
    shape = source.voxels.shape[::-1]
    whole: Any = on_grid(seen[None].float(), affine, shape, ras(source.affine), nearest=False)
    found: NDArray[np.float16] = np.asarray(whole[0], np.float32).transpose(2, 1, 0).clip(0, 1).astype(np.float16)
    return np.ascontiguousarray(found)
