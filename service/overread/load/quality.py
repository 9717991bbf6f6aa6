"""The input gate: whether a volume is fit to be read by a model, judged before a GPU is asked.

What the card accepts in general (its length, its spacing) and what it demands of the image itself (``[quality]``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from overread.domain.card import Card
from overread.domain.errors import Unfit
from overread.domain.volume import Volume
from overread.load.features import enclosed, features, noise_of, thinned, threshold
from overread.load.profile import read_profile


@dataclass(frozen=True)
class Quality:
    """What was measured. Lengths in mm; ``noise`` in the volume's unit; shares 0 … 1.

    ``truncated``: of the edge of the field of view, how much is body. ``saturated``: of the body, how much has the
    greatest value. ``empty``: of the slices, how many show nothing.
    """

    coverage_mm: float
    spacing_mm: float
    truncated: float
    saturated: float
    noise: float
    empty: float


def measure(volume: Volume) -> Quality:
    """Measure one volume; the slices' regularity was required when they were stacked."""
    planes, _ = thinned(volume)
    bright = planes > threshold(planes, volume)
    body = enclosed(bright)
    spread = planes.max((1, 2)) - planes.min((1, 2))
    # Scanners fill what lies outside of a round field of view with one value, which no slice ever changes.
    seen = np.ptp(planes, axis=0) > 0 if len(planes) > 1 else planes[0] > planes[0].min()
    edge = _edge(seen)
    inside = planes[body]
    return Quality(
        coverage_mm=volume.spacing_mm[0] * volume.voxels.shape[0],
        spacing_mm=volume.spacing_mm[0],
        truncated=float(bright[:, edge].mean()) if edge.any() else 0.0,
        saturated=float((inside == planes.max()).mean()) if inside.size else 0.0,
        noise=noise_of(volume),
        empty=float((spread <= 0.01 * max(float(spread.max()), 1e-9)).mean()),
    )


def require_fit(volume: Volume, card: Card) -> None:
    """Raise Unfit, with every reason, when ``volume`` is not what the model of ``card`` should read."""
    reasons = [*_objections(measure(volume), volume, card), *_unlike(volume, card)]
    if reasons:
        raise Unfit("; ".join(reasons))


def _objections(found: Quality, volume: Volume, card: Card) -> Iterator[str]:
    accepts, limits = card.accepts, card.quality
    if volume.kind == "volume":
        if found.spacing_mm > accepts.max_slice_spacing_mm:
            most = accepts.max_slice_spacing_mm
            yield f"its slices are {found.spacing_mm:.2f} mm apart, the model takes {most:g} mm at most"
        if found.coverage_mm < accepts.min_length_mm:
            yield f"it covers {found.coverage_mm:.0f} mm, the model needs {accepts.min_length_mm:g} mm"
    if found.empty > limits.max_empty:
        yield f"{found.empty:.0%} of its slices are empty, the model takes {limits.max_empty:.0%} at most"
    if found.truncated > limits.max_truncated:
        yield (
            f"the field of view cuts the body off along {found.truncated:.0%} of its edge, the model takes "
            f"{limits.max_truncated:.0%} at most"
        )
    if found.saturated > limits.max_saturated:
        yield (
            f"{found.saturated:.0%} of the body is saturated, the model takes {limits.max_saturated:.0%} at most"
        )
    if limits.max_noise and found.noise > limits.max_noise:
        noise = f"{found.noise:.0f} {volume.unit}".rstrip()
        yield f"its noise is {noise}, the model takes {limits.max_noise:g} at most"


def _unlike(volume: Volume, card: Card) -> Iterator[str]:
    profile = read_profile(card.folder) if card.quality.max_distance else None
    if profile is None:
        return
    distance, worst = profile.distance(features(volume))
    if distance > card.quality.max_distance:
        yield f"the image looks unlike what the model was trained on: {worst}"


def _edge(seen: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """The outermost pixels (rows, columns) of what is ``seen``."""
    padded = np.pad(seen, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = seen & ~inner
    return edge
