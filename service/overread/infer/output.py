"""From a network's output to a reading on the source grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from overread.domain.card import Card
from overread.domain.errors import CardError
from overread.domain.reading import Likelihood, Reading
from overread.infer import deciding
from overread.infer.engines import Grid
from overread.infer.place import on_source
from overread.infer.respaced import Unlike, back
from overread.infer.sliding import Row

Mask = NDArray[np.bool_]


class Output:
    """What the channels of one card mean. ``preprocessing`` is undone, in space, with the image that went through."""

    def __init__(self, card: Card, preprocessing: Compose, key: str) -> None:
        self._card, self._preprocessing, self._key = card, preprocessing, key

    def reading(self, answer: Tensor, image: Any, source: Grid) -> Reading:
        """``answer`` as ``feed`` gives it for ``image``, on the grid of ``source``."""
        if self._card.task == "classification":
            return Reading(classes=self._classes(answer.cpu()))
        if answer.ndim != 4:
            raise CardError(f"the network answers {tuple(answer.shape)}, which is no {self._card.task}")
        return self._on_grid(answer, image, source)

    def _on_grid(self, answer: Tensor, image: Any, source: Grid) -> Reading:
        shape = source.voxels.shape
        post, inverted = self._card.postprocess, self._card.postprocess.invert == "probabilities"
        if self._card.task == "image":
            return Reading(image=self._back(answer[:1], image, shape, nearest=False)[0])
        if post.activation == "none":
            values = np.rint(self._back(answer[:1], image, shape, nearest=True)[0])
            return self._label_map(values)
        channels = self._channels(answer.shape[0])
        if post.activation == "softmax":
            if inverted and self._card.probabilities:
                placed = self._back(torch.softmax(answer, 0), image, shape, nearest=False)
                found = self._label_map(np.asarray(channels)[placed.argmax(0)])
                return replace(found, probabilities=self._kept(channels, placed))
            best = self._likeliest(answer, image, source, nearest=not inverted)
            return self._label_map(np.asarray(channels, np.int16)[best])
        likely = torch.sigmoid(answer)
        if not inverted:
            likely = (likely > post.threshold).float()
        back = self._back(likely, image, shape, nearest=not inverted)
        masks = {v: p > (post.threshold if inverted else 0.5) for v, p in zip(channels, back, strict=True) if v}
        kept = self._kept(channels, back) if inverted else {}
        return Reading(masks={v: self._mended(v, mask) for v, mask in masks.items()}, probabilities=kept)

    def _kept(self, channels: Sequence[int], likely: NDArray[np.float32]) -> dict[int, NDArray[np.float16]]:
        """Probabilities by label's value, when the card asks to keep them."""
        named = {label.value for label in self._card.labels} if self._card.probabilities else set()
        return {v: p.astype(np.float16) for v, p in zip(channels, likely, strict=True) if v in named}

    def _likeliest(self, answer: Tensor, image: Any, source: Grid, *, nearest: bool) -> NDArray[Any]:
        """(slices, rows, columns) the channel that wins, without all of them ever being on the source's grid, if that
        can be helped."""
        rows = (Row(x, answer[:, x], None) for x in range(answer.shape[1]))
        try:
            way, affine = back(image, nearest=nearest)
        except Unlike:
            if nearest:
                labels = deciding.here(deciding.slabs(rows, softmax=True, labels_only=True))
                found = torch.from_numpy(labels)[None].float()
                return np.asarray(self._back(found, image, source.voxels.shape, nearest=True)[0], np.intp)
            best = self._back(torch.softmax(answer, 0), image, source.voxels.shape, nearest=False)
            return np.asarray(best.argmax(0))
        return on_source(deciding.decided(rows, way, softmax=True, linear=not nearest), affine, source)

    def _back(self, answer: Tensor, image: Any, shape: tuple[int, ...], *, nearest: bool) -> NDArray[np.float32]:
        """(channels, x, y, z) on the network's grid → (channels, slices, rows, columns) on the source's."""
        found: Any = MetaTensor(answer.cpu(), meta=image.meta, applied_operations=image.applied_operations)
        if self._preprocessing.transforms:
            inverse = Invertd("pred", self._preprocessing, orig_keys=self._key, nearest_interp=nearest, to_tensor=True)
            found = inverse({"pred": found, self._key: image})["pred"]
        if tuple(found.shape[1:]) != shape[::-1]:
            raise CardError(f"undone, the preprocessing gives {tuple(found.shape[1:])}, the source has {shape[::-1]}")
        back: NDArray[np.float32] = np.asarray(torch.as_tensor(found), np.float32).transpose(0, 3, 2, 1)
        return back

    def _label_map(self, values: NDArray[Any]) -> Reading:
        if values.min() < 0 or values.max() > 255:
            raise CardError("the network's labels are not between 0 and 255")
        label_map = np.ascontiguousarray(values).astype(np.uint8)
        for label in self._card.labels:
            mask = label_map == label.value
            mended = self._mended(label.value, mask)
            label_map[mask & ~mended] = 0
            label_map[mended & (label_map == 0)] = label.value
        return Reading(label_map=label_map)

    def _mended(self, value: int, mask: Mask) -> Mask:
        name = next((label.name for label in self._card.labels if label.value == value), "")
        if name in self._card.postprocess.keep_largest and mask.any():
            numbered, _ = ndimage.label(mask, np.ones((3, 3, 3)))
            mask = numbered == np.bincount(numbered.ravel())[1:].argmax() + 1
        if name in self._card.postprocess.fill_holes:
            mask = np.asarray(ndimage.binary_fill_holes(mask), bool)
        return mask

    def _channels(self, count: int) -> tuple[int, ...]:
        post = self._card.postprocess
        if count == 1 and post.activation == "softmax":
            raise CardError('the network has one output channel; say postprocess.activation = "sigmoid"')
        usual = range(count) if post.activation == "softmax" else range(1, count + 1)
        channels = post.channels or tuple(usual)
        if len(channels) != count:
            raise CardError(f"the network has {count} output channels, postprocess.channels names {len(channels)}")
        return tuple(channels)

    def _classes(self, answer: Tensor) -> tuple[Likelihood, ...]:
        """Of a network that classifies slices, the mean over the slices."""
        post = self._card.postprocess
        channels = post.channels or tuple(label.value for label in self._card.labels)
        if answer.ndim > 2 or answer.shape[0] != len(channels):
            raise CardError(f"the network answers {tuple(answer.shape)} numbers for {len(channels)} classes")
        likely = answer
        if post.activation != "none":
            likely = torch.softmax(answer, 0) if post.activation == "softmax" else torch.sigmoid(answer)
        numbers = [float(p) for p in (likely.mean(1) if likely.ndim == 2 else likely)]
        best = int(np.argmax(numbers))
        alone = post.activation == "sigmoid"
        return tuple(
            Likelihood(value, p, p > post.threshold if alone else n == best)
            for n, (value, p) in enumerate(zip(channels, numbers, strict=True))
            if value
        )
