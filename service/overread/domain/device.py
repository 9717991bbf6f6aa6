"""A device that models run on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """How busy a device is now: ``name`` cpu or cuda:N; ``busy`` 0 … 1; memory in bytes; ``celsius`` and ``watts`` are
    None where nobody says them."""

    name: str
    busy: float
    used_bytes: int
    total_bytes: int
    celsius: float | None = None
    watts: float | None = None
