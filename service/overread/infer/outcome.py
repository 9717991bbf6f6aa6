"""What came out of a bundle, still in MONAI's terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """``prediction`` after postprocessing: a tensor (channels, x, y, z) or a table of boxes; ``image`` as the network
    saw it, with its affine, where the bundle kept it; ``inverted`` when the bundle itself brings its prediction back to
    the source's grid."""

    prediction: Any
    image: Any
    inverted: bool = False
