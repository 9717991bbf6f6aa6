"""What the numbers and names of a card can be. A value that cannot be is found when the card is read, not by a job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overread.domain.card import Card

DEVICE = re.compile(r"auto|cpu|cuda:\d+")
DEVICES = "auto, cpu or cuda:N, such as cuda:0"
PLANES = ("axial", "coronal", "sagittal", "any")
OUT_OF_MEMORY = ("cpu", "patience")
LEAST_MEMORY_MB = 64  # Python alone takes half of that
ANY = float("inf")
SHARE = (0.0, 1.0)

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "runtime": {
        "timeout_s": (0.1, 7 * 86400),
        "attempts": (1, 100),
        "deadline_s": (0, 1e8),
        "memory_mb": (0, 1e8),
    },
    "accepts": {
        "min_slices": (1, 1e6),
        "max_slices": (1, 1e6),
        "min_length_mm": (0, 1e5),
        "max_slice_spacing_mm": (0.001, 1e5),
        "max_tilt_deg": (0, 90),
    },
    "quality": {
        "max_empty": SHARE,
        "max_truncated": SHARE,
        "max_saturated": SHARE,
        "max_noise": (0, ANY),
        "max_distance": (0, ANY),
    },
    "labels": {"smallest_mm": (0, 1e5), "most": (1, 255), "least_score": SHARE},
    "texture": {"bins": (2, 65536), "bin_width": (0, 1e9), "spacing_mm": (0, 1e3)},
}


def check_ranges(card: Card) -> None:
    """Raise ValueError for the first value that cannot be, naming the key, the value and what it can be."""
    for section in ("runtime", "accepts", "quality"):
        _check(getattr(card, section), section, section)
    for label in card.labels:
        where = f"label {label.value} ({label.name}): labels"
        _check(label, "labels", where)
        _check(label.texture, "texture", f"{where}.texture")
        for number in label.color:
            _within(number, (0, 255), f"{where}.color")
    for name, floor in card.dice_floor.items():
        _within(floor, SHARE, f"dice_floor.{name}")
    _within(card.series_number, (0, 2**31 - 1), "series_number")
    for value in card.ignored:
        _within(value, (1, 65535), "ignored")
    _check_names(card)


def _check_names(card: Card) -> None:
    runtime, accepts = card.runtime, card.accepts
    if not DEVICE.fullmatch(runtime.device):
        raise ValueError(f"runtime.device is {runtime.device!r}; it can be {DEVICES}")
    if runtime.out_of_memory not in OUT_OF_MEMORY:
        raise ValueError(f"runtime.out_of_memory is {runtime.out_of_memory!r}; it can be {' or '.join(OUT_OF_MEMORY)}")
    if 0 < runtime.memory_mb < LEAST_MEMORY_MB:
        least = f"0 (the service's budget) or at least {LEAST_MEMORY_MB}"
        raise ValueError(f"runtime.memory_mb is {runtime.memory_mb}; it must be {least}")
    if accepts.plane not in PLANES:
        raise ValueError(f"accepts.plane is {accepts.plane!r}; it can be {', '.join(PLANES[:-1])} or {PLANES[-1]}")
    if accepts.max_slices < accepts.min_slices:
        raise ValueError(f"accepts.max_slices is {accepts.max_slices}, less than min_slices, {accepts.min_slices}")
    if both := {label.value for label in card.labels} & set(card.ignored):
        raise ValueError(f"ignored names {min(both)}, which has a label; take one of them out")


def _check(part: object, section: str, where: str) -> None:
    for name, limits in RANGES[section].items():
        _within(getattr(part, name), limits, f"{where}.{name}")


def _within(value: float, limits: tuple[float, float], where: str) -> None:
    low, high = limits
    # Written so that "nan", which TOML knows, is in no range.
    if not low <= value <= high or value == ANY:
        least = f"at least {low:g}" if high >= 1e5 else f"from {low:g} to {high:g}"
        raise ValueError(f"{where} is {value:g}; it must be {least}")
