"""The features of one region as numbers by name, for classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overread.domain.card import Texture
from overread.domain.features import FEATURES, expand
from overread.measure.diameter import axes_mm, longest_mm


def vector(
    voxels: NDArray[Any],
    affine: NDArray[np.float64],
    mask: NDArray[np.bool_],
    names: Sequence[str],
    texture: Texture | None = None,
) -> Mapping[str, float]:
    """Features ``names`` over ``mask`` of ``voxels``, both (slices, rows, columns); ``affine`` index → mm.

    ``volume`` in ml, diameters in mm, the others as ``measure.radiomics`` has them. NaN where one is not defined.
    Raises CardError when radiomics features are asked for and MIRP is not installed.
    """
    wanted = expand(names)
    between_slices, between_rows, between_columns = (float(v) for v in np.linalg.norm(affine[:3, :3], axis=0))
    found: dict[str, float] = {}
    if "volume" in wanted:
        found["volume"] = float(mask.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000.0)
    if {"long_axis", "short_axis"} & set(wanted):
        found["long_axis"], found["short_axis"] = axes_mm(mask, (between_rows, between_columns))
    if "longest_diameter" in wanted:
        found["longest_diameter"] = longest_mm(mask, (between_slices, between_rows, between_columns))
    radiomics = [name for name in wanted if name in FEATURES]
    if radiomics:
        from overread.measure.radiomics import compute

        spacing = (between_slices, between_rows, between_columns)
        found.update(compute(voxels, mask, spacing, radiomics, texture or Texture()))
    return {name: found[name] for name in wanted}
