"""A bundle of the common shape, run in one stream: windows → rows → labels on the source's grid.

The common shape: a volume goes through transforms of which at most an Orientation and a Spacing change its grid; a
sliding window; softmax, Invertd and argmax in one of the usual orders; then whatever else. What comes out is what the
bundle's parts give one after the other, to the bit; on the way there is never more than a few rows of all classes, and
nothing of the size of the source but the image and the mask. Other bundles, and other images, go the plain way.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Activationsd, AsDiscreted, Compose, Invertd, Spacingd
from numpy.typing import NDArray

from overread.domain.card import Card
from overread.domain.pipeline import Network
from overread.domain.reading import Reading
from overread.infer import deciding
from overread.infer.composed import IMAGE, PREDICTION, Composed
from overread.infer.crew import Crew, members
from overread.infer.engines import Grid
from overread.infer.heads import reading
from overread.infer.memory import ras
from overread.infer.outcome import Outcome
from overread.infer.place import on_grid, on_source
from overread.infer.respaced import Unlike, back
from overread.infer.sliding import Look, Odd, look

Affine = NDArray[np.float64]
# Windows for each thread. torch leaves small layers of a single one to its slow convolution (2.4 times as long for a
# UNet with windows of 96 voxels), but not those of a pair; with many labels a pair's answers are more than all else.
PAIR, MANY = 2, 16


@dataclass(frozen=True)
class Ending:
    """How labels are made of a network's answer. ``softmax``: of probabilities; ``invert``: before (``linear``) or
    after (``nearest``) the choice, or not at all; ``rest``: the transforms that come then."""

    softmax: bool
    invert: str
    rest: tuple[Any, ...]


class Streamed:
    """The parts of one bundle, ready to run as a stream; None of it where the bundle has another shape: ``of``."""

    def __init__(self, parts: Composed, ending: Ending, sliding: Look, card: Card) -> None:
        self._parts, self._ending, self._card = parts, ending, card
        self._odd = False
        count = members(parts.device)
        self._crew = Crew(parts.network, count, lambda: precision(card.network, parts.device))
        each = PAIR if len(card.labels) < MANY else 1
        self._look = replace(sliding, batch=count * each if count > 1 else sliding.batch)

    @classmethod
    def of(cls, parts: Any, card: Card) -> Streamed | None:
        """The stream that runs a bundle whose ``parts`` are ready; None when one of them is not understood."""
        if not isinstance(parts, Composed) or card.task != "segmentation" or not parts.volumetric:
            return None
        if card.probabilities or card.saliency:  # what this way never has as a whole
            return None
        ending = _ending(parts.postprocessing, parts.preprocessing)
        sliding = look(parts.inferer, card.network.empty_at_most)
        if ending is None or sliding is None or not _plain(parts.preprocessing):
            return None
        return cls(parts, ending, sliding, card)

    def read(self, item: Any, source: Grid, progress: Callable[[float], None]) -> Reading | None:
        """Read one item, see ``recipe.feed``; None when it turns out that the plain way must."""
        if self._odd:
            return None
        with torch.inference_mode():
            item = self._parts.preprocessing(item)
            image = item[IMAGE] if isinstance(item, dict) else None
            if not isinstance(image, MetaTensor) or image.ndim != 4:
                return None
            try:
                labels, affine = self._labels(image, progress)
            except Unlike:
                return None
            except Odd:
                self._odd = True
                return None
            if not self._ending.rest:
                return Reading(label_map=on_source(labels, affine, source))
            return self._rest(item, labels, affine, source)

    def _labels(self, image: MetaTensor, progress: Callable[[float], None]) -> tuple[NDArray[Any], Affine]:
        """Labels (x, y, z), and the affine, RAS, of the grid on which they are."""
        ending, threads = self._ending, torch.get_num_threads()
        way, there = back(image, nearest=ending.invert == "nearest") if ending.invert else (None, image.affine.numpy())
        linear = ending.invert == "linear"
        with self._crew.at_work() as crew, precision(self._card.network, self._parts.device):
            predict = self._parts.counting(image, progress, crew)
            rows = self._look.rows(_onto(image.as_tensor(), self._parts.device), predict)
            labels = deciding.decided(rows, way, softmax=ending.softmax, linear=linear, threads=threads)
        return labels, there

    def _rest(self, item: dict[str, Any], labels: NDArray[Any], affine: Affine, source: Grid) -> Reading:
        """What the bundle does with its labels, on them."""
        image, made = item[IMAGE], torch.from_numpy(labels)[None].float()
        if self._ending.invert:
            grid = ras(source.affine)
            placed = on_grid(made, affine, source.voxels.shape[::-1], grid, nearest=True)
            item[PREDICTION] = MetaTensor(placed, affine=torch.from_numpy(grid))
        else:
            item[PREDICTION] = MetaTensor(made, meta=image.meta, applied_operations=image.applied_operations)
        item = Compose(self._ending.rest)(item)
        inverted = bool(self._ending.invert) or any(isinstance(t, Invertd) for t in self._ending.rest)
        return reading(Outcome(item[PREDICTION], image, inverted), self._card, source)


def precision(network: Network, device: torch.device) -> AbstractContextManager[Any]:
    """The arithmetic that the card allows, where the processor has it; float32 otherwise."""
    if network.precision != "bfloat16" or not _has_bfloat16(device):
        return nullcontext()
    allowed: AbstractContextManager[Any] = torch.autocast(device.type, dtype=torch.bfloat16)
    return allowed


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _onto(image: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The image on the device, by way of pinned memory, which a GPU fetches from by itself."""
    return image.contiguous().pin_memory().to(device, non_blocking=True) if device.type == "cuda" else image


def _plain(preprocessing: Any) -> bool:
    """Whether the grids on the way are those that MONAI's books tell of."""
    steps = getattr(preprocessing, "transforms", ())
    lazy = getattr(preprocessing, "lazy", None)
    moved = any(isinstance(t, Spacingd) and t.spacing_transform.recompute_affine for t in steps)
    return isinstance(preprocessing, Compose) and not lazy and not moved


def _ending(postprocessing: Any, preprocessing: Any) -> Ending | None:
    steps = list(getattr(postprocessing, "transforms", ()))
    softmax = bool(steps) and _softmax(steps[0])
    steps = steps[softmax:]
    if softmax and len(steps) > 1 and _inverts(steps[0], preprocessing) is False and _argmax(steps[1]):
        return Ending(True, "linear", tuple(steps[2:]))
    if not steps or not _argmax(steps[0]):
        return None
    if len(steps) > 1 and _inverts(steps[1], preprocessing):
        return Ending(softmax, "nearest", tuple(steps[2:]))
    return Ending(softmax, "", tuple(steps[1:]))


def _softmax(step: Any) -> bool:
    if type(step) is not Activationsd or tuple(step.keys) != (PREDICTION,) or step.converter.kwargs:
        return False
    return tuple(step.softmax) == (True,) and tuple(step.sigmoid) == (False,) and tuple(step.other) == (None,)


def _argmax(step: Any) -> bool:
    if type(step) is not AsDiscreted or tuple(step.keys) != (PREDICTION,) or step.converter.kwargs:
        return False
    more = (step.to_onehot, step.threshold, step.rounding)
    return tuple(step.argmax) == (True,) and all(tuple(given) == (None,) for given in more)


def _inverts(step: Any, preprocessing: Any) -> bool | None:
    """Whether a step undoes the preprocessing to the nearest (True) or linearly (False); None when it does not."""
    if type(step) is not Invertd or tuple(step.keys) != (PREDICTION,) or tuple(step.orig_keys) != (IMAGE,):
        return None
    if step.transform is not preprocessing or tuple(step.post_func) != (None,):
        return None
    return bool(step.nearest_interp[0])
