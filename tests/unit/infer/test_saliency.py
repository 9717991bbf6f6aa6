"""A classifier explains itself: what it looked at comes out where it lies on the source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from overread.domain.card import Accepts, Card, Label
from overread.domain.codes import Code
from overread.domain.reading import Likelihood, Reading

SHAPE = (10, 16, 24)  # slices, rows, columns
SPOT = (slice(6, 9), slice(2, 6), slice(15, 20))
CARD = Card(
    name="judge",
    version="1",
    title="Judge",
    manufacturer="m",
    engine="monai-bundle",
    weights="",
    weights_sha256="",
    accepts=Accepts("CT"),
    labels=(Label(1, "No", Code("1", "99T", "no")), Label(2, "Yes", Code("2", "99T", "yes"))),
    folder=Path(),
    task="classification",
)
FOUND = Reading(classes=(Likelihood(1, 0.1), Likelihood(2, 0.9, chosen=True)))


def network() -> Any:
    """Says yes the more, the brighter the brightest part."""
    import torch
    from torch import nn

    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv3d(1, 1, 3, padding=1, bias=False)
            self.features.weight.data.fill_(1 / 27)

        def forward(self, x: Any) -> Any:
            # squared, so that the gradient is where the brightness is
            seen = (self.features(x).relu() ** 2).flatten(1).sum(1, keepdim=True) / 50
            return torch.cat([-seen + 1, seen - 1], 1)

    return Judge().eval()


@pytest.mark.parametrize("way", ["grad-cam", "occlusion"])
@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, -1)], ids=["as it is", "turned"])
def test_the_map_is_where_the_model_looked(way: str, flip: tuple[int, int, int]) -> None:
    import torch
    from monai.data import MetaTensor

    from overread.infer.engines import Grid
    from overread.infer.memory import ras
    from overread.infer.outcome import Outcome
    from overread.infer.saliency import explained

    voxels = np.zeros(SHAPE, np.float32)
    voxels[SPOT] = 1
    affine = np.eye(4)
    affine[:3, :3] = np.diag([1.0, 1.0, 1.0])[:, [2, 1, 0]] * np.array([2.0, 1.0, 1.0])
    source = Grid(voxels, affine)
    turned = torch.from_numpy(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    whole = np.eye(4)
    for axis, sign in enumerate(flip):
        if sign < 0:
            turned = turned.flip(axis)
            whole[axis, axis], whole[axis, 3] = -1, turned.shape[axis] - 1
    image = MetaTensor(turned[None], affine=torch.from_numpy(ras(affine) @ whole))
    card = replace(CARD, saliency=way, saliency_layer="features")
    found = explained(FOUND, Outcome(None, image), network(), card, source)
    assert found.notes == ()
    assert list(found.saliency) == [2]
    seen = found.saliency[2].astype(np.float32)
    assert seen.shape == SHAPE
    assert 0 <= seen.min() <= seen.max() <= 1
    outside = np.ones(SHAPE, bool)
    outside[tuple(slice(max(0, s.start - 2), s.stop + 2) for s in SPOT)] = False
    assert seen[SPOT].mean() > 3 * seen[outside].mean() + 0.05


def test_a_map_that_cannot_be_made_is_told_and_the_answer_stands() -> None:
    import torch
    from monai.data import MetaTensor

    from overread.infer.engines import Grid
    from overread.infer.outcome import Outcome
    from overread.infer.saliency import explained

    image = MetaTensor(torch.rand(1, 24, 16, 10))
    card = replace(CARD, saliency="grad-cam", saliency_layer="no such layer")
    found = explained(FOUND, Outcome(None, image), network(), card, Grid(np.zeros(SHAPE, np.float32), np.eye(4)))
    assert (found.classes, dict(found.saliency)) == (FOUND.classes, {})
    assert "grad-cam could not be made" in found.notes[0]
