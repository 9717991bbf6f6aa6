"""What the images looked like that a model was trained on: ``profile.json`` beside its card.

For each feature the range that nearly all of them had. An image is as far away as its worst feature: 0 inside the
range, 1 when it is half a range outside of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from overread.domain.errors import CardError
from overread.domain.volume import Volume
from overread.load.features import features

FILE = "profile.json"
QUANTILES = (0.05, 0.95)


@dataclass(frozen=True)
class Profile:
    """``ranges``: (low, high) of each feature by its name, over ``studies`` studies."""

    studies: int
    ranges: Mapping[str, tuple[float, float]]

    def distance(self, found: Mapping[str, float]) -> tuple[float, str]:
        """How far an image with these features is from the range, and its worst feature in words."""
        worst, told = 0.0, ""
        for name, (low, high) in self.ranges.items():
            if name not in found:
                return float("inf"), "there is nothing in the image"
            half = max((high - low) / 2, 1e-9)
            away = max(low - found[name], found[name] - high, 0.0) / half
            if away > worst:
                worst = away
                told = f"{name} is {found[name]:.3g}, in training it was {low:.3g} to {high:.3g}"
        return worst, told


def profile_of(volumes: Iterable[Volume], *, widen: float = 0.0) -> Profile:
    """The profile of ``volumes``, each range made larger at both ends by ``widen`` times its width.

    Raises CardError when there are none with anything in them.
    """
    found = [f for f in map(features, volumes) if f]
    if not found:
        raise CardError("no study with an image that could be measured; nothing to make a profile of")
    ranges = {}
    for name in found[0]:
        low, high = (float(q) for q in np.quantile([f[name] for f in found if name in f], QUANTILES))
        ranges[name] = (low - widen * (high - low), high + widen * (high - low))
    return Profile(len(found), ranges)


def write_profile(profile: Profile, folder: Path) -> Path:
    """Write ``profile.json`` into a model's folder."""
    path = folder / FILE
    ranges = {name: [float(f"{v:.6g}") for v in ends] for name, ends in profile.ranges.items()}
    path.write_text(json.dumps({"studies": profile.studies, "ranges": ranges}, indent=2, ensure_ascii=False) + "\n")
    return path


@lru_cache(maxsize=64)
def read_profile(folder: Path) -> Profile | None:
    """The profile of a model, None when it has none; raises CardError when it is not one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in values["ranges"].items()}
        return Profile(int(values["studies"]), ranges)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CardError(f"{path} is no profile ({type(error).__name__}); make it anew") from None
