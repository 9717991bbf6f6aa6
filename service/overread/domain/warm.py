"""A model that is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Warm:
    """One process of a model on a device: the memory that it holds of the machine and may hold of its device, in bytes,
    and whether it reads now."""

    model: str
    device: str
    resident_bytes: int
    device_bytes: int
    busy: bool
