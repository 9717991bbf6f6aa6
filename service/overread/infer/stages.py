"""Several models in one card: each may be restricted to the region that an earlier one found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from overread.domain.card import Card, require_known
from overread.domain.errors import CardError
from overread.domain.pipeline import Stage
from overread.domain.reading import Likelihood, Reading
from overread.infer.engines import Grid, Loaded, engine

Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]


class Stages:
    """The models of ``card.stages``, run in order on one device. Raises CardError when one cannot be loaded."""

    def __init__(self, card: Card, device: str) -> None:
        if not card.stages:
            raise CardError('the engine "stages" needs [[stages]] in the card')
        self._card = card
        self._values = {label.name: label.value for label in card.labels}
        self._stages: list[tuple[Stage, Loaded]] = []
        for stage in card.stages:
            try:
                self._stages.append((stage, engine(stage.engine)(_card(card, stage), device)))
            except CardError as error:
                raise CardError(f"stage {stage.name}: {error}") from error

    def read(self, volumes: Sequence[Grid], progress: Callable[[float], None]) -> Reading:
        """Masks of all stages that are kept, and the classes of the classifiers among them.

        A stage whose region is empty finds nothing, and a classifier of the whole region then has nothing to judge.
        """
        found: dict[int, Mask] = {}
        kept: set[int] = set()
        classes: list[Likelihood] = []
        notes: list[str] = []
        for n, (stage, model) in enumerate(self._stages):
            for reading, box in self._readings(stage, model, volumes, found, _share(progress, n, len(self._stages))):
                shape = volumes[0].voxels.shape
                for value, mask in _masks(reading):
                    require_known(self._card, [value] if mask.any() else [])
                    _paste(found.setdefault(value, np.zeros(shape, bool)), mask, box)
                    kept.update({value} if stage.keep else ())
                classes += reading.classes if stage.keep and not stage.each else ()
                notes += [f"{stage.name}: {note}" for note in reading.notes]
        progress(1.0)
        return Reading(masks={v: found[v] for v in sorted(kept)}, classes=tuple(classes), notes=tuple(notes))

    def _readings(
        self,
        stage: Stage,
        model: Loaded,
        volumes: Sequence[Grid],
        found: dict[int, Mask],
        progress: Callable[[float], None],
    ) -> Iterator[tuple[Reading, Box]]:
        whole: Box = (slice(None), slice(None), slice(None))
        if not stage.within:
            yield model.read(volumes, progress), whole
            return
        region = found.get(self._values[stage.within])
        if region is None or not region.any():
            return
        for part in _components(region) if stage.each else (region,):
            box = _box(part, volumes[0], stage.margin_mm)
            reading = model.read([_cut(v, box, part, stage.outside) for v in volumes], progress)
            yield (_as_masks(reading, part[box]) if stage.each else reading), box


def _card(card: Card, stage: Stage) -> Card:
    labels = [label for label in card.labels if not stage.labels or label.name in stage.labels]
    return replace(
        card,
        stages=(),
        labels=tuple(labels),
        **{key: getattr(stage, key) for key in ("engine", "weights", "weights_sha256", "task", "features")},
        **{key: getattr(stage, key) for key in ("orientation", "further_weights")},
        **{key: getattr(stage, key) for key in ("preprocess", "inferer", "postprocess")},
    )


def _share(progress: Callable[[float], None], n: int, count: int) -> Callable[[float], None]:
    return lambda fraction: progress((n + fraction) / count)


def _masks(reading: Reading) -> Iterator[tuple[int, Mask]]:
    yield from reading.masks.items()
    if reading.label_map is not None:
        for value in np.unique(reading.label_map):
            if value:
                yield int(value), reading.label_map == value


def _as_masks(reading: Reading, part: Mask) -> Reading:
    """A classifier's verdict on one component makes the component a finding of the class that it chose."""
    chosen = {c.label: part for c in reading.classes if c.chosen}
    return replace(reading, masks={**reading.masks, **chosen})


def _components(region: Mask) -> Iterator[Mask]:
    numbered, count = ndimage.label(region, np.ones((3, 3, 3)))
    for n in range(1, count + 1):
        yield numbered == n


def _box(region: Mask, volume: Grid, margin_mm: float) -> Box:
    """The region's bounding box, wider by the margin on every side, within the volume."""
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    wider = np.ceil(margin_mm / spacing - 1e-6).astype(int)
    (tight,) = ndimage.find_objects(region.view(np.uint8))
    a, b, c = (
        slice(max(0, s.start - w), min(size, s.stop + w))
        for s, w, size in zip(tight, wider, region.shape, strict=True)
    )
    return a, b, c


def _cut(volume: Grid, box: Box, region: Mask, outside: float | None) -> Grid:
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ np.array([*(s.start for s in box), 1.0]))[:3]
    voxels = volume.voxels[box]
    if outside is not None:
        voxels = np.where(region[box], voxels, np.asarray(outside, voxels.dtype))
    return Grid(voxels, affine, volume.paths[box[0]], region[box])


def _paste(into: Mask, mask: Mask, box: Box) -> None:
    into[box] |= mask
